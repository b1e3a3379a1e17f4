"""Differences of one number of two models: paired or independent, their intervals, chances and verdicts.

A lead counts only as far as it is no bias, and as far as it is none of many that were looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtr

from lsgm.errors import UserError
from lsgm_eval.metrics.frechet import frechet_bias, frechet_influence, frechet_to
from lsgm_eval.metrics.intervals import NORMAL_95, Interval, difference_ends, paired_difference
from lsgm_eval.metrics.kernel import cross_sums, jackknife, within_sums
from lsgm_eval.metrics.moments import Array, FeatureStats, Moments

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
class Difference:
    """B - A, the ends of its 95 % interval, and the chance of one as large where there is none (two-sided).

    Ends and chance are None where nothing is known of the error.
    """

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    bias: float = 0.0
    """Estimated upward bias of B less that of A."""

    @classmethod
    def exact(cls, value: float) -> Self:
        """Return a difference without any error, as that of two counts of parameters."""
        return cls(value, value, value, float(value == 0))

    @classmethod
    def normal(cls, found: Interval) -> Self:
        """Return a difference whose normal interval has been told already."""
        if found.standard_error == 0:
            return cls.exact(found.value)
        p = 2 * float(ndtr(-abs(found.value) / found.standard_error))
        return cls(found.value, found.low, found.high, p)

    @classmethod
    def paired(cls, a: NDArray[Any], b: NDArray[Any]) -> Self:
        """Return mean(b - a) over images [N] that both have, and the chance by Student's test of pairs.

        What an image does to both cancels. Raises ValueError for other than two equally long rows of 2 or
        more.
        """
        if np.ndim(a) != 1 or np.shape(a) != np.shape(b) or len(a) < 2:
            raise ValueError(
                f"paired values need one row each of 2 or more, not {np.shape(a)}, {np.shape(b)}"
            )
        gap = paired_difference(b, a)
        if gap.standard_error == 0:
            return cls.exact(gap.value)
        p = 2 * float(stdtr(len(a) - 1, -abs(gap.value) / gap.standard_error))
        return cls(gap.value, gap.low, gap.high, p)

    @classmethod
    def independent(
        cls, a: float, ends_a: tuple[float, float], b: float, ends_b: tuple[float, float]
    ) -> Self:
        """Return b - a from two values and the ends (low, high) of their 95 % intervals, errors independent.

        By `difference_ends`. Where both share a reference, or images, their errors go together and the
        interval is too wide rather than too narrow.
        """
        gap = b - a
        low, high = difference_ends(a, ends_a, b, ends_b)
        towards_zero = gap - low if gap > 0 else high - gap
        known = gap != 0 and towards_zero != 0
        p = 2 * float(ndtr(-abs(gap) * NORMAL_95 / towards_zero)) if known else float(gap == 0)
        return cls(gap, low, high, p)

    @property
    def apart(self) -> bool:
        """Whether 0 lies outside the interval, taken by itself."""
        return self.low is not None and self.high is not None and not self.low <= 0.0 <= self.high

    @property
    def sure(self) -> bool:
        """Whether the same can be said of what is left without the bias (`beyond_bias`)."""
        known = self.low is not None and self.high is not None
        return known and beyond_bias(self.value, self.low or 0.0, self.high or 0.0, self.bias)

    def biased(self, bias: float) -> Self:
        """Return the difference of two estimates whose upward biases differ by ``bias``.

        Its chance is that of what is left without `DOUBT` times the bias, 1 where nothing is left.
        """
        left = self.value - DOUBT * bias
        arm = abs(self.value - ((self.low if self.value > 0 else self.high) or 0.0))
        p = self.p
        if p is not None and left * self.value <= 0:
            p = 1.0
        elif p is not None and arm > 0:
            p = max(p, 2 * float(ndtr(-abs(left) * NORMAL_95 / arm)))
        return replace(self, p=p, bias=bias)

    def times(self, scale: float) -> Self:
        """Return the difference in another unit, one of the old being ``scale`` > 0 of the new."""
        low, high = (None if end is None else end * scale for end in (self.low, self.high))
        return replace(self, value=self.value * scale, low=low, high=high, bias=self.bias * scale)


def holm(chances: Mapping[str, float]) -> dict[str, float]:
    """Return the chances p adjusted for being many, by Holm (1979), under the names they came with.

    Sorted p_1 <= ... <= p_m become max over j <= i of min(1, (m - j + 1) p_j). Calling real what then lies
    below 5 % is wrong about one or more of them in at most 5 % of comparisons, however they depend on each
    other.
    """
    adjusted, so_far = {}, 0.0
    for place, name in enumerate(sorted(chances, key=lambda name: chances[name])):
        so_far = max(so_far, min(1.0, (len(chances) - place) * chances[name]))
        adjusted[name] = so_far
    return adjusted


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
    first, second = biases or (frechet_bias(s.rows, reference, s.moments.count) for s in (a, b))
    difference = Interval.normal(d_a - d_b, float(np.sqrt(variance)))
    return Comparison(d_a, d_b, difference, first - second)


def compare_kernel(
    a: NDArray[Any], b: NDArray[Any], reference: NDArray[Any], *, paired: bool = False
) -> Comparison:
    """Return the difference of two unbiased kernel distances, MMD^2(a, r) - MMD^2(b, r), arXiv:1511.04581.

    Features are [N, D], [M, D] and [R, D]. The reference's kernel sum with itself cancels, and so does what a
    and b owe to the same reference images: its error comes from sum_j of k(a_i, r_j) - k(b_i, r_j) alone.
    The error is the leave-one-out jackknife over all three samples and the interval covers the difference
    of the populations' MMD^2. ``paired`` as in `compare_frechet`. Needs three images in each, ValueError.
    """
    sizes, count = (len(a), len(b), len(reference)), len(reference)
    if min(sizes) < 3:
        raise ValueError(f"a comparison of kernel distances needs at least 3 images in each set, not {sizes}")
    distances, errors, means = [], [], []
    for x in (a, b):
        rows, columns = cross_sums(x, reference)
        shared = float(rows.sum())
        own, without = jackknife(within_sums(x), rows, shared, count)
        distances.append(own - 2 * shared / (len(x) * count))
        errors.append(without * np.sqrt(len(x) - 1))
        means.append(columns / len(x))
    row_variance = _difference_variance(*errors, paired=paired, ddof=0)
    # Leaving out reference image j: both cross terms become means over R - 1 columns.
    column_variance = (means[0] - means[1]).var() * 4 / (count - 1)
    within = float(within_sums(reference).sum()) / (count * (count - 1))
    gap = Interval.normal(distances[0] - distances[1], float(np.sqrt(row_variance + column_variance)))
    return Comparison(distances[0] + within, distances[1] + within, gap)


def _difference_variance(x: Array, y: Array, *, paired: bool, ddof: int = 1) -> float:
    """Return var(x - y) of paired rows, var x + var y of independent ones."""
    if not paired:
        return float(x.var(ddof=ddof) + y.var(ddof=ddof))
    if len(x) != len(y):
        raise ValueError(f"paired rows need equal numbers, not {len(x)} and {len(y)}")
    return float((x - y).var(ddof=ddof))
