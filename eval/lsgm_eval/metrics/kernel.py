"""Kernel distance: the unbiased MMD^2 with KID's cubic kernel, over all pairs or over random subsets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsgm.errors import UserError
from lsgm_eval.metrics.intervals import Interval
from lsgm_eval.metrics.moments import Array, finite

BLOCK = 1024


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


def cubic_kernel(x: Array, y: Array, room: Array | None = None) -> Array:
    """Return k(x, y) = (x . y / D + 1)^3 for all pairs, shape [N, M]: the kernel of KID, arXiv:1801.01401.

    ``room`` [2, at least N, M] is written over. Matrices of these sizes are new memory each time, which takes
    longer than to multiply them.
    """
    gram, cube = np.empty((2, len(x), len(y))) if room is None else room[:, : len(x)]
    np.matmul(x, y.T, out=gram)
    gram /= x.shape[1]
    gram += 1.0
    np.multiply(gram, gram, out=cube)
    cube *= gram
    return np.asarray(cube)


def within_sums(x: NDArray[Any]) -> Array:
    """Return sum_{j != i} k(x_i, x_j) for every row i of features [N, D], shape [N]."""
    a = finite(x)
    return np.asarray(cross_sums(a, a)[0] - _self_kernel(a))


def cross_sums(x: NDArray[Any], y: NDArray[Any]) -> tuple[Array, Array]:
    """Return the row sums [N] and column sums [M] of the kernel matrix between features [N, D] and [M, D].

    The matrix is made in blocks of rows and is never whole. Raises UserError where a feature is not finite.
    """
    a, b = finite(x), finite(y)
    rows, columns = np.zeros(len(a)), np.zeros(len(b))
    room = np.empty((2, min(BLOCK, len(a)), len(b)))
    for start in range(0, len(a), BLOCK):
        block = cubic_kernel(a[start : start + BLOCK], b, room)
        rows[start : start + BLOCK] = block.sum(axis=1)
        columns += block.sum(axis=0)
    return rows, columns


def kernel_distance(x: NDArray[Any], y: NDArray[Any], *, within_y: Array | None = None) -> Interval:
    """Return the unbiased MMD^2 between features [N, D] and [M, D], arXiv:1801.01401, with its interval.

    The two-sample U-statistic of all pairs: there are no subsets to draw and nothing to seed, and it may be
    negative. The standard error is the exact leave-one-out jackknife over rows of x and of y: the distance is
    that of the populations, of which the reference's rows are a sample as well. It holds in the degenerate
    case P = Q too, where the jackknife errs on the wide side (Efron and Stein, 1981). The interval is
    `Interval.of_distance`, even over two errors around 0. Needs three rows of each, ValueError. ``within_y``
    are y's `within_sums`, where many x are compared with one y.
    """
    a, b = finite(x), finite(y)
    if min(len(a), len(b)) < 3:
        raise ValueError(f"a kernel distance needs at least 3 images on each side, not {len(a)} and {len(b)}")
    cross_a, cross_b = cross_sums(a, b)
    within_b = within_sums(b) if within_y is None else within_y
    shared = float(cross_a.sum())
    own_a, without_a = jackknife(within_sums(a), cross_a, shared, len(b))
    own_b, without_b = jackknife(within_b, cross_b, shared, len(a))
    value = own_a + own_b - 2 * shared / (len(a) * len(b))
    variance = without_a.var() * (len(a) - 1) + without_b.var() * (len(b) - 1)
    return Interval.of_distance(value, float(np.sqrt(variance)), even=2.0)


def jackknife(within: Array, cross: Array, shared: float, count: int) -> tuple[float, Array]:
    """Return a sample's own term of MMD^2, and all terms it is in without each of its rows in turn, [N].

    From its `within_sums` [N] and `cross_sums` [N] with ``count`` rows of the other sample, and their total.
    """
    n, total = len(within), within.sum()
    without = (total - 2 * within) / ((n - 1) * (n - 2)) - 2 * (shared - cross) / ((n - 1) * count)
    return float(total / (n * (n - 1))), without


def block_kernel_distance(
    x: NDArray[Any], y: NDArray[Any], *, subsets: int = 100, size: int = 1000, seed: int = 2020
) -> BlockDistance:
    """Return KID of features [N, D] and [M, D] over ``subsets`` random subsets of ``size``, arXiv:1801.01401.

    Each subset is drawn from either side without repeats and gives one unbiased MMD^2; the stream of random
    numbers and the default seed are torch-fidelity's, so that the subsets are the same ones. In float64
    throughout. Raises UserError where a side has fewer images than a subset: the protocol does not shrink.
    """
    a, b = finite(x), finite(y)
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
