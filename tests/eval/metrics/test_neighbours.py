"""Nearest neighbours against SciPy's k-d tree, and where rounding could hide a copy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from lsgm.errors import UserError
from lsgm_eval.metrics.moments import Array
from lsgm_eval.metrics.precision_recall import distance_blocks, nearest


def world(seed: int, n: int, dim: int = 6) -> Array:
    return np.random.default_rng(seed).normal(size=(n, dim))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lsgm_eval.metrics.precision_recall.ROWS", 17)
    monkeypatch.setattr("lsgm_eval.metrics.precision_recall.COLUMNS", 23)


@pytest.mark.parametrize("k", [1, 5, 40])
def test_agrees_with_the_tree(k: int) -> None:
    x, y = world(0, 60), world(1, 90)
    found = nearest(x, y, k)
    distance, index = cKDTree(y).query(x, [*range(1, k + 1)])
    np.testing.assert_allclose(found.distance, distance, rtol=1e-13)
    np.testing.assert_array_equal(found.index, index)


def test_no_row_is_its_own_neighbour() -> None:
    y = world(2, 70)
    found = nearest(y, y, 3, same=True)
    distance, index = cKDTree(y).query(y, 4)
    np.testing.assert_allclose(found.distance, distance[:, 1:], rtol=1e-13)
    np.testing.assert_array_equal(found.index, index[:, 1:])


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = world(3, 50).astype(np.float32), world(4, 64).astype(np.float32)
    once = nearest(x, y, 4)
    monkeypatch.setattr("lsgm_eval.metrics.precision_recall.ROWS", 1000)
    monkeypatch.setattr("lsgm_eval.metrics.precision_recall.COLUMNS", 5)
    again = nearest(x, y, 4)
    np.testing.assert_array_equal(again.distance, once.distance)
    np.testing.assert_array_equal(again.index, once.index)


def test_a_copy_is_at_zero_far_from_the_origin() -> None:
    # |x|^2 + |y|^2 - 2 x . y of rows near 10^6 keeps no digit of distances near 1e-3 unless it is centred.
    y = (1e6 + 1e-3 * world(5, 80, dim=50)).astype(np.float64)
    x = y[::-1].copy()
    found = nearest(x, y)
    assert (found.distance == 0).all()
    np.testing.assert_array_equal(found.index[:, 0], np.arange(80)[::-1])


def test_bounds_lie_just_below_the_squared_distances() -> None:
    x, y = world(6, 40, dim=300), world(7, 30, dim=300)
    exact = cdist(x, y) ** 2
    for rows, columns, lower in distance_blocks(x, y):
        gap = exact[rows, columns] - lower
        assert (gap >= 0).all()
        # Twice (D + 8) eps (|x|^2 + |y|^2), squared lengths being near D.
        assert gap.max() < 2 * 308 * np.finfo(np.float64).eps * 4 * 300


def test_too_few_images_other_dimensions_and_nan_are_refused() -> None:
    with pytest.raises(UserError, match="5 nearest neighbours cannot be found among 5 images"):
        nearest(world(0, 5), world(0, 5), 5, same=True)
    with pytest.raises(ValueError, match=r"not \(5, 6\) and \(5, 7\)"):
        nearest(world(0, 5), world(0, 5, dim=7))
    broken = world(0, 5)
    broken[3, 2] = np.nan
    with pytest.raises(UserError, match=r"image 3 are not finite \(1 of 5"):
        nearest(world(1, 9), broken)
