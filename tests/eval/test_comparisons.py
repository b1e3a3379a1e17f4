"""Differences of two models' distances: their values, their errors, and how often they are called real."""

from __future__ import annotations

import numpy as np
import pytest

from lsgm.errors import UserError
from lsgm_eval.comparisons import Comparison, compare_frechet, compare_kernel
from lsgm_eval.features import FeatureStats
from lsgm_eval.frechet import frechet_distance
from lsgm_eval.intervals import Interval, frechet_interval
from lsgm_eval.kernel import kernel_distance
from lsgm_eval.moments import Array, Moments

DIM = 6


def world(seed: int, n: int, shift: float = 0.0) -> Array:
    return shift + np.random.default_rng(seed).normal(size=(n, DIM)) * np.linspace(0.4, 1.2, DIM)


def stats(rows: Array) -> FeatureStats:
    return FeatureStats(Moments.of(rows), rows.astype(np.float32))


REFERENCE = Moments.of(world(999, 5000))


def test_difference_is_that_of_the_two_distances() -> None:
    a, b, r = world(0, 30, 0.4), world(1, 20, 0.2), world(2, 25)
    kernel = compare_kernel(a, b, r)
    assert kernel.a == pytest.approx(kernel_distance(a, r).value, rel=1e-10)
    assert kernel.b == pytest.approx(kernel_distance(b, r).value, rel=1e-10)
    assert kernel.difference.value == pytest.approx(kernel.a - kernel.b, rel=1e-9)
    frechet = compare_frechet(stats(a), stats(world(1, 30)), REFERENCE)
    assert frechet.a == frechet_distance(Moments.of(a), REFERENCE)
    assert frechet.difference.value == frechet.a - frechet.b


@pytest.mark.parametrize("paired", [False, True])
def test_error_of_the_kernel_difference_is_the_leave_one_out_jackknife(paired: bool) -> None:
    a, b, r = world(3, 9, 0.5), world(4, 9, 0.2), world(5, 11)

    def gap(x: Array, y: Array, z: Array) -> float:
        return kernel_distance(x, z).value - kernel_distance(y, z).value

    without_r = [gap(a, b, np.delete(r, j, 0)) for j in range(11)]
    if paired:
        both = [gap(np.delete(a, i, 0), np.delete(b, i, 0), r) for i in range(9)]
        rows = 8 * np.var(both)
    else:
        rows = sum(
            8 * np.var([gap(*(np.delete(s, i, 0) if s is x else s for s in (a, b)), r) for i in range(9)])
            for x in (a, b)
        )
    error = compare_kernel(a, b, r, paired=paired).difference.standard_error
    assert error == pytest.approx(np.sqrt(rows + 10 * np.var(without_r)), rel=1e-8)


@pytest.mark.parametrize(("shift_a", "shift_b"), [(0.3, 0.3), (0.4, 0.2), (0.0, 0.0)])
def test_kernel_interval_covers_the_difference_of_the_populations(shift_a: float, shift_b: float) -> None:
    big = compare_kernel(world(90, 4000, shift_a), world(91, 4000, shift_b), world(92, 4000))
    truth = 0.0 if shift_a == shift_b else big.difference.value
    found = [
        compare_kernel(world(3 * s, 100, shift_a), world(3 * s + 1, 100, shift_b), world(3 * s + 2, 120))
        for s in range(100, 300)
    ]
    covered = np.mean([c.difference.low <= truth <= c.difference.high for c in found])
    # 200 repeats have a standard error of 1.5 points; near P = Q the jackknife errs on the wide side.
    assert covered > 0.905
    if shift_a != shift_b:
        assert np.mean([c.real for c in found]) > 0.5


def test_sharing_the_reference_narrows_the_kernel_difference() -> None:
    a, b, r = world(6, 400, 0.35), world(7, 400, 0.3), world(8, 40)
    apart = np.hypot(kernel_distance(a, r).standard_error, kernel_distance(b, r).standard_error)
    assert compare_kernel(a, b, r).difference.standard_error < 0.6 * apart


@pytest.mark.parametrize(("shift_a", "shift_b"), [(0.3, 0.3), (0.4, 0.3)])
@pytest.mark.parametrize("paired", [False, True])
def test_frechet_interval_covers_the_expected_difference(
    shift_a: float, shift_b: float, paired: bool
) -> None:
    found = []
    for s in range(300):
        x = world(2 * s, 300, shift_a)
        y = x - shift_a + shift_b + 0.3 * world(2 * s + 1, 300) if paired else world(2 * s + 1, 300, shift_b)
        found.append(compare_frechet(stats(x), stats(y), REFERENCE, paired=paired))
    expectation = np.mean([c.difference.value for c in found])
    covered = np.mean([c.difference.low <= expectation <= c.difference.high for c in found])
    assert covered == pytest.approx(0.95, abs=0.045)  # 3.5 standard errors of 300 repeats
    if shift_a == shift_b and not paired:
        assert np.mean([c.real for c in found]) < 0.095


def test_pairing_by_seed_narrows_the_frechet_difference() -> None:
    x = world(9, 500, 0.4)
    y = x + 0.05 * world(10, 500)
    paired = compare_frechet(stats(x), stats(y), REFERENCE, paired=True).difference.standard_error
    alone = compare_frechet(stats(x), stats(y), REFERENCE).difference.standard_error
    single = [frechet_interval(Moments.of(z), REFERENCE, z).standard_error for z in (x, y)]
    assert alone == pytest.approx(np.hypot(*single), rel=1e-5)  # rows are kept in float32
    assert paired < 0.2 * alone


def test_verdict_names_the_nearer_model_or_says_that_there_is_none() -> None:
    nearer = Comparison(1.0, 2.0, Interval.normal(-1.0, 0.1))
    assert nearer.real
    assert nearer.verdict("A", "B").startswith("A is nearer to the reference than B: A - B is -1 [-1.2, -0.8")
    assert Comparison(2.0, 1.0, Interval.normal(1.0, 0.1)).verdict("A", "B").startswith("B is nearer")
    alike = Comparison(1.0, 1.1, Interval.normal(-0.1, 0.1))
    assert not alike.real
    assert "A and B cannot be told apart" in alike.verdict("A", "B")


def test_what_does_not_compare_is_refused() -> None:
    with pytest.raises(UserError, match="100 and of 90 images have different biases"):
        compare_frechet(stats(world(0, 100)), stats(world(1, 90)), REFERENCE)
    with pytest.raises(ValueError, match="paired rows need equal numbers, not 10 and 9"):
        compare_kernel(world(0, 10), world(1, 9), world(2, 10), paired=True)
    with pytest.raises(ValueError, match="at least 3 images"):
        compare_kernel(world(0, 10), world(1, 2), world(2, 10))
