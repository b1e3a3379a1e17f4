"""Uniform subsets named by a seed: which numbers, how many, and that none is preferred."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lsgm.data.splits import drawn_order, subset

COUNTS = st.integers(0, 200)


@given(COUNTS, COUNTS, st.integers(0, 2**63))
def test_as_many_ascending_numbers_as_asked_for_each_once(total: int, count: int, seed: int) -> None:
    found = subset(total, count, seed)
    assert found.dtype == np.int64
    assert len(found) == min(total, count)
    assert (np.diff(found) > 0).all()
    assert not len(found) or (found[0] >= 0 and found[-1] < total)


@given(COUNTS, COUNTS, COUNTS, st.integers(0, 9))
def test_a_smaller_subset_lies_within_a_larger_one(total: int, a: int, b: int, seed: int) -> None:
    assert set(subset(total, min(a, b), seed)) <= set(subset(total, max(a, b), seed))


@given(COUNTS, COUNTS, st.integers(0, 9))
def test_a_subset_is_what_the_drawn_order_begins_with(total: int, count: int, seed: int) -> None:
    assert sorted(drawn_order(total, seed)[:count]) == subset(total, count, seed).tolist()


def test_the_numbers_are_those_of_every_platform() -> None:
    assert subset(1000, 8).tolist() == [168, 172, 188, 641, 688, 819, 886, 909]
    assert subset(1000, 8, seed=1).tolist() == [132, 140, 244, 307, 616, 701, 797, 864]


def test_no_place_in_storage_is_preferred() -> None:
    chosen = [subset(50, 10, seed) for seed in range(4000)]
    counts = np.bincount(np.concatenate(chosen), minlength=50)
    assert stats.chisquare(counts).pvalue > 1e-3
    # Neighbours in storage are taken together as often as without replacement: 10/50 * 9/49 of the seeds.
    together, share = sum({7, 8} <= set(found) for found in chosen), 10 / 50 * 9 / 49
    assert abs(together - 4000 * share) < 4 * np.sqrt(4000 * share * (1 - share))


def test_subsets_of_two_seeds_share_what_chance_shares() -> None:
    shared = len(set(subset(10_000, 1000, 0)) & set(subset(10_000, 1000, 1)))
    assert abs(shared - 100) < 4 * np.sqrt(100 * 0.9 * 0.9)


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match="no subset of -1 of 5"):
        subset(5, -1)
