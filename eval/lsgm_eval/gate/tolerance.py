r"""How far a value may be from its golden one: from recorded errors and a chance of a false alarm.

**Estimates.** R repeats with seeds of their own gave a mean m and the standard error s of one measurement,
with nu degrees of freedom. A further measurement y of the same model obeys

.. math:: \frac{y - m}{s \sqrt{1 + 1/R}} \sim t_\nu,

Student's predictive distribution (exact where measurements are Normal, which means over hundreds of images
and distances of a hundred samples are close to). A gate of k rows allows each |y - m| up to the quantile at
1 - a / 2k: by Bonferroni's inequality a gate of an unchanged model then fails with a chance of at most
a = 1e-4, however the rows depend on one another; a hundred gates with at most one in a hundred.

The noise of a bound is independent between images, so that s^2 = sum_i s_i^2 / N^2 from the spread s_i of
each image over the repeats, with nearly N (R - 1) degrees of freedom (Satterthwaite's, below): t is then 4.5
instead of the 7.8 of 11 degrees.

Importance sampled times can have weights without bound. A data-space model's bound was seen to be a hundred
nats of most draws and 700,000 of one in 6,000: a mean that no number of repeats knows the error of, which
either finds the freak among them, and then allows anything, or does not, and then cries wolf. So values of
images are cut at the `CUT` and 1 - `CUT` quantiles of all repeats, as golden means and as measured ones
(Winsorised means): what a thousandth of the draws does is left to the replays.

**Replays** are no estimates: only rounding moves them. What it does was seen by computing the same numbers
in other batches, with other threads and in float64 arithmetic; another processor sums in another order, and
errors of rounding then differ by small factors, not by orders of magnitude. `HEADROOM` times the largest
difference seen is allowed of an image, and `HEADROOM` times the mean difference of all: four of a float's 24
bits. That a change is told from rounding needs no more: 2 % of a weight moves terms by 1e-3 and more of their
size, and rounding by 1e-7.

**Drawn images** have levels that rounding turns over where a number lies on an edge: rarely and each by
itself, so that counts are Poisson's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, pdtrik, stdtrit

__all__ = [
    "CUT",
    "FALSE_ALARM",
    "FLOAT32",
    "HEADROOM",
    "flips_allowed",
    "paired_margin",
    "pooled_error",
    "predictive_margin",
    "repeat_error",
    "rounding_of",
]

Array = NDArray[np.float64]

FALSE_ALARM = 1e-4
"""Chance that a gate of an unchanged model fails at all."""
CUT = 1e-3
"""Share of images' values at either end of an estimate that are moved to where the others end."""
HEADROOM = 16.0
"""How much larger rounding may be elsewhere than where the golden rows were written."""
FLOAT32 = 2.0**-24
"""Relative rounding of one float32 number: what a row is known to at best."""


def predictive_margin(error: float, df: float, repeats: int, chance: float) -> float:
    r"""Return t_{df}(1 - chance) * error * sqrt(1 + 1 / repeats).

    ``chance`` is that of a further measurement beyond the mean of the repeats plus this margin, on one side.
    """
    return float(stdtrit(df, 1 - chance)) * error * math.sqrt(1 + 1 / repeats)


def paired_margin(differences: NDArray[Any], chance: float) -> float:
    """Return t_{N-1}(1 - chance) times the standard error of the mean of differences [N], N >= 2.

    Of images drawn from a population it covers the sampling of the images, and the noise of both values of
    every image, since both are in the differences.
    """
    x = np.asarray(differences, dtype=np.float64)
    return float(stdtrit(len(x) - 1, 1 - chance)) * float(x.std(ddof=1)) / math.sqrt(len(x))


def pooled_error(values: NDArray[Any]) -> tuple[float, float]:
    r"""Return the standard error of one measurement, and its degrees of freedom, from values [R, N].

    .. math:: s^2 = \frac{1}{N^2} \sum_i s_i^2, \qquad
        \nu = (R - 1) \frac{(\sum_i s_i^2)^2}{\sum_i s_i^4}

    with s_i^2 the variance of image i over R repeats: what the mean over N images, independent given the
    images, varies by (Satterthwaite, 1946). s_i^4 is itself estimated, too large by a factor
    (R + 1) / (R - 1), so that nu is on the small side, which widens the tolerance.
    """
    x = np.asarray(values, dtype=np.float64)
    repeats, count = x.shape
    variance = x.var(axis=0, ddof=1)
    total = float(variance.sum())
    if total == 0.0:
        return 0.0, float(repeats - 1)
    return math.sqrt(total) / count, (repeats - 1) * total**2 / float(np.square(variance).sum())


def repeat_error(values: NDArray[Any]) -> tuple[float, float]:
    """Return the standard deviation of repeated measurements [R] and its R - 1 degrees of freedom."""
    return float(np.std(values, ddof=1)), float(len(values) - 1)


def rounding_of(values: NDArray[Any], others: list[NDArray[Any]]) -> tuple[float, float]:
    """Return the largest difference of an image, and the largest mean difference, from values [N].

    Neither is below the rounding of the values themselves, so that ways that agree by chance, as other
    batches often do to the last bit, promise nothing that another machine cannot keep.
    """
    x = np.abs(np.asarray(values, dtype=np.float64))
    gaps = [np.abs(np.asarray(other, dtype=np.float64) - values) for other in others]
    largest = max([FLOAT32 * float(x.max()), *(float(gap.max()) for gap in gaps)])
    mean = max([FLOAT32 * float(x.mean()), *(float(gap.mean()) for gap in gaps)])
    return largest, min(mean, largest)


def flips_allowed(seen: int, chance: float) -> int:
    """Return how many turned-over levels chance explains, given that ``seen`` were found once before.

    Poisson: the rate is at most the upper end of Garwood's (1936) interval for one count at confidence
    1 - chance / 2, chi2_{2 seen + 2}(1 - chance / 2) / 2, and a count of that rate exceeds what is returned
    with a chance of at most chance / 2.
    """
    rate = float(chdtri(2 * seen + 2, chance / 2)) / 2
    return math.ceil(float(pdtrik(1 - chance / 2, rate)))
