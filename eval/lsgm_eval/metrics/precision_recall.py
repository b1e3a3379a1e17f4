"""Fidelity and variety apart: improved precision and recall, density and coverage, with intervals.

Both rest on exact nearest neighbours, found block by block, so that no N x M matrix is ever whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lsgm.errors import UserError
from lsgm_eval.metrics.intervals import Interval, binomial_interval, mean_interval
from lsgm_eval.metrics.moments import Array

ROWS, COLUMNS = 1024, 4096
SUBSETS = 64
SPARE = 12
FEWEST = 10


@dataclass(frozen=True)
class PrecisionRecall:
    """Share of samples on the reference's manifold, and of reference images on the samples' manifold."""

    precision: Interval
    recall: Interval


@dataclass(frozen=True)
class DensityCoverage:
    """Reference balls per sample over k (1 on average where P = Q, unbounded), and share of balls hit."""

    density: Interval
    coverage: Interval


def precision_recall(
    x: NDArray[Any], y: NDArray[Any], *, k: int = 3, y_radii: Array | None = None, seed: int = 0
) -> PrecisionRecall:
    """Return improved precision and recall of samples x [N, D] against y [M, D], arXiv:1904.06991.

    precision = mean_i 1[some j: |x_i - y_j| <= r_j], r_j the k-th neighbour's distance within y; recall is
    the same with x and y exchanged. ``y_radii`` are `radii` of (y, k), where many models meet one reference;
    ``seed`` draws the subsets behind the error of recall. Raises UserError for fewer than 10 or 2 k images
    on either side and for features that are not finite.
    """
    _check_counts(x, y, k)
    reach = radii(y, k) if y_radii is None else y_radii
    hits = int(_in_balls(x, y, reach[None] ** 2).sum())
    kept = _subsets(len(x), seed)
    reached = _in_balls(y, x, _squared_radii(x, kept, k))
    return PrecisionRecall(binomial_interval(hits, len(x)), _reach_interval(reached, kept))


def density_coverage(
    x: NDArray[Any], y: NDArray[Any], *, k: int = 5, y_radii: Array | None = None, seed: int = 0
) -> DensityCoverage:
    """Return density and coverage of samples x [N, D] against a reference y [M, D], arXiv:2002.09797.

    density = sum_ij 1[|x_i - y_j| <= r_j] / (k N); coverage = mean_j 1[some i: |x_i - y_j| <= r_j], which
    is 1 - prod_{i<k} (M - 1 - i) / (M + N - 1 - i) on average where P = Q. Options and errors as for
    `precision_recall`.
    """
    _check_counts(x, y, k)
    limit = (radii(y, k) if y_radii is None else y_radii) ** 2
    kept = _subsets(len(x), seed)
    weights = kept.astype(np.float32)  # counts up to 2^24 are exact
    balls_of_sample = np.zeros(len(x))
    samples_in_ball = np.zeros((len(kept), len(y)), np.float32)
    for rows, columns, lower in distance_blocks(x, y):
        inside = lower <= limit[columns]
        balls_of_sample[rows] += inside.sum(axis=1)
        samples_in_ball[:, columns] += weights[:, rows] @ inside.astype(np.float32)
    density = mean_interval(balls_of_sample / k)
    density = Interval(density.value, max(density.low, 0.0), density.high, density.standard_error)
    return DensityCoverage(density, _reach_interval(samples_in_ball > 0, kept))


def radii(features: NDArray[Any], k: int) -> Array:
    """Return the distance of every row of features [N, D] to its k-th nearest other row, [N].

    Raises UserError for fewer than k + 1 rows or features that are not finite.
    """
    return np.asarray(nearest(features, features, k, same=True).distance[:, -1])


class StoredRows(Protocol):
    """Features [N, D] that need not be in memory, of which some are read at a time."""

    @property
    def ndim(self) -> int:
        """2, as of an array."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any, /) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Neighbours:
    """Distances float64 [N, k], ascending, and which rows they lead to, int64 [N, k]."""

    distance: Array
    index: NDArray[np.int64]


def nearest(x: NDArray[Any], y: StoredRows, k: int = 1, *, same: bool = False) -> Neighbours:
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
        near = np.argpartition(block, min(k, block.shape[1]) - 1, axis=1)[:, :k]
        merged = np.hstack([bounds[rows], np.take_along_axis(block, near, axis=1)])
        places = np.hstack([index[rows], near + columns.start])
        best = np.argsort(merged, axis=1, kind="stable")[:, :k]
        bounds[rows] = np.take_along_axis(merged, best, axis=1)
        index[rows] = np.take_along_axis(places, best, axis=1)
    distance = _distances(x, y, index)
    order = np.argsort(distance, axis=1, kind="stable")
    return Neighbours(np.take_along_axis(distance, order, axis=1), np.take_along_axis(index, order, axis=1))


