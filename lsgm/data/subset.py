"""Which images a number is of where it is not of all: a uniform subset, named by a seed, the same everywhere.

Stored images have an order that means something (by class, by date, by quality), so that the first n of them
are a sample of nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsgm.rng import derive_seed

__all__ = ["drawn_order", "mixed", "subset"]

STEP = np.uint64(0x9E3779B97F4A7C15)
"""The golden ratio's odd 64-bit step, by which SplitMix64 counts."""


def mixed(words: NDArray[Any]) -> NDArray[np.uint64]:
    """Return a well-mixed 64-bit hash of each integer: the finaliser of SplitMix64 (Steele et al., 2014)."""
    z = words.astype(np.uint64) + STEP
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


def drawn_order(total: int, seed: int = 0) -> NDArray[np.int64]:
    """Return the numbers 0..total-1 in the order in which `subset` takes them: those of any count come first.

    Raises ValueError for a negative ``total``.
    """
    if total < 0:
        raise ValueError(f"there are no {total} numbers")
    numbers = np.arange(total, dtype=np.uint64)
    return np.argsort(mixed(np.uint64(derive_seed("subset", seed)) + numbers * STEP), kind="stable")


def subset(total: int, count: int, seed: int = 0) -> NDArray[np.int64]:
    """Return ``count`` of the numbers 0..total-1, ascending: a uniform subset without replacement.

    Each number has a word of a SplitMix64 stream that ``seed`` begins, and the numbers with the lowest words
    are taken. Integer arithmetic alone decides, so that it is the same subset on every platform and under
    every version of NumPy; the subset of a smaller ``count`` lies within that of a larger one. All numbers
    where ``count >= total``. Raises ValueError for a negative ``count`` or ``total``.
    """
    if total < 0 or count < 0:
        raise ValueError(f"no subset of {count} of {total} numbers")
    if count >= total:
        return np.arange(total, dtype=np.int64)
    return np.sort(drawn_order(total, seed)[:count])
