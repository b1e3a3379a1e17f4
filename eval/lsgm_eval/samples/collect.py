"""What a pass gathers of images for each extractor: sums that merge exactly, and a sample of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsgm.data.splits import mixed
from lsgm.errors import UserError
from lsgm_eval.features.extractor import Classifies, Extractor, Spatial, label_of
from lsgm_eval.metrics.inception_score import SPLITS, ClassSums
from lsgm_eval.metrics.moments import FeatureStats, Moments, finite

Extracted = tuple[NDArray[np.float32], NDArray[np.float32] | None]
"""Pooled features [B, D] and spatial ones."""

CAPACITY = 10_000
"""Rows of features kept: all of a quick run's, a sample of a full one's."""
BLOCK = 1024
"""Rows that enter the moments together: an update of a D x D matrix for every small batch would cost more
than the features of a fast extractor."""


@dataclass(frozen=True)
class Gathered:
    """What one pass has gathered of a set of images in one feature space."""

    stats: FeatureStats
    """Without rows where the images are known by a file of mean and covariance."""
    spatial: FeatureStats | None = None
    """Of the spatial features, where the extractor has them (sFID, arXiv:2103.03841)."""
    classes: ClassSums | None = None
    counted: bool = True
    """Whether it is known how many images the moments are of."""

    def first(self, count: int) -> Gathered:
        """Return what is known of the first ``count`` images, of which all rows must be kept."""
        rows = self.stats.rows[:count]
        return Gathered(FeatureStats(Moments.of(rows), rows))


@dataclass(frozen=True)
class Branch:
    """One extractor, and all that is gathered of what it makes of the images."""

    extractor: Extractor
    features: Collector
    spatial: Collector | None
    classes: ClassSums | None

    def take(self, images: Tensor, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Extract once, give every accumulator its rows of the images uint8 [B, C, H, W], and return them.

        What is returned are the pooled features [B, D].
        """
        return self.put(self.extract(images), index)

    def extract(self, images: Tensor) -> Extracted:
        """Return the pooled features [B, D] of images and, where they are gathered, the spatial ones."""
        if self.spatial is not None and isinstance(self.extractor, Spatial):
            pooled, spatial = self.extractor.with_spatial(images)
            return np.asarray(pooled), np.asarray(spatial)
        return np.asarray(self.extractor(images)), None

    def put(self, extracted: Extracted, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Give every accumulator its rows, and return the pooled features."""
        features, spatial = extracted
        if self.spatial is not None and spatial is not None:
            self.spatial.add(spatial, index)
        self.features.add(features, index)
        if self.classes is not None:
            self.classes.add(features, index)
        return features

    @property
    def parts(self) -> dict[str, Collector | ClassSums]:
        """All accumulators by the names under which their states lie in a file."""
        parts = {"features": self.features, "spatial": self.spatial, "classes": self.classes}
        return {name: part for name, part in parts.items() if part is not None}

    def state(self) -> dict[str, NDArray[Any]]:
        """Return arrays ``part/NAME`` for `load`; they hold until the next `take`."""
        return {
            f"{part}/{name}": array
            for part, sums in self.parts.items()
            for name, array in sums.state().items()
        }

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take what `state` returned in place of everything seen so far."""
        for part, sums in self.parts.items():
            sums.load(arrays_under(state, part))

    def merge(self, other: Branch) -> None:
        """Take everything that another branch of the same extractor has seen, of other images."""
        self.features.merge(other.features)
        if self.spatial is not None and other.spatial is not None:
            self.spatial.merge(other.spatial)
        if self.classes is not None and other.classes is not None:
            self.classes.merge(other.classes)

    @property
    def gathered(self) -> Gathered:
        """What is known by now."""
        spatial = None if self.spatial is None else self.spatial.stats()
        return Gathered(self.features.stats(), spatial, self.classes)


def branches(extractors: Sequence[Extractor], count: int, *, classes: bool = True) -> dict[str, Branch]:
    """Return an empty branch for each extractor, by its `label_of`, for a pass of ``count`` images.

    With ``classes`` the sums of the Inception Score come free where an extractor classifies, unless there are
    fewer images than the score has splits. Raises UserError for two extractors of one name, whose numbers
    could not be told apart.
    """
    found: dict[str, Branch] = {}
    names: set[str] = set()
    for extractor in extractors:
        if extractor.name in names:
            raise UserError(f"two extractors are called '{extractor.name}': give each feature space once")
        names.add(extractor.name)
        found[label_of(extractor)] = Branch(
            extractor,
            Collector(extractor.dim),
            Collector(extractor.spatial_dim) if isinstance(extractor, Spatial) else None,
            _class_sums(extractor, count) if classes else None,
        )
    return found


def _class_sums(extractor: Extractor, count: int) -> ClassSums | None:
    if not isinstance(extractor, Classifies) or count < SPLITS:
        return None
    return ClassSums(count, logits=lambda features: extractor.class_logits(torch.from_numpy(features)))


def arrays_under(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """Return the arrays ``prefix/NAME`` by their NAME."""
    start = f"{prefix}/"
    return {name.removeprefix(start): arrays[name] for name in arrays if name.startswith(start)}


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
        finite(rows, index)
        self._waiting.append(np.array(rows))  # a copy: an extractor may use its output's memory again
        if sum(map(len, self._waiting)) >= BLOCK:
            self._sums, self._waiting = self.moments, []
        self._kept.add(rows, index)

    def merge(self, other: Collector) -> None:
        """Take everything that another collector has seen."""
        self._sums, self._waiting = self.moments.merge(other.moments), []
        self._kept.add(other._kept.rows, other._kept.index)

    def stats(self) -> FeatureStats:
        """Return the moments and the rows in the order of their images, which hold until the next `add`."""
        self._kept.sort()
        return FeatureStats(self.moments, self._kept.rows)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all that `load` needs to go on as if nothing had happened, bit for bit."""
        waiting = np.concatenate(self._waiting) if self._waiting else np.empty((0, self._sums.dim))
        kept: dict[str, NDArray[Any]] = {"rows": self._kept.rows, "index": self._kept.index}
        return self._sums.arrays() | {"waiting": waiting} | kept

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take what `state` returned in place of everything seen so far."""
        self._sums = Moments.kept(state)
        self._waiting = [state["waiting"]] if len(state["waiting"]) else []
        self._kept = _LowestHashes(self._sums.dim, self._kept.capacity)
        self._kept.add(state["rows"], state["index"])


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

    def sort(self) -> None:
        """Bring the rows into the order of their index where they lie: a copy would be as large again."""
        order = np.argsort(self.index, kind="stable")
        self.index = self.index[order]
        for first in np.flatnonzero(order != np.arange(len(order))):
            if order[first] == first:  # by now
                continue
            held, place = self._store[first].copy(), first
            while order[place] != first:
                self._store[place] = self._store[order[place]]
                order[place], place = place, order[place]
            self._store[place], order[place] = held, place


def kept_numbers(count: int, *, capacity: int = CAPACITY) -> NDArray[np.int64]:
    """Return which of the images 0..count-1 the rows of their `FeatureStats` are of, ascending."""
    return np.sort(np.argsort(mixed(np.arange(count)), kind="stable")[:capacity])


def room_of(dim: int, *, capacity: int = CAPACITY) -> int:
    """Return the bytes that the state of a collector of D features takes at most, batches of 1,024 rows."""
    return dim * (8 * dim + 8) + capacity * (4 * dim + 8) + 2 * BLOCK * 8 * dim
