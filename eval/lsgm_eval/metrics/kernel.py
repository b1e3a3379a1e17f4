"""Kernel distance: the unbiased MMD^2 with KID's cubic kernel, over all pairs or over random subsets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsgm.errors import UserError
from lsgm_eval.metrics.intervals import Interval
from lsgm_eval.metrics.moments import Array

__all__ = [
    "BlockDistance",
    "KernelDistance",
    "block_kernel_distance",
    "cross_sums",
    "cubic_kernel",
    "kernel_distance",
    "kernel_interval",
    "within_sums",
]

BLOCK = 1024


@dataclass(frozen=True)
class KernelDistance:
    """An unbiased MMD^2 (it may be negative) and its jackknife standard error over both samples."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class BlockDistance:
    """KID as tables print it: mean and standard deviation of MMD^2 over random subsets of both samples.

    ``deviation`` (divisor: the number of subsets) is the spread of one subset of ``size``. It is no error of
    ``mean``: the subsets share images, so that it does not fall with the number of images or of subsets.
    """

    mean: float
    deviation: float
    subsets: int
    size: int

    def standard_error(self, all_pairs: KernelDistance) -> float:
        """Return the error of ``mean``: that of all pairs, and what drawing few subsets adds to it."""
        return float(np.hypot(all_pairs.standard_error, self.deviation / np.sqrt(self.subsets)))


def cubic_kernel(x: Array, y: Array) -> Array:
    """Return k(x, y) = (x . y / D + 1)^3 for all pairs, shape [N, M]: the kernel of KID, arXiv:1801.01401."""
    gram = x @ y.T / x.shape[1] + 1.0
    return np.asarray(gram * gram * gram)


def within_sums(x: NDArray[Any]) -> Array:
    """Return sum_{j != i} k(x_i, x_j) for every row i of features [N, D], shape [N]."""
    a = _finite(x)
    return np.asarray(cross_sums(a, a)[0] - _self_kernel(a))


def cross_sums(x: NDArray[Any], y: NDArray[Any]) -> tuple[Array, Array]:
    """Return the row sums [N] and column sums [M] of the kernel matrix between features [N, D] and [M, D].

    The matrix is made in blocks of rows and is never whole. Raises UserError where a feature is not finite.
    """
    a, b = _finite(x), _finite(y)
    rows, columns = np.zeros(len(a)), np.zeros(len(b))
    for start in range(0, len(a), BLOCK):
        block = cubic_kernel(a[start : start + BLOCK], b)
        rows[start : start + BLOCK] = block.sum(axis=1)
        columns += block.sum(axis=0)
    return rows, columns


def kernel_distance(x: NDArray[Any], y: NDArray[Any], *, within_y: Array | None = None) -> KernelDistance:
    """Return the two-sample U-statistic of MMD^2 between features [N, D] and [M, D], arXiv:1801.01401.

    All pairs are used, so that there are no subsets to draw and nothing to seed. The standard error is the
    exact leave-one-out jackknife, from the row sums of the kernel; it holds in the degenerate case P = Q as
    well, where the jackknife errs on the wide side (Efron and Stein, 1981). Needs three rows of each.
    ``within_y`` are y's `within_sums`, where many x are compared with one y.
    """
    a, b = _finite(x), _finite(y)
    n, m = len(a), len(b)
    if min(n, m) < 3:
        raise ValueError(f"a kernel distance needs at least 3 images on each side, not {n} and {m}")
    cross_a, cross_b = cross_sums(a, b)
    within_a = within_sums(a)
    within_b = within_sums(b) if within_y is None else within_y
    total_a, total_b, total = within_a.sum(), within_b.sum(), cross_a.sum()
    term_a, term_b = total_a / (n * (n - 1)), total_b / (m * (m - 1))
    value = term_a + term_b - 2 * total / (n * m)
    # The statistic without row i, for every i at once.
    without_a = (total_a - 2 * within_a) / ((n - 1) * (n - 2)) - 2 * (total - cross_a) / ((n - 1) * m)
    without_b = (total_b - 2 * within_b) / ((m - 1) * (m - 2)) - 2 * (total - cross_b) / ((m - 1) * n)
    variance = without_a.var() * (n - 1) + without_b.var() * (m - 1)
    return KernelDistance(float(value), float(np.sqrt(variance)))


def kernel_interval(x: NDArray[Any], y: NDArray[Any], *, within_y: Array | None = None) -> Interval:
    """Return the unbiased kernel distance between features [N, D] and [M, D] and its jackknife interval.

    The jackknife leaves out rows of x and of y: the distance is that of the populations, of which the
    reference's rows are a sample as well. `Interval.of_distance`, even over two errors around 0, where the
    jackknife errs on the wide side already.
    """
    distance = kernel_distance(x, y, within_y=within_y)
    return Interval.of_distance(distance.value, distance.standard_error, even=2.0)


def block_kernel_distance(
    x: NDArray[Any], y: NDArray[Any], *, subsets: int = 100, size: int = 1000, seed: int = 2020
) -> BlockDistance:
    """Return KID of features [N, D] and [M, D] over ``subsets`` random subsets of ``size``, arXiv:1801.01401.

    Each subset is drawn from either side without repeats and gives one unbiased MMD^2; the stream of random
    numbers and the default seed are torch-fidelity's, so that the subsets are the same ones. In float64
    throughout. Raises UserError where a side has fewer images than a subset: the protocol does not shrink.
    """
    a, b = _finite(x), _finite(y)
    if min(len(a), len(b)) < size or size < 2 or subsets < 1:
        raise UserError(
            f"KID over {subsets} subsets of {size} images (2 or more) cannot be drawn from {len(a)} and "
            f"{len(b)} images: ask for more of them, or use the kernel distance of all pairs"
        )
    rng = np.random.RandomState(seed)
    values = np.empty(subsets)
    for i in range(subsets):
        ours = a[rng.choice(len(a), size, replace=False)]
        theirs = b[rng.choice(len(b), size, replace=False)]
        within = sum(float(cubic_kernel(z, z).sum() - _self_kernel(z).sum()) for z in (ours, theirs))
        values[i] = within / (size * (size - 1)) - 2 * float(cubic_kernel(ours, theirs).mean())
    return BlockDistance(float(values.mean()), float(values.std()), subsets, size)


def _self_kernel(x: Array) -> Array:
    return np.asarray(((x * x).sum(axis=1) / x.shape[1] + 1.0) ** 3)


def _finite(features: NDArray[Any]) -> Array:
    x = np.asarray(features, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if bad.size:
        raise UserError(f"the features of image {bad[0]} are not finite ({bad.size} of {len(x)} images)")
    return x
