"""Frechet distance extrapolated to infinitely many samples, with its fit and its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsgm.errors import UserError
from lsgm.progress import bar
from lsgm_eval.metrics.frechet import frechet_to
from lsgm_eval.metrics.intervals import NORMAL_95, Interval, frechet_influence
from lsgm_eval.metrics.moments import Array, Moments

__all__ = ["FitPoint", "FrechetInfinity", "frechet_infinity"]

PARTITIONS = (1, 2, 3, 4, 5, 6, 8, 10)
"""Numbers of subsets that the images are dealt into, one level of the fit each."""


@dataclass(frozen=True)
class FitPoint:
    """The mean Frechet distance over ``subsets`` disjoint subsets of about ``count`` images each."""

    count: int
    subsets: int
    value: float


@dataclass(frozen=True)
class FrechetInfinity:
    """The intercept of the line value = intercept + slope / N, its interval and the points it was fitted to.

    ``curved`` is the intercept of a parabola through the same points: how far the law of 1 / N is to be
    trusted.
    """

    interval: Interval
    slope: float
    curved: float
    points: tuple[FitPoint, ...]


def frechet_infinity(
    features: NDArray[Any],
    reference: Moments,
    *,
    partitions: Sequence[int] = PARTITIONS,
    smallest: int | None = None,
    seed: int = 2020,
) -> FrechetInfinity:
    """Return the Frechet distance of features [N, D] to ``reference`` at N -> infinity, arXiv:1911.07023.

    The plug-in at n images is d + c / n + O(n^-2). For each k of ``partitions`` all images are dealt into k
    disjoint random subsets, whose mean distance belongs to 1 / n = k / N. As every level holds every image,
    they share their first-order error, and what they do not share has a variance in proportion to k - 1.
    The best line therefore goes through the whole set and weighs the others by 1 / (k - 1). Partitions with
    subsets below ``smallest`` (default 1.2 D, as a singular covariance follows another law) are left out.

    The interval covers d, with the reference's statistics fixed: 1.96 times the delta method's error of the
    whole set (`frechet_interval`) and the second-order error seen in the residuals, beyond both the line's
    and the parabola's intercept. Near P = Q it may reach below 0, as the estimate may. Raises UserError
    where fewer than four sizes are left.
    """
    x = np.asarray(features, dtype=np.float64)
    total = len(x)
    floor = math.ceil(1.2 * x.shape[1]) if smallest is None else smallest
    levels = [k for k in sorted(set(partitions) | {1}) if total // k >= max(floor, 2)]
    if len(levels) < 4:
        raise UserError(
            f"an extrapolated Frechet distance fits at least four sizes of subsets of at least {floor} "
            f"images and {total} images give {len(levels)}: ask for {4 * floor} images"
        )
    points = _points(x, reference, levels, np.random.default_rng(seed))
    whole = points[0].value
    step, curved, unshared = _fit(np.array(levels[1:]), np.array([p.value - whole for p in points[1:]]))
    first_order = float(frechet_influence(Moments.of(x), reference, x).var(ddof=1)) / total
    error = float(np.sqrt(first_order + unshared))
    margin = NORMAL_95 * error
    ends = (whole - step, whole - curved)
    interval = Interval(whole - step, min(ends) - margin, max(ends) + margin, error)
    return FrechetInfinity(interval, step * total, whole - curved, points)


def _fit(k: NDArray[np.int64], rise: Array) -> tuple[float, float, float]:
    """Return how far line and parabola fall from k = 1 to 0, and the line's variance from what is off both.

    Least squares with weights 1 / (k - 1) of rise = b (k - 1), and of rise = b (k - 1) + c (k^2 - 1).
    """
    excess = k - 1.0
    step = float(rise.sum() / excess.sum())
    weight = 1 / np.sqrt(excess)
    terms = np.stack([excess, k**2 - 1.0], axis=1)
    coefficients, *_ = np.linalg.lstsq(terms * weight[:, None], rise * weight, rcond=None)
    off = (rise - terms @ coefficients) * weight
    unshared = float(off @ off) / (len(k) - 2)
    return step, float(coefficients.sum()), unshared * (1 + 1 / float(excess.sum()))


def _points(
    x: Array, reference: Moments, levels: Sequence[int], rng: np.random.Generator
) -> tuple[FitPoint, ...]:
    distance, points = frechet_to(reference, accuracy=1e-5), []
    with bar(total=sum(levels), desc="Frechet distance of subsets", unit="subset") as progress:
        for k in levels:
            values = []
            for subset in np.array_split(rng.permutation(len(x)), k):
                values.append(distance(Moments.of(x[subset])))
                progress.update()
            points.append(FitPoint(len(x) // k, k, float(np.mean(values))))
    return tuple(points)
