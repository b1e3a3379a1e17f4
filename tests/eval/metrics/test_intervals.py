"""Intervals cover what they say they cover, about as often as they say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import Generator
from oracles.distances import bootstrap_error
from scipy import stats

from lsgm_eval.metrics.frechet import frechet_bias, frechet_distance, frechet_interval
from lsgm_eval.metrics.intervals import Interval, mean_interval, paired_difference, replicate_interval
from lsgm_eval.metrics.kernel import kernel_distance
from lsgm_eval.metrics.moments import Array, Moments

LAWS: dict[str, tuple[Callable[[Generator, tuple[int, int]], Array], float, int, float]] = {
    "normal": (lambda rng, size: rng.normal(size=size), 0.0, 100, 0.95),
    "few": (lambda rng, size: rng.normal(size=size), 0.0, 5, 0.93),
    "exponential": (lambda rng, size: rng.exponential(size=size), 1.0, 40, 0.94),
    "lognormal": (lambda rng, size: rng.lognormal(size=size), np.exp(0.5), 100, 0.94),
    "steep lognormal": (lambda rng, size: rng.lognormal(0, 1.5, size), np.exp(1.125), 100, 0.91),
    "mixed": (lambda rng, size: rng.normal(5.0 * (rng.random(size) < 0.01)), 0.05, 100, 0.93),
}
"""Draws, their mean, how many are averaged, and how often an interval of theirs covers it in the long run."""


@pytest.mark.parametrize("law", LAWS)
def test_means_of_skewed_values_are_covered(law: str) -> None:
    """1.96 errors cover 0.88 (of five), 0.92 (of exponentials and lognormals) and 0.85 (of steep ones)."""
    draw, mean, count, share = LAWS[law]
    rng, repeats = np.random.default_rng(0), 3000
    found = [mean_interval(row) for row in draw(rng, (repeats, count))]
    covered = np.mean([i.low <= mean <= i.high for i in found])
    assert covered > share - 3 * (share * (1 - share) / repeats) ** 0.5
    assert covered < 0.965


def test_no_interval_knows_an_outlier_that_no_image_shows() -> None:
    """Of 1 % large outliers, 100 images have none in 0.99^100 = 37 % of cases."""
    rng, repeats = np.random.default_rng(1), 2000
    found = [mean_interval(rng.normal(size=100) + 1000 * (rng.random(100) < 0.01)) for _ in range(repeats)]
    covered = np.mean([i.low <= 10 <= i.high for i in found])
    # All that show one or more are covered: 1 - 0.99^100, known to 1.1 points.
    assert covered == pytest.approx(1 - 0.99**100, abs=4 * 0.011)


def test_mean_interval_of_even_values_is_students() -> None:
    interval = mean_interval(np.array([1.0, 2.0, 3.0, 4.0]))
    assert interval.value == 2.5
    assert (interval.low, interval.high) == pytest.approx(stats.t(3, 2.5, np.sqrt(5 / 3 / 4)).interval(0.95))
    same = mean_interval(np.full(9, 0.3))
    assert same.low == pytest.approx(0.3) == same.high
    with pytest.raises(ValueError, match="at least 2"):
        mean_interval(np.array([1.0]))


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30), st.floats(-1e3, 1e3))
def test_mean_interval_moves_scales_and_mirrors_with_its_values(values: list[float], shift: float) -> None:
    x = np.array(values)
    found, moved, mirrored = mean_interval(x), mean_interval(x + shift), mean_interval(-2 * x)
    size = 1e-6 * (1 + np.abs(x).max() + abs(shift))
    assert found.low <= found.value + size
    assert found.value <= found.high + size
    if x.std() > 1e-3 * (1 + np.abs(x).max()):
        far = size + 1e-6 * (found.high - found.low)
        assert (moved.low, moved.high) == pytest.approx((found.low + shift, found.high + shift), abs=far)
        assert (mirrored.low, mirrored.high) == pytest.approx((-2 * found.high, -2 * found.low), abs=4 * far)


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


def test_frechet_interval_of_a_steep_spectrum_is_even_in_the_logarithm() -> None:
    """A few directions hold the distance, which is then about a chi-squared: 1.96 errors cover 0.89."""
    spread = 1 / np.arange(1, 65)
    rng, fixed = np.random.default_rng(3), Moments.given(np.zeros(64), np.diag(spread**2), 10**6)
    samples = [spread * (0.1 + rng.normal(size=(100, 64))) for _ in range(400)]
    found = [frechet_interval(Moments.of(x), fixed, x) for x in samples]
    expectation = np.mean([i.value for i in found])
    covered = np.mean([i.low <= expectation <= i.high for i in found])
    assert covered > 0.95 - 4 * 0.011  # 400 repeats


def lognormal_kernel(a: float, b: float, dim: int, sigma: float) -> float:
    """E (x . y / D + 1)^3 of independent lognormal features of scales a and b, from their moments."""
    one, two, three = ((a * b) ** j * np.exp(j**2 * sigma**2) for j in (1, 2, 3))
    square = two / dim + (dim - 1) / dim * one**2
    cube = (three + 3 * (dim - 1) * two * one + (dim - 1) * (dim - 2) * one**3) / dim**2
    return float(1 + 3 * one + 3 * square + cube)


@pytest.mark.parametrize(("sigma", "least", "gain"), [(0.7, 0.92, 0.02), (1.0, 0.80, 0.04)])
def test_kernel_interval_reaches_up_on_heavy_tails(sigma: float, least: float, gain: float) -> None:
    """Features of infinite skewness in all but name: rare images hold the distance and its error."""
    rng, dim, repeats = np.random.default_rng(4), 8, 800
    both = [lognormal_kernel(*scales, dim, sigma) for scales in ((1.3, 1.3), (1.0, 1.0), (1.3, 1.0))]
    truth = both[0] + both[1] - 2 * both[2]
    found = []
    for _ in range(repeats):
        x, y = np.exp(sigma * rng.normal(size=(2, 100, dim)))
        found.append(kernel_distance(1.3 * x, y))
    covered = np.mean([i.low <= truth <= i.high for i in found])
    normal = np.mean([abs(i.value - truth) < 1.96 * i.standard_error for i in found])
    assert covered > least
    assert covered - normal > gain


@given(st.floats(-1e3, 1e3), st.floats(0, 1e3), st.sampled_from([1.0, 2.0]))
def test_interval_of_a_distance_holds_it_and_is_even_where_the_error_is_small(
    value: float, error: float, even: float
) -> None:
    found = Interval.of_distance(value, error, even=even)
    assert found.low <= found.value <= found.high
    mirrored = Interval.of_distance(-value, error, even=even)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=1e-9)
    if error and value > 100 * error:
        arms = (value - found.low, found.high - value)
        assert arms == pytest.approx((1.96 * error,) * 2, rel=1e-3 + 1.96 * error / value, abs=1e-12 * value)


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


def test_bias_of_a_singular_covariance_may_be_all_but_the_distance_of_the_means() -> None:
    """Of 30 images in 64 dimensions a third of the covariance's trace remains at best."""
    rng, fixed = np.random.default_rng(8), Moments.given(np.zeros(64), np.eye(64), 10**6)
    left = []
    for _ in range(200):
        x = 0.5 + rng.normal(size=(30, 64))
        left.append(frechet_distance(Moments.of(x), fixed) - frechet_bias(x, fixed, 30))
    # Without bias: |mu|^2 = 16, of which every repeat is within a few.
    assert np.mean(left) == pytest.approx(16, abs=4 * np.std(left) / np.sqrt(200))


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