def check_rows(x: NDArray[Any], y: StoredRows) -> None:
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


def distance_blocks(x: NDArray[Any], y: StoredRows) -> Iterator[tuple[slice, slice, Array]]:
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


def _check_counts(x: NDArray[Any], y: NDArray[Any], k: int) -> None:
    check_rows(x, y)
    fewest = max(FEWEST, 2 * k)
    if k < 1 or min(len(x), len(y)) < fewest:
        raise UserError(
            f"manifolds of the {k} nearest neighbours need at least {fewest} images on each side and there "
            f"are {len(x)} and {len(y)}: ask for more"
        )


def _subsets(count: int, seed: int) -> NDArray[np.bool_]:
    """Return who is kept, bool [1 + SUBSETS, N]: everyone in the first row, four fifths in the others."""
    kept = np.ones((1 + SUBSETS, count), dtype=bool)
    rng = np.random.default_rng(seed)
    for row in kept[1:]:
        row[rng.permutation(count)[: count // 5]] = False
    return kept


def _squared_radii(x: NDArray[Any], kept: NDArray[np.bool_], k: int) -> Array:
    """Return every ball's squared radius within every subset, [S, N]; -inf for balls of rows left out.

    From one list of k + 12 neighbours: that fewer than k of them are kept has a probability below 1e-6.
    """
    near = nearest(x, x, min(k + SPARE, len(x) - 1), same=True)
    limits = np.full(kept.shape, -np.inf)
    for limit, members in zip(limits, kept, strict=True):
        place = np.minimum((np.cumsum(members[near.index], axis=1) < k).sum(axis=1), near.index.shape[1] - 1)
        radius = np.take_along_axis(near.distance, place[:, None], axis=1)[:, 0]
        limit[members] = radius[members] ** 2
    return limits


def _in_balls(points: NDArray[Any], centres: NDArray[Any], limits: Array) -> NDArray[np.bool_]:
    """Return for every row of squared radii [S, M] which points lie in some centre's ball, [S, N]."""
    inside = np.zeros((len(limits), len(points)), dtype=bool)
    for rows, columns, lower in distance_blocks(points, centres):
        near = np.flatnonzero((lower <= limits[:, columns].max(axis=0)).any(axis=1))
        close = lower[near]
        for reached, limit in zip(inside, limits, strict=True):
            reached[rows.start + near] |= (close <= limit[columns]).any(axis=1)
    return inside


def _reach_interval(reached: NDArray[np.bool_], kept: NDArray[np.bool_]) -> Interval:
    """Return the share of reference images reached, [1 + SUBSETS, M], with the delete-d jackknife's error.

    Its variance is (N - d) / d times the subsets' variance. The interval is never narrower than if reference
    images were reached one independently of the other: where all or next to none are, subsets hardly differ
    and would claim certainty.
    """
    shares = reached.mean(axis=1)
    left_out = np.count_nonzero(~kept[1])
    variance = (kept.shape[1] - left_out) / left_out * shares[1:].var(ddof=1)
    least = binomial_interval(int(reached[0].sum()), reached.shape[1])
    error = max(float(np.sqrt(variance)), least.standard_error)
    wide = Interval.normal(least.value, error)
    low, high = max(min(wide.low, least.low), 0.0), min(max(wide.high, least.high), 1.0)
    return Interval(least.value, low, high, error)


def _mean(y: StoredRows) -> Array:
    if isinstance(y, np.ndarray):
        return np.asarray(np.mean(y, axis=0, dtype=np.float64))
    total: Array = np.zeros(y.shape[1])
    for part in _slices(len(y), COLUMNS):
        total += y[part].sum(axis=0, dtype=np.float64)
    return total / len(y)


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _distances(x: NDArray[Any], y: StoredRows, index: NDArray[np.int64]) -> Array:
    """Return |x_i - y_index[i, j]| from the differences, one neighbour after the other to bound memory."""
    distance = np.empty(index.shape)
    for rows in _slices(len(x), ROWS):
        a = np.asarray(x[rows], np.float64)
        for j in range(index.shape[1]):
            distance[rows, j] = np.sqrt(((a - y[index[rows, j]]) ** 2).sum(axis=1))
    return distance
