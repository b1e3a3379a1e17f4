"""Differences against SciPy, their intervals against simulation, and chances adjusted for being many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from lsgm_eval.metrics.difference import Difference, holm
from lsgm_eval.metrics.intervals import Interval, binomial_interval, mean_interval

REPEATS = 1500
FOUR_ERRORS = 4 * (0.95 * 0.05 / REPEATS) ** 0.5
"""Standard errors of a share of 95 % among the repeats."""


def ends(values: NDArray[Any]) -> tuple[float, float]:
    found = mean_interval(values)
    return found.low, found.high


def width(gap: Difference) -> float:
    assert gap.low is not None
    assert gap.high is not None
    return gap.high - gap.low


def test_paired_mean_is_students_test_of_pairs() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=12)
    b = a + 0.3 + 0.5 * rng.normal(size=12)
    found, oracle = Difference.paired(a, b), stats.ttest_rel(b, a)
    assert found.value == pytest.approx(b.mean() - a.mean())
    assert found.p == pytest.approx(oracle.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(oracle.confidence_interval(0.95)))


def test_paired_interval_covers_the_difference_even_of_few_images() -> None:
    rng = np.random.default_rng(1)
    hard = 10 * rng.normal(size=(REPEATS, 6))
    a, b = hard + rng.normal(size=hard.shape), hard + 0.5 + rng.normal(size=hard.shape)
    found = [Difference.paired(*pair) for pair in zip(a, b, strict=True)]
    covered = np.mean([gap.low < 0.5 < gap.high for gap in found if gap.low is not None])
    assert covered == pytest.approx(0.95, abs=FOUR_ERRORS)


def test_pairing_removes_what_images_have_in_common() -> None:
    rng = np.random.default_rng(2)
    hard = 10 * rng.normal(size=400)
    a, b = hard + rng.normal(size=400), hard + rng.normal(size=400)
    paired = Difference.paired(a, b)
    alone = Difference.independent(a.mean(), ends(a), b.mean(), ends(b))
    assert paired.value == pytest.approx(alone.value)
    # sqrt(2) against sqrt(2 * 101) nats for an image.
    assert width(paired) / width(alone) == pytest.approx(101**-0.5, rel=0.2)


def test_independent_normal_errors_add_in_squares() -> None:
    a, b = Interval.normal(3.0, 0.3), Interval.normal(4.0, 0.4)
    found = Difference.independent(3.0, (a.low, a.high), 4.0, (b.low, b.high))
    oracle = Interval.normal(1.0, 0.5)
    assert (found.value, found.low, found.high) == pytest.approx((1.0, oracle.low, oracle.high))
    assert found.p == pytest.approx(2 * stats.norm.sf(2.0))
    assert found.p == pytest.approx(Difference.normal(oracle).p)


@pytest.mark.parametrize(("p_a", "p_b"), [(0.05, 0.05), (0.03, 0.2)])
def test_lopsided_intervals_of_shares_cover_their_difference(p_a: float, p_b: float) -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for a, b in zip(rng.binomial(80, p_a, REPEATS), rng.binomial(60, p_b, REPEATS), strict=True):
        first, second = binomial_interval(int(a), 80), binomial_interval(int(b), 60)
        gap = Difference.independent(a / 80, (first.low, first.high), b / 60, (second.low, second.high))
        covered += gap.low is not None and gap.low <= p_b - p_a <= (gap.high or 0.0)
    # The intervals of both shares are exact, which is to say too wide.
    assert covered / REPEATS > 0.95 - FOUR_ERRORS


@pytest.mark.parametrize("value", [0.0, -2.0])
def test_what_has_no_error_is_certain(value: float) -> None:
    rows = np.array([1.0, 2.0, 5.0])
    exact = Difference.exact(value)
    assert exact.p == (value == 0)
    assert exact.sure == (value != 0)
    assert Difference.paired(rows, rows + value) == exact
    assert Difference.independent(2.0, (2.0, 2.0), 2.0 + value, (2.0 + value, 2.0 + value)) == exact
    assert Difference.normal(Interval.normal(value, 0.0)) == exact


@given(gap=st.floats(0.01, 10), down=st.floats(0.01, 10), up=st.floats(0.01, 10))
def test_the_interval_leaves_zero_out_where_the_chance_is_below_5_percent(
    gap: float, down: float, up: float
) -> None:
    found = Difference.independent(0.0, (0.0, 0.0), gap, (gap - down, gap + up))
    assert found.p is not None
    if abs(gap - down) > 1e-9:
        assert found.sure == (found.p < 0.05)


def test_another_unit_changes_the_numbers_and_not_the_chance() -> None:
    gap = Difference.paired(np.array([1.0, 2.0, 4.0]), np.array([2.0, 2.5, 4.0]))
    other = gap.times(0.5)
    assert (other.value, other.low, other.high) == pytest.approx(
        (gap.value / 2, (gap.low or 0) / 2, (gap.high or 0) / 2)
    )
    assert other.p == gap.p


def test_unequal_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="one row each of 2 or more"):
        Difference.paired(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="one row each of 2 or more"):
        Difference.paired(np.zeros(1), np.zeros(1))


def test_holms_own_steps() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({}) == {}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_adjusted_chances_keep_their_order_and_lie_between_p_and_bonferroni(chances: list[float]) -> None:
    found = holm({str(k): p for k, p in enumerate(chances)})
    adjusted = [found[str(k)] for k in range(len(chances))]
    for p, q in zip(chances, adjusted, strict=True):
        assert p <= q <= min(1.0, len(chances) * p)
    order = np.argsort(chances, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)


def test_ten_equal_numbers_are_called_different_in_five_percent_of_comparisons() -> None:
    a, b = np.random.default_rng(4).normal(size=(2, REPEATS, 10, 30))
    chances = stats.ttest_rel(b, a, axis=2).pvalue
    wrong = [
        any(p < 0.05 for p in holm(dict(zip("abcdefghij", row, strict=True))).values()) for row in chances
    ]
    # 1 - (1 - 0.05 / 10)^10 where the ten are independent; without Holm it would be 40 %.
    assert np.mean(wrong) == pytest.approx(0.0489, abs=FOUR_ERRORS)
