"""Features of many images as a stream: exact moments of all of them and a uniform sample of the rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lsgm.data.splits import mixed
from lsgm.errors import UserError
from lsgm.files.arrays import Arrays
from lsgm_eval.features.extractor import Extractor
from lsgm_eval.metrics.kernel import within_sums
from lsgm_eval.metrics.moments import Array, Moments

__all__ = ["CAPACITY", "Collector", "FeatureStats", "collect", "kept_numbers", "room_of"]

CAPACITY = 10_000
"""Rows of features kept: all of a quick run's, a sample of a full one's."""
BLOCK = 1024
"""Rows that enter the moments together: an update of a D x D matrix for every small batch would cost more
than the features of a fast extractor."""


@dataclass(frozen=True)
class FeatureStats:
    """What the distances need of a set of images: moments of all, and up to CAPACITY rows, float32 [R, D]."""

    moments: Moments
    rows: NDArray[np.float32]

    @cached_property
    def within(self) -> Array:
        """Kernel sums among the rows, computed once for the many models that meet one reference."""
        return within_sums(self.rows)


class Collector:
    """Gather features image by image in memory that does not grow with their number.

    The rows kept are those whose image index hashes lowest, so that they are a uniform sample and the same
    one whatever the batches, the shards and their order. ``capacity=0`` keeps moments alone.
    """

    def __init__(self, dim: int, *, capacity: int = CAPACITY) -> None:
        self._sums = Moments.empty(dim)
        self._waiting: list[NDArray[Any]] = []
        self._kept = _LowestHashes(dim, capacity)

    @property
    def moments(self) -> Moments:
        """Moments of all rows seen so far."""
        if not self._waiting:
            return self._sums
        return self._sums.merge(Moments.of(np.concatenate(self._waiting)))

    def add(self, features: Tensor | NDArray[Any], index: NDArray[np.int64]) -> None:
        """Take the features [B, D] of the images numbered ``index`` [B].

        Raises UserError naming the first image whose features are not finite; nothing is taken then.
        """
        rows = np.asarray(features)
        if rows.ndim != 2 or len(rows) != len(index) or rows.shape[1] != self._sums.dim:
            raise ValueError(
                f"features of {len(index)} images must have shape [{len(index)}, {self._sums.dim}], "
                f"not {list(rows.shape)}"
            )
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if bad.size:
            raise UserError(
                f"the features of image number {index[bad[0]]} are not finite ({bad.size} of {len(rows)} "
                "images of its batch): check the images and the extractor's weights"
            )
        self._waiting.append(np.array(rows))  # a copy: an extractor may use its output's memory again
        if sum(map(len, self._waiting)) >= BLOCK:
            self._sums, self._waiting = self.moments, []
        self._kept.add(rows, index)

    def merge(self, other: Collector) -> None:
        """Take everything that another collector has seen."""
        self._sums, self._waiting = self.moments.merge(other.moments), []
        self._kept.add(other._kept.rows, other._kept.index)

    def stats(self) -> FeatureStats:
        """Return the moments and the rows in the order of their images."""
        return FeatureStats(self.moments, self._kept.rows[np.argsort(self._kept.index, kind="stable")])

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all that `load` needs to go on as if nothing had happened, bit for bit."""
        waiting = np.concatenate(self._waiting) if self._waiting else np.empty((0, self._sums.dim))
        return {
            "count": np.array(self._sums.count),
            "total": self._sums.total,
            "scatter": self._sums.scatter,
            "waiting": waiting,
            "rows": self._kept.rows,
            "index": self._kept.index,
        }

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take what `state` returned in place of everything seen so far.

        Raises DataError for arrays that `state` does not return, before anything is taken.
        """
        arrays, dim = Arrays("a collector's state", state), self._sums.dim
        sums, waiting = Moments.kept(arrays, dim), arrays.take("waiting", "f", 2)
        rows, index = arrays.take("rows", "f", 2), arrays.take("index", "i", 1)
        kept = _LowestHashes(dim, self._kept.capacity)
        fits = waiting.shape[1] == rows.shape[1] == dim and len(rows) == len(index) <= kept.capacity
        if not fits or rows.dtype != np.float32 or waiting.dtype not in (np.float32, np.float64):
            raise arrays.refused("has rows of another number or shape")
        if not (np.isfinite(waiting).all() and np.isfinite(rows).all()):
            raise arrays.refused("has features that are not finite")
        count = sums.count + len(waiting)
        if len(index) != min(count, kept.capacity) or len(np.unique(index)) < len(index):
            raise arrays.refused(f"has {len(index)} rows of {count} images, or one twice")
        kept.add(rows, index.astype(np.int64))
        self._sums, self._waiting, self._kept = sums, [waiting] if len(waiting) else [], kept

    def holds(self, numbers: NDArray[np.int64]) -> bool:
        """Return whether what has been seen is the images numbered ``numbers``, each once."""
        count = self._sums.count + sum(map(len, self._waiting))
        lowest = np.argsort(mixed(numbers), kind="stable")[: self._kept.capacity]
        return count == len(numbers) and np.array_equal(np.sort(self._kept.index), np.sort(numbers[lowest]))


class _LowestHashes:
    """The up to ``capacity`` rows whose index hashes lowest, float32, in one array that is never copied."""

    def __init__(self, dim: int, capacity: int) -> None:
        self.capacity = capacity
        self._store: NDArray[np.float32] = np.empty((capacity, dim), np.float32)
        self.index: NDArray[np.int64] = np.empty(0, np.int64)

    @property
    def rows(self) -> NDArray[np.float32]:
        """The rows kept, in the order of `index`."""
        return self._store[: len(self.index)]

    def add(self, rows: NDArray[Any], index: NDArray[np.int64]) -> None:
        """Let ``rows`` [B, D] take free places, then those of rows whose hashes are higher."""
        held, every = len(self.index), np.concatenate([self.index, np.asarray(index, np.int64)])
        chosen = np.arange(len(every))
        if len(every) > self.capacity:
            chosen = np.sort(np.argsort(mixed(every), kind="stable")[: self.capacity])
        new = chosen[chosen >= held]
        stay = np.zeros(min(len(every), self.capacity), dtype=bool)
        stay[chosen[chosen < held]] = True
        places = np.flatnonzero(~stay)
        self._store[places] = rows[new - held]
        numbers = np.concatenate([self.index, np.empty(len(stay) - held, np.int64)])
        numbers[places] = every[new]
        self.index = numbers


def collect(
    extractor: Extractor, batches: Iterable[Tensor], *, first_index: int = 0, capacity: int = CAPACITY
) -> FeatureStats:
    """Return the statistics of images that arrive in batches, uint8 [B, C, H, W]."""
    collector, start = Collector(extractor.dim, capacity=capacity), first_index
    for images in batches:
        collector.add(extractor(images), np.arange(start, start + len(images)))
        start += len(images)
    return collector.stats()


def room_of(dim: int, *, capacity: int = CAPACITY) -> int:
    """Return the bytes that the state of a collector of D features takes at most, batches of 1,024 rows."""
    return dim * (8 * dim + 8) + capacity * (4 * dim + 8) + 2 * BLOCK * 8 * dim


def kept_numbers(count: int, *, capacity: int = CAPACITY) -> NDArray[np.int64]:
    """Return which of the images 0..count-1 the rows of their `FeatureStats` are of, ascending."""
    return np.sort(np.argsort(mixed(np.arange(count)), kind="stable")[:capacity])
