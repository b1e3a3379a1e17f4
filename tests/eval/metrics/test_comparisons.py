"""Differences of two models' distances: their values, their errors, and how often they are called real."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsgm.errors import UserError
from lsgm_eval.metrics.difference import Comparison, beyond_bias, compare_frechet, compare_kernel
from lsgm_eval.metrics.frechet import frechet_bias, frechet_distance, frechet_interval
from lsgm_eval.metrics.intervals import Interval
from lsgm_eval.metrics.kernel import kernel_distance
from lsgm_eval.metrics.moments import Array, FeatureStats, Moments

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
    truth = 0.0
    if shift_a != shift_b:
        populations = world(90, 2500, shift_a), world(91, 2500, shift_b), world(92, 2500)
        truth = compare_kernel(*populations).difference.value
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
        found.append(compare_frechet(stats(x), stats(y), REFERENCE, paired=paired, biases=(0.0, 0.0)))
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


WIDE = 128
EXACT = Moments.given(np.zeros(WIDE), np.eye(WIDE), 10**6)


@pytest.mark.parametrize("n", [60, 150, 312])
def test_a_lead_that_bias_alone_makes_is_no_verdict(n: int) -> None:
    """Samples of the reference itself and of 0.9 times its scale, whose bias at n is a tenth smaller.

    By intervals alone the narrower model is called nearer than the truth, always at n = 60 and 150.
    """
    rng = np.random.default_rng(11)
    for _ in range(3):
        narrow, true = (stats(scale * rng.normal(size=(n, WIDE))) for scale in (0.9, 1.0))
        found = compare_frechet(narrow, true, EXACT)
        assert not (found.real and found.difference.value < 0)
        if n < 200:
            assert found.difference.high < 0
            assert found.verdict("narrow", "true").startswith(
                "no verdict on narrow and true: their distances"
            )


@pytest.mark.parametrize(("scale", "n"), [(1.5, 150), (1.3, 312), (0.6, 150), (0.8, 600)])
def test_a_model_that_is_farther_by_more_than_bias_is_told(scale: float, n: int) -> None:
    """Wider models are farther and more biased, narrower ones farther though less biased."""
    rng = np.random.default_rng(12)
    for _ in range(2):
        other, true = stats(scale * rng.normal(size=(n, WIDE))), stats(rng.normal(size=(n, WIDE)))
        assert compare_frechet(other, true, EXACT).verdict("other", "true").startswith("true is nearer")


def test_biases_that_are_known_are_not_estimated_again() -> None:
    a, b = stats(world(20, 200, 0.4)), stats(world(21, 200, 0.1))
    known = compare_frechet(a, b, REFERENCE, biases=(0.3, 0.1))
    assert known.bias == pytest.approx(0.2)
    estimated = compare_frechet(a, b, REFERENCE).bias
    assert estimated == frechet_bias(a.rows, REFERENCE, 200) - frechet_bias(b.rows, REFERENCE, 200)


@given(st.floats(-10, 10), st.floats(0, 5), st.floats(-10, 10))
def test_a_verdict_needs_the_interval_and_more_than_the_bias(value: float, arm: float, bias: float) -> None:
    decided = beyond_bias(value, value - arm, value + arm, bias)
    if decided:
        assert abs(value) > arm
        assert bias * value <= 0 or abs(bias) < abs(value)
    assert decided == beyond_bias(-value, -value - arm, -value + arm, -bias)
    assert beyond_bias(value, value - arm, value + arm, 0.0) == (abs(value) > arm)


def test_verdict_names_the_nearer_model_or_says_that_there_is_none() -> None:
    nearer = Comparison(1.0, 2.0, Interval.normal(-1.0, 0.1))
    assert nearer.real
    assert nearer.verdict("A", "B").startswith("A is nearer to the reference than B: A - B is -1 [-1.2, -0.8")
    assert Comparison(2.0, 1.0, Interval.normal(1.0, 0.1)).verdict("A", "B").startswith("B is nearer")
    alike = Comparison(1.0, 1.1, Interval.normal(-0.1, 0.1))
    assert not alike.real
    biased = Comparison(1.0, 2.0, Interval.normal(-1.0, 0.1), bias=-0.7)
    assert not biased.real
    assert biased.verdict("A", "B") == (
        "no verdict on A and B: their distances differ by -1 [-1.2, -0.804], and their upward biases at "
        "this n by about -0.7; draw more images, or compare kernel distances"
    )
    assert Comparison(1.0, 2.0, Interval.normal(-1.0, 0.1), bias=0.7).real
    assert "A and B cannot be told apart" in alike.verdict("A", "B")


def test_what_does_not_compare_is_refused() -> None:
    with pytest.raises(UserError, match="100 and of 90 images have different biases"):
        compare_frechet(stats(world(0, 100)), stats(world(1, 90)), REFERENCE)
    with pytest.raises(ValueError, match="paired rows need equal numbers, not 10 and 9"):
        compare_kernel(world(0, 10), world(1, 9), world(2, 10), paired=True)
    with pytest.raises(ValueError, match="at least 3 images"):
        compare_kernel(world(0, 10), world(1, 2), world(2, 10))
