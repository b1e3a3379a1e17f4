"""Exact nearest neighbours in feature space, block by block, so that no N x M matrix is ever whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsgm.errors import UserError
from lsgm_eval.moments import Array
from lsgm_eval.row_file import RowFile

__all__ = ["Neighbours", "check_rows", "distance_blocks", "nearest"]

ROWS, COLUMNS = 1024, 4096


@dataclass(frozen=True)
class Neighbours:
    """Distances float64 [N, k], ascending, and which rows they lead to, int64 [N, k]."""

    distance: Array
    index: NDArray[np.int64]


def nearest(x: NDArray[Any], y: NDArray[Any] | RowFile, k: int = 1, *, same: bool = False) -> Neighbours:
    """Return the k nearest rows of y [M, D] for every row of x [N, D], in Euclidean distance.

    ``same`` says that x is y, and no row is its own neighbour. Candidates are found through x . y, whose
    rounding can exchange two only where their squared distances agree to about D eps |x|^2; the distances
    of those found are then taken from the differences, so that a copy is at exactly 0. Memory is one block
    of 1024 x 4096 and the answer. Raises UserError where y has too few rows or a feature is not finite.
    """
    check_rows(x, y)
    if k < 1 or k > len(y) - same:
        raise UserError(f"{k} nearest neighbours cannot be found among {len(y)} images: ask for more images")
    bounds, index = np.full((len(x), k), np.inf), np.full((len(x), k), -1, np.int64)
    for rows, columns, block in distance_blocks(x, y):
        if same:
            i, j = np.arange(len(x))[rows], np.arange(len(y))[columns]
            block[i[:, None] == j] = np.inf
        near = np.argpartition(block, k - 1, axis=1)[:, :k] if k < block.shape[1] else _all_columns(block)
        merged = np.hstack([bounds[rows], np.take_along_axis(block, near, axis=1)])
        places = np.hstack([index[rows], near + columns.start])
        best = np.argsort(merged, axis=1, kind="stable")[:, :k]
        bounds[rows] = np.take_along_axis(merged, best, axis=1)
        index[rows] = np.take_along_axis(places, best, axis=1)
    distance = _distances(x, y, index)
    order = np.argsort(distance, axis=1, kind="stable")
    return Neighbours(np.take_along_axis(distance, order, axis=1), np.take_along_axis(index, order, axis=1))


def distance_blocks(x: NDArray[Any], y: NDArray[Any] | RowFile) -> Iterator[tuple[slice, slice, Array]]:
    """Yield (rows, columns, lower) with lower [rows, columns] a bound of |x_i - y_j|^2 from below.

    It is the squared distance by |x|^2 + |y|^2 - 2 x . y about y's mean, less the rounding this can have,
    (D + 8) eps (|x|^2 + |y|^2): ``lower <= r * r`` then never loses a point that lies on a sphere's surface,
    and so a copy lies inside a ball of radius 0. The columns run fastest.
    """
    centre = _mean(y)
    rounding = (y.shape[1] + 8) * np.finfo(np.float64).eps
    for rows in _slices(len(x), ROWS):
        a = np.asarray(x[rows], np.float64) - centre
        for columns in _slices(len(y), COLUMNS):
            b = np.asarray(y[columns], np.float64) - centre
            lower = a @ b.T
            lower *= -2
            lower += (1 - rounding) * np.einsum("nd,nd->n", a, a)[:, None]
            lower += (1 - rounding) * np.einsum("nd,nd->n", b, b)
            yield rows, columns, lower


def check_rows(x: NDArray[Any], y: NDArray[Any] | RowFile) -> None:
    """Raise ValueError unless x [N, D] and y [M, D] match; UserError where a feature is not finite."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"neighbours need features [N, D] and [M, D], not {x.shape} and {y.shape}")
    for rows in (x, y):
        sums = [rows[part].sum(axis=1, dtype=np.float64) for part in _slices(len(rows), COLUMNS)]
        bad = np.flatnonzero(~np.isfinite(np.concatenate(sums or [np.empty(0)])))
        if bad.size:
            raise UserError(
                f"the features of image {bad[0]} are not finite ({bad.size} of {len(rows)} images): check "
                "the images and the extractor's weights"
            )


def _mean(y: NDArray[Any] | RowFile) -> Array:
    if not isinstance(y, RowFile):
        return np.asarray(np.mean(y, axis=0, dtype=np.float64))
    total: Array = np.zeros(y.shape[1])
    for part in _slices(len(y), COLUMNS):
        total += y[part].sum(axis=0, dtype=np.float64)
    return total / len(y)


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _all_columns(block: Array) -> NDArray[np.int64]:
    return np.tile(np.arange(block.shape[1]), (len(block), 1))


def _distances(x: NDArray[Any], y: NDArray[Any] | RowFile, index: NDArray[np.int64]) -> Array:
    """Return |x_i - y_index[i, j]| from the differences, one neighbour after the other to bound memory."""
    distance = np.empty(index.shape)
    for rows in _slices(len(x), ROWS):
        a = np.asarray(x[rows], np.float64)
        for j in range(index.shape[1]):
            distance[rows, j] = np.sqrt(((a - y[index[rows, j]]) ** 2).sum(axis=1))
    return distance
