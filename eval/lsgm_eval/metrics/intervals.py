"""A share of images that have a property, with its exact binomial interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit
from scipy.stats import beta

from lsgm_eval.metrics.frechet import frechet_distance, frechet_to, transport_map
from lsgm_eval.metrics.kernel import kernel_distance
from lsgm_eval.metrics.moments import Array, Moments

__all__ = [
    "Interval",
    "binomial_interval",
    "bootstrap_error",
    "difference_ends",
    "frechet_bias",
    "frechet_influence",
    "frechet_interval",
    "kernel_interval",
    "mean_interval",
    "paired_difference",
    "replicate_interval",
]


def binomial_interval(hits: int, count: int) -> Interval:
    """Return hits / count with the interval of Clopper and Pearson (1934), which covers 95 % or more.

    Its ends are the shares at which so many hits, or so few, would have a probability of 2.5 %; for 0 hits
    the upper end is about 3.7 / count. Raises ValueError unless 0 <= hits <= count and count >= 1.
    """
    if not 0 <= hits <= count or count < 1:
        raise ValueError(f"{hits} of {count} images is not a share")
    share = hits / count
    low = float(beta.ppf(0.025, hits, count - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, count - hits)) if hits < count else 1.0
    return Interval(share, low, high, float(np.sqrt(share * (1 - share) / count)))


# 95 % intervals, one per kind of estimate, each of which says what it covers

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


def frechet_interval(model: Moments, reference: Moments, rows: NDArray[Any]) -> Interval:
    """Return the plug-in Frechet distance and the interval of its expectation at N = model.count.

    Infinitesimal jackknife (delta method): one image x moves the distance by psi(x) / N with

        psi(x) = 2 (mu - nu) . (x - mu) + (x - mu)^T (I - T) (x - mu) - tr((I - T) Sigma),

    T the optimal transport map from model to reference, whose statistics are fixed as part of the task. The
    standard error is std(psi) / sqrt(N), the interval `Interval.of_distance`. ``rows`` [R, D] are the model's
    features or a uniform sample of them. Towards P = Q the first order vanishes and the error is overstated.
    """
    psi = frechet_influence(model, reference, rows)
    error = float(psi.std(ddof=1) / np.sqrt(model.count))
    interval = Interval.of_distance(frechet_distance(model, reference), error)
    return replace(interval, low=max(interval.low, 0.0))


def frechet_influence(model: Moments, reference: Moments, rows: NDArray[Any]) -> Array:
    """Return psi of `frechet_interval` for every row of features [R, D], up to its constant, shape [R]."""
    x = np.asarray(rows, dtype=np.float64) - model.mean
    slope = np.eye(model.dim) - transport_map(model, reference)
    return np.asarray(2 * x @ (model.mean - reference.mean) + np.einsum("nd,nd->n", x @ slope, x))


def frechet_bias(rows: NDArray[Any], reference: Moments, count: int, *, groups: int = 20) -> float:
    """Return the estimated upward bias of the plug-in at N = ``count``, by the delete-group jackknife.

    (g - 1) (mean_j d_(-j) - d) estimates the c / R of the R given rows; the bias at N is R / N times that.
    Of a singular covariance, N <= D, the bias follows no such law and is most of the distance. What it may be
    is returned: all but |mu - nu|^2 - tr(Sigma) / N, the distance of the means without bias.
    """
    x = np.asarray(rows, dtype=np.float64)
    distance = frechet_to(reference, accuracy=1e-8)
    if count <= x.shape[1]:
        whole = Moments.of(x)
        shift, spread = whole.mean - reference.mean, float(np.trace(whole.covariance))
        return distance(whole) - float(shift @ shift) + spread / count
    groups = min(groups, len(x))
    parts = [Moments.of(x[j::groups]) for j in range(groups)]
    without = [distance(_union(parts[:j] + parts[j + 1 :])) for j in range(groups)]
    bias = (groups - 1) * (float(np.mean(without)) - distance(_union(parts)))
    return bias * len(x) / count


def kernel_interval(x: NDArray[Any], y: NDArray[Any], *, within_y: Array | None = None) -> Interval:
    """Return the unbiased kernel distance between features [N, D] and [M, D] and its jackknife interval.

    The jackknife leaves out rows of x and of y: the distance is that of the populations, of which the
    reference's rows are a sample as well. `Interval.of_distance`, even over two errors around 0, where the
    jackknife errs on the wide side already.
    """
    distance = kernel_distance(x, y, within_y=within_y)
    return Interval.of_distance(distance.value, distance.standard_error, even=2.0)


def bootstrap_error(
    statistic: Callable[[Array], float], rows: NDArray[Any], *, repeats: int = 200, seed: int = 0
) -> float:
    """Return the standard deviation of ``statistic`` over seeded resamples of ``rows`` [N, D].

    For statistics without a closed-form error, and as a check on those that have one. Resamples centre on a
    value that is biased once more, so use their spread, not their percentiles.
    """
    rng = np.random.default_rng(seed)
    x = np.asarray(rows, dtype=np.float64)
    draws = [statistic(x[rng.integers(0, len(x), len(x))]) for _ in range(repeats)]
    return float(np.std(draws, ddof=1))


def _union(parts: list[Moments]) -> Moments:
    union = Moments.empty(parts[0].dim)
    for part in parts:
        union = union.merge(part)
    return union
