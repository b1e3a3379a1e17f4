"""A share of images that have a property, with its exact binomial interval."""

from __future__ import annotations

import numpy as np
from scipy.stats import beta

from lsgm_eval.intervals import Interval

__all__ = ["binomial_interval"]


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
