"""95 % intervals, one per kind of estimate, each of which says what it covers.

- Likelihoods: the mean over images covers the expectation over the split's population (central limit).
- Frechet distance: the plug-in estimate is biased upwards by about c / N. The interval does *not* pretend
  otherwise: it covers the *expectation of the plug-in estimate at this N against this reference*, by which
  models of one protocol are compared; the size of the bias is estimated and reported beside it. A
  percentile bootstrap would be biased a second time, so that its interval lies above the quantity.
- Inception Score: Student's interval over the splits; it covers the expectation of one split's score.
- Kernel distance: unbiased; the interval covers the population's MMD^2, with the noise of both samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from lsgm_eval.frechet import frechet_distance, frechet_to, transport_map
from lsgm_eval.kernel import kernel_distance
from lsgm_eval.moments import Array, Moments

__all__ = [
    "Interval",
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


def mean_interval(values: NDArray[Any]) -> Interval:
    """Return the mean of ``values`` [N] +- 1.96 standard errors; N >= 2, ValueError otherwise."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(f"a mean with an error needs at least 2 values in one row, not shape {x.shape}")
    return Interval.normal(float(x.mean()), float(x.std(ddof=1) / np.sqrt(len(x))))


def replicate_interval(values: NDArray[Any]) -> Interval:
    """Return the mean of independent replicates [S] and its Student interval with S - 1 degrees of freedom.

    It covers the expectation of one replicate, however few there are; S >= 2, ValueError otherwise.
    """
    mean = mean_interval(values)
    margin = float(stdtrit(len(values) - 1, 0.975)) * mean.standard_error
    return Interval(mean.value, mean.value - margin, mean.value + margin, mean.standard_error)


def paired_difference(a: NDArray[Any], b: NDArray[Any]) -> Interval:
    """Return mean(a - b) with its own error, for two models scored on the same images in the same order [N].

    What images have in common cancels, so that the error is usually far below the two single errors.
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(f"paired values need one shape, not {np.shape(a)} and {np.shape(b)}")
    return mean_interval(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64))


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
    standard error is std(psi) / sqrt(N). ``rows`` [R, D] are the model's features or a uniform sample of
    them. Towards P = Q the first order vanishes and the error is overstated.
    """
    psi = frechet_influence(model, reference, rows)
    error = float(psi.std(ddof=1) / np.sqrt(model.count))
    interval = Interval.normal(frechet_distance(model, reference), error)
    return Interval(interval.value, max(interval.low, 0.0), interval.high, error)


def frechet_influence(model: Moments, reference: Moments, rows: NDArray[Any]) -> Array:
    """Return psi of `frechet_interval` for every row of features [R, D], up to its constant, shape [R]."""
    x = np.asarray(rows, dtype=np.float64) - model.mean
    slope = np.eye(model.dim) - transport_map(model, reference)
    return np.asarray(2 * x @ (model.mean - reference.mean) + np.einsum("nd,nd->n", x @ slope, x))


def frechet_bias(rows: NDArray[Any], reference: Moments, count: int, *, groups: int = 20) -> float:
    """Return the estimated upward bias of the plug-in at N = ``count``, by the delete-group jackknife.

    (g - 1) (mean_j d_(-j) - d) estimates the c / R of the R given rows; the bias at N is R / N times that.
    """
    x = np.asarray(rows, dtype=np.float64)
    parts = [Moments.of(x[j::groups]) for j in range(groups)]
    distance = frechet_to(reference, accuracy=1e-8)
    without = [distance(_union(parts[:j] + parts[j + 1 :])) for j in range(groups)]
    bias = (groups - 1) * (float(np.mean(without)) - distance(_union(parts)))
    return bias * len(x) / count


def kernel_interval(x: NDArray[Any], y: NDArray[Any], *, within_y: Array | None = None) -> Interval:
    """Return the unbiased kernel distance between features [N, D] and [M, D] and its jackknife interval."""
    distance = kernel_distance(x, y, within_y=within_y)
    return Interval.normal(distance.value, distance.standard_error)


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
