"""Streamed moments are those of the union, whatever the shards and the batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsgm.errors import UserError
from lsgm_eval.metrics.moments import Array, Moments


def features(n: int = 503, dim: int = 12, offset: float = 30.0) -> Array:
    rng = np.random.default_rng(0)
    return offset + rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim))


def streamed(x: Array, batch: int) -> Moments:
    moments = Moments.empty(x.shape[1])
    for start in range(0, len(x), batch):
        moments = moments.merge(Moments.of(x[start : start + batch]))
    return moments


@pytest.mark.parametrize("shards", [1, 2, 7])
@pytest.mark.parametrize("batch", [1, 10, 64, 1000])
def test_any_shards_and_batches_give_the_moments_of_the_union(shards: int, batch: int) -> None:
    x = features()
    parts = [streamed(part, batch) for part in np.array_split(x, shards)]
    union = Moments.empty(x.shape[1])
    for part in parts:
        union = union.merge(part)
    assert union.count == len(x)
    # Rounding of 500 float64 additions of numbers near 30, squared: about 1e-12.
    np.testing.assert_allclose(union.mean, x.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(union.covariance, np.cov(x, rowvar=False), rtol=1e-10, atol=1e-10)


def test_covariance_is_of_the_union_and_not_the_mean_of_covariances() -> None:
    x = np.concatenate([features(offset=-5.0), features(offset=5.0)])
    parts = [Moments.of(part) for part in np.array_split(x, 2)]
    mean_of_covariances = (parts[0].covariance + parts[1].covariance) / 2
    union = parts[0].merge(parts[1]).covariance
    np.testing.assert_allclose(union, np.cov(x, rowvar=False), rtol=1e-10)
    assert np.abs(union - mean_of_covariances).max() > 20  # the spread between the shards, 5^2, is not lost


@given(offset=st.floats(-1e6, 1e6), scale=st.floats(1e-3, 1e3), cut=st.integers(1, 39))
@settings(deadline=None, max_examples=50)
def test_a_large_mean_does_not_cancel_the_spread(offset: float, scale: float, cut: int) -> None:
    x = offset + scale * np.random.default_rng(1).normal(size=(40, 3))
    merged = Moments.of(x[:cut]).merge(Moments.of(x[cut:])).covariance
    # x itself is rounded to eps * |offset|, which enters the covariance times the spread.
    slack = 1e-10 * scale**2 + 1e-13 * abs(offset) * scale
    np.testing.assert_allclose(merged, np.cov(x, rowvar=False), rtol=0, atol=slack)


def test_merging_with_nothing_changes_nothing() -> None:
    moments, nothing = Moments.of(features()), Moments.empty(12)
    assert moments.merge(nothing) is moments
    assert nothing.merge(moments) is moments


def test_moments_are_given_by_mean_and_covariance() -> None:
    x = features()
    given = Moments.given(x.mean(axis=0), np.cov(x, rowvar=False), len(x))
    np.testing.assert_allclose(given.total, Moments.of(x).total, rtol=1e-12)
    np.testing.assert_allclose(given.scatter, Moments.of(x).scatter, rtol=1e-10, atol=1e-9)
    with pytest.raises(ValueError, match="at least 2 rows"):
        Moments.given(x[0], np.zeros((12, 12)), 1)


def test_features_that_are_not_finite_are_refused_and_counted() -> None:
    x = features()
    x[7, 3], x[9, 0] = np.nan, np.inf
    with pytest.raises(UserError, match=r"image 7 .* not finite \(2 of 503"):
        Moments.of(x)


def test_one_image_has_no_covariance() -> None:
    with pytest.raises(UserError, match="at least 2 images"):
        _ = Moments.of(features(1)).covariance
    with pytest.raises(ValueError, match=r"\[N, D\]"):
        Moments.of(np.zeros(3))
