"""Tolerances are quantiles of what they say: against SciPy's distributions, and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lsgm_eval.gate.verdict import (
    FLOAT32,
    flips_allowed,
    paired_margin,
    pooled_error,
    predictive_margin,
    repeat_error,
    rounding_of,
)

CHANCES = st.floats(1e-6, 0.4)


@given(error=st.floats(1e-6, 1e6), df=st.floats(1, 1e5), repeats=st.integers(2, 50), chance=CHANCES)
def test_the_predictive_margin_is_students_quantile(
    error: float, df: float, repeats: int, chance: float
) -> None:
    expected = stats.t.isf(chance, df) * error * math.sqrt(1 + 1 / repeats)
    # Two routes to one quantile, 1 - p against p: they part where 1 - 1e-6 is rounded.
    assert predictive_margin(error, df, repeats, chance) == pytest.approx(expected, rel=1e-6)


def test_the_paired_margin_is_that_of_a_one_sided_t_test() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 40))
    for chance in (1e-5, 0.01, 0.2):
        interval = stats.ttest_rel(a, b, alternative="greater").confidence_interval(1 - chance)
        assert (a - b).mean() - paired_margin(a - b, chance) == pytest.approx(interval.low, rel=1e-9)


def test_the_pooled_error_is_welch_satterthwaites() -> None:
    """SciPy's Welch test has this error and these degrees of freedom for a difference of two means."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=(6, 2)) * (1, 3)
    error, df = pooled_error(values)
    welch = stats.ttest_ind(values[:, 0], values[:, 1], equal_var=False)
    # The mean of two has half the error of their difference, of one value in the place of six.
    difference = values[:, 0].mean() - values[:, 1].mean()
    assert 2 * error / math.sqrt(6) == pytest.approx(difference / welch.statistic, rel=1e-12)
    assert df == pytest.approx(welch.df, rel=1e-12)


def test_the_repeats_spread_is_their_standard_deviation() -> None:
    values = np.array([1.0, 4.0, 2.0, 9.0])
    assert repeat_error(values) == (pytest.approx(stats.tstd(values)), 3)


def test_values_that_never_differ_have_no_error() -> None:
    assert pooled_error(np.ones((3, 5))) == (0.0, 2.0)


@pytest.mark.parametrize("chance", [0.02, 0.1])
def test_a_further_measurement_leaves_the_pooled_interval_as_often_as_nominal(chance: float) -> None:
    """Images of unequal noise, some with none: 4,000 gates of 5 repeats over 60 images."""
    rng, trials = np.random.default_rng(3), 4000
    scale = np.r_[np.zeros(10), rng.gamma(2.0, 1.0, 50)]
    outside = 0
    for _ in range(trials):
        values = rng.normal(size=(6, 60)) * scale
        error, df = pooled_error(values[:5])
        margin = predictive_margin(error, df, 5, chance / 2)
        outside += abs(values[5].mean() - values[:5].mean()) > margin
    # The degrees of freedom are on the small side: at most nominal, and not far below.
    low, high = stats.binom.interval(1 - 1e-4, trials, chance)
    assert low * 0.8 <= outside <= high


@pytest.mark.parametrize("repeats", [3, 12])
def test_a_further_distance_leaves_the_interval_of_repeats_as_often_as_nominal(repeats: int) -> None:
    rng, trials, chance = np.random.default_rng(4), 20_000, 0.05
    values = rng.normal(size=(trials, repeats + 1))
    margins = [predictive_margin(*repeat_error(row[:-1]), repeats, chance / 2) for row in values]
    outside = np.abs(values[:, -1] - values[:, :-1].mean(axis=1)) > margins
    low, high = stats.binom.interval(1 - 1e-4, trials, chance)
    assert low <= outside.sum() <= high


@given(seen=st.integers(0, 200), chance=CHANCES)
def test_allowed_flips_are_a_poisson_quantile_at_garwoods_upper_rate(seen: int, chance: float) -> None:
    allowed = flips_allowed(seen, chance)
    rate = stats.gamma.isf(chance / 2, seen + 1)  # where a count of `seen` or fewer has chance / 2
    assert stats.poisson.cdf(seen, rate) == pytest.approx(chance / 2, rel=1e-6)
    assert stats.poisson.sf(allowed, rate) <= chance / 2 * (1 + 1e-6)
    assert allowed >= seen


@pytest.mark.parametrize("rate", [0.1, 3.0, 50.0])
def test_flips_of_one_rate_raise_the_alarm_no_more_often_than_nominal(rate: float) -> None:
    rng, chance, trials = np.random.default_rng(5), 0.05, 3000
    once, again = rng.poisson(rate, (2, trials))
    alarms = sum(new > flips_allowed(int(old), chance) for old, new in zip(once, again, strict=True))
    assert alarms <= stats.binom.ppf(1 - 1e-4, trials, chance)


def test_rounding_is_the_largest_difference_seen_and_never_below_float32s_own() -> None:
    values = np.array([1.0, -8.0, 2.0])
    assert rounding_of(values, [values.copy()]) == (8 * FLOAT32, pytest.approx(11 / 3 * FLOAT32))
    assert rounding_of(values, [values + np.array([0, 0.5, 0]), values - 0.1]) == pytest.approx(
        (0.5, 0.5 / 3)
    )


def test_few_images_with_equal_differences_keep_the_mean_below_the_largest() -> None:
    largest, mean = rounding_of(np.array([1.0, 1.0]), [np.array([1.1, 0.9])])
    assert mean <= largest
