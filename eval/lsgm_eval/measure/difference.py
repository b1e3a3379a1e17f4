"""Is one model nearer to the data than another? Differences of distances to one reference, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsgm.errors import UserError
from lsgm_eval.features.statistics import FeatureStats
from lsgm_eval.measure.space import Gathered, Space
from lsgm_eval.metrics.frechet import frechet_to
from lsgm_eval.metrics.intervals import Interval, frechet_bias, frechet_influence
from lsgm_eval.metrics.kernel import cross_sums, within_sums
from lsgm_eval.metrics.moments import Array, Moments
from lsgm_eval.rows import Context
from lsgm_eval.samples.gather import Pass

__all__ = [
    "DOUBT",
    "Comparison",
    "beyond_bias",
    "compare_frechet",
    "compare_kernel",
    "compare_models",
    "unlike_counts",
]

DOUBT = 1.25
"""How many times larger than estimated the difference of two biases may be. `frechet_bias` gave 1.01 to 1.25
of the bias of Gaussians of even and of power-law spectra in 256 dimensions from 300 to 2,000 images, and 0.87
of that of Student's law with 5 degrees of freedom."""


def beyond_bias(value: float, low: float, high: float, bias: float) -> bool:
    """Whether a difference of distances says which is the smaller, given that of their biases, a's less b's.

    Its interval must leave out 0, and must do so on the same side when all the bias there may be, `DOUBT`
    times ``bias``, is taken off: a lead that the bias alone can make is none.
    """
    shift = DOUBT * bias
    return (low > 0 and low > shift) if value > 0 else (high < 0 and high < shift)


@dataclass(frozen=True)
class Comparison:
    """A distance of model a, that of model b to the same reference, and a - b with its 95 % interval."""

    a: float
    b: float
    difference: Interval
    bias: float = 0.0
    """Estimated upward bias of a at its number of images, less that of b."""

    @property
    def real(self) -> bool:
        """Whether 0 lies outside the interval and the lead is no bias (`beyond_bias`).

        Chance alone does this in about 1 of 20 comparisons.
        """
        return beyond_bias(self.difference.value, self.difference.low, self.difference.high, self.bias)

    def verdict(self, a: str, b: str) -> str:
        """Return one sentence about the models named ``a`` and ``b``."""
        gap = self.difference
        size = f"{gap.value:+.3g} [{gap.low:+.3g}, {gap.high:+.3g}]"
        if gap.low <= 0.0 <= gap.high:
            return f"{a} and {b} cannot be told apart: their distances differ by {size}"
        if not self.real:
            return (
                f"no verdict on {a} and {b}: their distances differ by {size}, and their upward biases at "
                f"this n by about {self.bias:+.2g}; draw more images, or compare kernel distances"
            )
        nearer, farther = (a, b) if gap.value < 0 else (b, a)
        return f"{nearer} is nearer to the reference than {farther}: {a} - {b} is {size}"


def compare_frechet(
    a: FeatureStats,
    b: FeatureStats,
    reference: Moments,
    *,
    paired: bool = False,
    biases: tuple[float, float] | None = None,
) -> Comparison:
    """Return the difference of two plug-in Frechet distances to one fixed reference.

    Delta method: std(psi_a)^2 / N + std(psi_b)^2 / N with psi of `frechet_interval`. The reference's
    statistics are part of the task. The interval covers the difference of the expectations at this N, which
    have biases c / N: UserError where the two N differ. At one N the biases differ as the models' spreads do,
    which may be all of the difference: they are estimated by `frechet_bias` unless given. ``paired``: row i
    of both comes from one seed, and what the seed does to both cancels; ValueError where the numbers of rows
    differ.
    """
    if a.moments.count != b.moments.count:
        raise UserError(
            f"Frechet distances of {a.moments.count} and of {b.moments.count} images have different biases "
            "and do not compare: draw equally many from both models"
        )
    distance = frechet_to(reference)
    psi_a, psi_b = (frechet_influence(s.moments, reference, s.rows) for s in (a, b))
    variance = _difference_variance(psi_a, psi_b, paired=paired) / a.moments.count
    d_a, d_b = distance(a.moments), distance(b.moments)
    if biases is None:
        biases = (
            frechet_bias(a.rows, reference, a.moments.count),
            frechet_bias(b.rows, reference, b.moments.count),
        )
    difference = Interval.normal(d_a - d_b, float(np.sqrt(variance)))
    return Comparison(d_a, d_b, difference, biases[0] - biases[1])


