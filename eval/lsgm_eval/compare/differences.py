"""Differences B - A of one number of two runs, with 95 % intervals: paired, independent, or exact."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtr, stdtrit

from lsgm_eval.comparisons import DOUBT, beyond_bias
from lsgm_eval.intervals import NORMAL_95, Interval, difference_ends

__all__ = ["Difference", "exact_difference", "holm", "independent_difference", "of_interval", "paired_mean"]


@dataclass(frozen=True)
class Difference:
    """B - A, the ends of its 95 % interval, and the chance of one as large where there is none (two-sided).

    Ends and chance are None where nothing is known of the error.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None
    bias: float = 0.0
    """Estimated upward bias of B less that of A."""

    @property
    def apart(self) -> bool:
        """Whether 0 lies outside the interval, taken by itself."""
        return self.low is not None and self.high is not None and not self.low <= 0.0 <= self.high

    @property
    def sure(self) -> bool:
        """Whether the same can be said of what is left without the bias (`beyond_bias`)."""
        known = self.low is not None and self.high is not None
        return known and beyond_bias(self.value, self.low or 0.0, self.high or 0.0, self.bias)

    def biased(self, bias: float) -> Difference:
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

    def times(self, scale: float) -> Difference:
        """Return the difference in another unit, one of the old being ``scale`` > 0 of the new."""
        low, high = (None if end is None else end * scale for end in (self.low, self.high))
        return replace(self, value=self.value * scale, low=low, high=high, bias=self.bias * scale)


def paired_mean(a: NDArray[Any], b: NDArray[Any]) -> Difference:
    """Return mean(b - a) over images [N] that both have, with Student's interval of N - 1 degrees of freedom.

    What an image does to both cancels. Raises ValueError for other than two equally long rows of 2 or more.
    """
    if np.ndim(a) != 1 or np.shape(a) != np.shape(b) or len(a) < 2:
        raise ValueError(f"paired values need one row each of 2 or more, not {np.shape(a)}, {np.shape(b)}")
    gap = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    mean, error, freedom = float(gap.mean()), float(gap.std(ddof=1) / math.sqrt(len(gap))), len(gap) - 1
    if error == 0:
        return exact_difference(mean)
    margin = float(stdtrit(freedom, 0.975)) * error
    return Difference(mean, mean - margin, mean + margin, 2 * float(stdtr(freedom, -abs(mean) / error)))


def independent_difference(
    a: float, ends_a: tuple[float, float], b: float, ends_b: tuple[float, float]
) -> Difference:
    """Return b - a from two values and the ends (low, high) of their 95 % intervals, errors independent.

    By `difference_ends`. Where both share a reference, or images, their errors go together and the interval
    is too wide rather than too narrow.
    """
    gap = b - a
    low, high = difference_ends(a, ends_a, b, ends_b)
    towards_zero = gap - low if gap > 0 else high - gap
    if gap == 0 or towards_zero == 0:
        p = float(gap == 0)
    else:
        p = 2 * float(ndtr(-abs(gap) * NORMAL_95 / towards_zero))
    return Difference(gap, low, high, p)


def of_interval(found: Interval) -> Difference:
    """Return a difference whose normal interval has been told already."""
    if found.standard_error == 0:
        return exact_difference(found.value)
    p = 2 * float(ndtr(-abs(found.value) / found.standard_error))
    return Difference(found.value, found.low, found.high, p)


def exact_difference(value: float) -> Difference:
    """Return a difference without any error, as that of two counts of parameters."""
    return Difference(value, value, value, float(value == 0))


def holm(chances: Mapping[str, float]) -> dict[str, float]:
    """Return the chances p adjusted for being many, by Holm (1979), under the names they came with.

    Sorted p_1 <= ... <= p_m become max over j <= i of min(1, (m - j + 1) p_j). Calling real what then lies
    below 5 % is wrong about one or more of them in at most 5 % of comparisons, however they depend on each
    other.
    """
    order: Sequence[str] = sorted(chances, key=lambda name: chances[name])
    adjusted, so_far = {}, 0.0
    for place, name in enumerate(order):
        so_far = max(so_far, min(1.0, (len(order) - place) * chances[name]))
        adjusted[name] = so_far
    return adjusted
