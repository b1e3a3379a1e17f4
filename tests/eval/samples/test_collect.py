"""A stream of features: exact moments, and a sample of rows that knows nothing of batches or shards."""

from __future__ import annotations

import numpy as np
import pytest

from lsgm.errors import UserError
from lsgm_eval.metrics.moments import Array
from lsgm_eval.samples.collect import Collector, kept_numbers


def rows(n: int = 300) -> Array:
    return np.random.default_rng(0).normal(size=(n, 5))


def collected(x: Array, batch: int, shards: int, capacity: int) -> Collector:
    parts = []
    for index in np.array_split(np.arange(len(x)), shards):
        part = Collector(5, capacity=capacity)
        for start in range(0, len(index), batch):
            chosen = index[start : start + batch]
            part.add(x[chosen], chosen)
        parts.append(part)
    union = Collector(5, capacity=capacity)
    for part in reversed(parts):
        union.merge(part)
    return union


@pytest.mark.parametrize("shards", [1, 2, 7])
@pytest.mark.parametrize("batch", [1, 13, 500])
def test_shards_and_batches_keep_the_same_rows_and_moments(shards: int, batch: int) -> None:
    x = rows()
    once = collected(x, 300, 1, 40).stats()
    stats = collected(x, batch, shards, 40).stats()
    np.testing.assert_array_equal(stats.rows, once.rows)
    np.testing.assert_array_equal(stats.rows, x[kept_numbers(300, capacity=40)].astype(np.float32))
    np.testing.assert_allclose(stats.moments.covariance, once.moments.covariance, rtol=1e-10, atol=1e-12)
    assert len(stats.rows) == 40
    assert stats.moments.count == 300


def test_fewer_rows_than_capacity_are_kept_whole_and_in_order() -> None:
    x = rows()
    np.testing.assert_array_equal(collected(x, 11, 3, 1000).stats().rows, x.astype(np.float32))


@pytest.mark.parametrize("cut", [7, 130, 1300, 2000])
def test_a_collector_that_is_loaded_goes_on_bit_for_bit(cut: int) -> None:
    x, whole, half, again = rows(2500), Collector(5, capacity=40), *(Collector(5, capacity=40) for _ in "ab")
    for start in range(0, len(x), 10):
        index = np.arange(start, start + 10)
        whole.add(x[index], index)
        if start <= cut:
            half.add(x[index], index)
            again.load(half.state())
        else:
            again.add(x[index], index)
    np.testing.assert_array_equal(again.stats().rows, whole.stats().rows)
    np.testing.assert_array_equal(again.moments.total, whole.moments.total)
    np.testing.assert_array_equal(again.moments.scatter, whole.moments.scatter)
    assert again.moments.count == 2500


def test_reading_the_moments_changes_nothing() -> None:
    x, read, unread = rows(2100), Collector(5), Collector(5)
    for start in range(0, len(x), 100):
        index = np.arange(start, start + 100)
        read.add(x[index], index)
        unread.add(x[index], index)
        assert read.moments.count == start + 100
    np.testing.assert_array_equal(read.moments.scatter, unread.moments.scatter)


def test_features_that_are_not_finite_are_named_by_the_number_of_their_image() -> None:
    x, collector = rows(), Collector(5)
    x[7, 3] = np.nan
    with pytest.raises(UserError, match=r"image 107 are not finite \(1 of 300"):
        collector.add(x, np.arange(100, 400))
    assert collector.moments.count == 0


def test_features_of_another_number_or_dimension_are_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"shape \[300, 4\], not \[300, 5\]"):
        Collector(4).add(rows(), np.arange(300))
    with pytest.raises(ValueError, match=r"shape \[299, 5\]"):
        Collector(5).add(rows(), np.arange(299))


def test_without_capacity_there_are_moments_alone() -> None:
    collector = Collector(5, capacity=0)
    collector.add(rows(), np.arange(300))
    assert collector.stats().rows.shape == (0, 5)
    assert collector.stats().moments.count == 300


def test_rows_kept_are_a_uniform_sample() -> None:
    # The kept rows' mean index has expectation 149.5 and standard deviation 86.6 sqrt((1 - 0.2) / 60) = 10.
    x = np.tile(np.arange(300.0)[:, None], (1, 5))
    kept = collected(x, 50, 1, 60).stats().rows[:, 0]
    assert abs(kept.mean() - 149.5) < 40
    assert len(set(kept)) == 60
