"""Intervals cover what they say they cover, about as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from lsgm_eval.frechet import frechet_distance
from lsgm_eval.intervals import (
    bootstrap_error,
    frechet_bias,
    frechet_interval,
    mean_interval,
    paired_difference,
    replicate_interval,
)
from lsgm_eval.moments import Array, Moments


def test_mean_is_covered_near_nominal() -> None:
    rng = np.random.default_rng(0)
    intervals = [mean_interval(rng.exponential(size=200)) for _ in range(1000)]
    covered = np.mean([i.low <= 1.0 <= i.high for i in intervals])
    assert covered == pytest.approx(0.95, abs=0.03)  # 1.4 standard errors short for the skew, 2.9 of noise


def test_mean_interval_is_196_standard_errors() -> None:
    interval = mean_interval(np.array([1.0, 2.0, 3.0, 4.0]))
    error = np.sqrt(5 / 3 / 4)
    assert interval.value == 2.5
    assert interval.high - interval.value == pytest.approx(1.959964 * error)
    with pytest.raises(ValueError, match="at least 2"):
        mean_interval(np.array([1.0]))


def test_ten_replicates_are_covered_exactly_as_often_as_promised() -> None:
    rng = np.random.default_rng(7)
    intervals = [replicate_interval(rng.normal(size=10)) for _ in range(2000)]
    covered = np.mean([i.low <= 0.0 <= i.high for i in intervals])
    assert covered == pytest.approx(0.95, abs=0.015)  # exact for Normal values; 3 standard errors of 2000


def test_pairing_cancels_what_images_share() -> None:
    rng = np.random.default_rng(1)
    difficulty = rng.normal(100, 20, size=500)
    a, b = difficulty + rng.normal(size=500), difficulty - 1 + rng.normal(size=500)
    paired = paired_difference(a, b)
    assert paired.low <= 1.0 <= paired.high
    assert paired.standard_error < 0.1 * mean_interval(a).standard_error
    with pytest.raises(ValueError, match="one shape"):
        paired_difference(a, b[1:])


def reference(dim: int) -> Moments:
    scale = np.linspace(0.2, 1.5, dim)
    return Moments.of(np.random.default_rng(99).normal(size=(5000, dim)) * scale)


def draw(rng: np.random.Generator, n: int, dim: int, shift: float, scale: float) -> Array:
    return shift + scale * rng.normal(size=(n, dim)) * np.linspace(0.2, 1.5, dim)


@pytest.mark.parametrize(
    ("n", "dim", "shift", "scale"), [(400, 8, 0.3, 1.3), (400, 8, 0.05, 1.0), (2000, 64, 0.1, 1.1)]
)
def test_frechet_interval_covers_the_expectation_at_this_n(
    n: int, dim: int, shift: float, scale: float
) -> None:
    rng, fixed = np.random.default_rng(3), reference(dim)
    repeats = 120 if dim == 64 else 400
    intervals = []
    for _ in range(repeats):
        x = draw(rng, n, dim, shift, scale)
        intervals.append(frechet_interval(Moments.of(x), fixed, x))
    expectation = np.mean([i.value for i in intervals])
    covered = np.mean([i.low <= expectation <= i.high for i in intervals])
    # 120 (400) repeats: a standard error of 2 (1.1) points around 0.95; above is allowed, the error being
    # conservative towards P = Q.
    assert covered > 0.95 - (0.06 if dim == 64 else 0.035)
    spread = np.std([i.value for i in intervals])
    assert np.mean([i.standard_error for i in intervals]) > 0.9 * spread


def test_frechet_bias_is_the_gap_to_the_population() -> None:
    n, dim = 300, 12
    rng = np.random.default_rng(4)
    scale = np.linspace(0.2, 1.5, dim)
    fixed = Moments(10**6, np.zeros(dim), np.diag(scale**2) * (10**6 - 1))
    truth = dim * 0.2**2 + ((0.3 * scale) ** 2).sum()
    gaps, estimates = [], []
    for _ in range(100):
        x = draw(rng, n, dim, 0.2, 1.3)
        gaps.append(frechet_distance(Moments.of(x), fixed) - truth)
        estimates.append(frechet_bias(x, fixed, n))
    assert np.mean(gaps) > 0
    noise = np.hypot(np.std(gaps), np.std(estimates)) / np.sqrt(100)
    assert abs(np.mean(estimates) - np.mean(gaps)) < 4 * noise + 0.1 * np.mean(gaps)


def test_bias_of_more_images_is_smaller_in_proportion() -> None:
    x, fixed = draw(np.random.default_rng(5), 400, 8, 0.2, 1.2), reference(8)
    assert frechet_bias(x, fixed, 4000) == pytest.approx(frechet_bias(x, fixed, 400) / 10)


def test_bootstrap_agrees_with_the_delta_method_and_repeats_with_its_seed() -> None:
    x, fixed = draw(np.random.default_rng(6), 600, 8, 0.3, 1.2), reference(8)

    def distance(rows: Array) -> float:
        return frechet_distance(Moments.of(rows), fixed)

    spread = bootstrap_error(distance, x, repeats=400, seed=1)
    delta = frechet_interval(Moments.of(x), fixed, x).standard_error
    assert delta == pytest.approx(spread, rel=0.15)  # the spread of 400 resamples is known to 3.5 %
    first, again, other = (bootstrap_error(distance, x, repeats=20, seed=seed) for seed in (2, 2, 3))
    assert first == again
    assert first != other