def compare_kernel(
    a: NDArray[Any], b: NDArray[Any], reference: NDArray[Any], *, paired: bool = False
) -> Comparison:
    """Return the difference of two unbiased kernel distances, MMD^2(a, r) - MMD^2(b, r), arXiv:1511.04581.

    Features are [N, D], [M, D] and [R, D]. The reference's kernel sum with itself cancels, and so does what a
    and b owe to the same reference images: its error comes from sum_j of k(a_i, r_j) - k(b_i, r_j) alone.
    The error is the leave-one-out jackknife over all three samples and the interval covers the difference
    of the populations' MMD^2. ``paired`` as in `compare_frechet`. Needs three images in each, ValueError.
    """
    sizes = (len(a), len(b), len(reference))
    if min(sizes) < 3:
        raise ValueError(f"a comparison of kernel distances needs at least 3 images in each set, not {sizes}")
    left, right = _OneModel.of(a, reference), _OneModel.of(b, reference)
    gap = left.own - left.cross - (right.own - right.cross)
    row_variance = _difference_variance(left.without, right.without, paired=paired, ddof=0)
    # Leaving out reference image j: both cross terms become means over R - 1 columns.
    column_variance = (left.columns - right.columns).var() * 4 / (len(reference) - 1)
    within = float(within_sums(reference).sum()) / (len(reference) * (len(reference) - 1))
    error = float(np.sqrt(row_variance + column_variance))
    d_a, d_b = (side.own - side.cross + within for side in (left, right))
    return Comparison(d_a, d_b, Interval.normal(gap, error))


@dataclass(frozen=True)
class _OneModel:
    """A model's terms of MMD^2, scaled jackknife values [N] and mean kernels with the reference [R]."""

    own: float
    cross: float
    without: Array
    columns: Array

    @classmethod
    def of(cls, x: NDArray[Any], reference: NDArray[Any]) -> _OneModel:
        n, count = len(x), len(reference)
        within, (rows, columns) = within_sums(x), cross_sums(x, reference)
        total, shared = within.sum(), rows.sum()
        own, cross = total / (n * (n - 1)), 2 * shared / (n * count)
        without = (total - 2 * within) / ((n - 1) * (n - 2)) - 2 * (shared - rows) / ((n - 1) * count)
        return cls(float(own), float(cross), without * np.sqrt(n - 1), columns / n)


def _difference_variance(x: Array, y: Array, *, paired: bool, ddof: int = 1) -> float:
    """Return var(x - y) of paired rows, var x + var y of independent ones."""
    if not paired:
        return float(x.var(ddof=ddof) + y.var(ddof=ddof))
    if len(x) != len(y):
        raise ValueError(f"paired rows need equal numbers, not {len(x)} and {len(y)}")
    return float((x - y).var(ddof=ddof))


# Two models' distances to one reference: their difference, its interval, and whether it is real


def compare_models(
    first: Context, second: Context, a: Pass, b: Pass, spaces: Sequence[Space], split: str | None
) -> list[dict[str, Any]]:
    """Return rows ``paired_<distance>`` of the first model minus the second in every space.

    Both models' images are of the same seeds, so that what a seed does to both cancels.
    """
    rows = []
    for space in spaces:
        ours, theirs = (Gathered.of(found, space.extractor) for found in (a, b))
        rows += _pair(first, ours, second, theirs, space, split)
    return rows


def unlike_counts(
    first: Context, second: Context, counts: tuple[int, int], spaces: Sequence[Space], split: str | None
) -> list[dict[str, Any]]:
    """Return rows without a value for two models of unlike numbers of images, whose biases are unlike too."""
    context = replace(first, model=f"{first.model} - {second.model}", checkpoint_sha256=None)
    why = (
        f"{first.model} has {counts[0]:,} images and {second.model} {counts[1]:,}: distances of unlike "
        "numbers have unlike biases; draw equally many by --images"
    )
    return [
        context.row(f"paired_{space.metric(family)}", None, split=split, extractor=space.label, note=why)
        for space in spaces
        for family in ("frechet", "kernel")
        if family in space.spec.statistics
    ]


def _pair(
    first: Context, a: Gathered, second: Context, b: Gathered, space: Space, split: str | None
) -> list[dict[str, Any]]:
    reference, statistics = space.reference.stats, space.spec.statistics
    compared: dict[str, Comparison] = {}
    if "frechet" in statistics:
        compared["frechet"] = compare_frechet(a.stats, b.stats, reference.moments, paired=True)
    if "kernel" in statistics and len(reference.rows):
        compared["kernel"] = compare_kernel(a.stats.rows, b.stats.rows, reference.rows, paired=True)
    context = replace(first, model=f"{first.model} - {second.model}", checkpoint_sha256=None)
    return [
        context.row(
            f"paired_{space.metric(family)}",
            found.difference.value,
            ci_low=found.difference.low,
            ci_high=found.difference.high,
            bias=found.bias if family == "frechet" else None,
            n=a.stats.moments.count,
            split=split,
            extractor=space.label,
            reference_sha256=space.reference.sha256,
            note=found.verdict(first.model, second.model),
        )
        for family, found in compared.items()
    ]
