"""95 % intervals, one for each kind of estimate, each of which says what it covers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, stdtrit

NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    """A value, the ends of its 95 % interval and the standard error behind them."""

    value: float
    low: float
    high: float
    standard_error: float

    @classmethod
    def normal(cls, value: float, standard_error: float) -> Interval:
        """Return value +- 1.96 standard errors."""
        margin = NORMAL_95 * standard_error
        return cls(value, value - margin, value + margin, standard_error)

    @classmethod
    def of_distance(cls, value: float, standard_error: float, *, even: float = 1.0) -> Interval:
        """Return the interval of a distance whose error grows with it, as heavy tails have it.

        Images far out enlarge a distance and its error together, so that value +- 1.96 errors lies too low
        where they are missing. With s = ``even`` standard errors it is even in arcsinh(distance / s): in the
        logarithm of distances above s, and about value +- 1.96 errors near 0, where an unbiased estimate may
        be negative. The arms are those of `normal` to (error / value)^2.
        """
        if standard_error == 0:
            return cls(value, value, value, 0.0)
        size = math.hypot(value, even * standard_error)
        arm = NORMAL_95 * standard_error / size
        # s sinh(arcsinh(v / s) -+ arm), s cosh(arcsinh(v / s)) being the size.
        middle, reach = value * math.cosh(arm), size * math.sinh(arm)
        return cls(value, min(middle - reach, value), max(middle + reach, value), standard_error)


def binomial_interval(hits: int, count: int) -> Interval:
    """Return hits / count with the interval of Clopper and Pearson (1934), which covers 95 % or more.

    Its ends are the shares at which so many hits, or so few, would have a probability of 2.5 %; for 0 hits
    the upper end is about 3.7 / count. Raises ValueError unless 0 <= hits <= count and count >= 1.
    """
    if not 0 <= hits <= count or count < 1:
        raise ValueError(f"{hits} of {count} images is not a share")
    share = hits / count
    low = float(betaincinv(hits, count - hits + 1, 0.025)) if hits else 0.0
    high = float(betaincinv(hits + 1, count - hits, 0.975)) if hits < count else 1.0
    return Interval(share, low, high, float(np.sqrt(share * (1 - share) / count)))


def mean_interval(values: NDArray[Any]) -> Interval:
    """Return the mean of ``values`` [N] with its 95 % interval; N >= 2, ValueError otherwise.

    Student's with N - 1 degrees of freedom, for t = (mean - mu) / error transformed as Hall (1992) does to
    take out the skewness g of the values, with a = g / sqrt(N):

        t + a t^2 / 3 + a^2 t^3 / 27 + a / 6.

    The longer arm is on the side of the longer tail; Student's own interval misses on that side.
    """
    mean, error, skew = _mean_error_skew(values)
    margin = float(stdtrit(len(values) - 1, 0.975))
    low, high = (mean - _skewed_back(end, skew) * error for end in (margin, -margin))
    return Interval(mean, low, high, error)


def _mean_error_skew(values: NDArray[Any]) -> tuple[float, float, float]:
    """Return the mean, its standard error, and the values' skewness over sqrt(N)."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(f"a mean with an error needs at least 2 values in one row, not shape {x.shape}")
    mean, spread = float(x.mean()), float(x.std())
    third = float((((x - mean) / spread) ** 3).mean()) if spread else 0.0
    return mean, float(x.std(ddof=1) / np.sqrt(len(x))), third / math.sqrt(len(x))


def _skewed_back(y: float, skew: float) -> float:
    """Return the t that Hall's transformation takes to y: it is a cube but for its ends."""
    shifted = y - skew / 6
    root = float(np.cbrt(1 + skew * shifted))
    return 3 * shifted / (root**2 + root + 1)


def replicate_interval(values: NDArray[Any]) -> Interval:
    """Return the mean of independent replicates [S] and its Student interval with S - 1 degrees of freedom.

    It covers the expectation of one replicate, of Normal ones however few there are; S >= 2, ValueError
    otherwise.
    """
    mean, error, _ = _mean_error_skew(values)
    margin = float(stdtrit(len(values) - 1, 0.975)) * error
    return Interval(mean, mean - margin, mean + margin, error)


def paired_difference(a: NDArray[Any], b: NDArray[Any]) -> Interval:
    """Return mean(a - b) with its own error, for two models scored on the same images in the same order [N].

    What images have in common cancels, so that the error is usually far below the two single errors, and
    so does most of the skewness: Student's interval with N - 1 degrees of freedom.
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(f"paired values need one shape, not {np.shape(a)} and {np.shape(b)}")
    return replicate_interval(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64))


def difference_ends(
    a: float, ends_a: tuple[float, float], b: float, ends_b: tuple[float, float]
) -> tuple[float, float]:
    """Return the ends of the interval of b - a, from two values and the ends (low, high) of their intervals.

    Zou and Donner's method (2008) for independent errors: the lower end is
    b - a - ((b - low_b)^2 + (high_a - a)^2)^(1/2) and the upper end its mirror image, which for symmetric
    intervals is the sum of variances, and which keeps the lopsided intervals of shares and ratios.
    """
    down, up = math.hypot(b - ends_b[0], ends_a[1] - a), math.hypot(ends_b[1] - b, a - ends_a[0])
    return b - a - down, b - a + up
