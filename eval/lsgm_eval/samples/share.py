"""What is gathered of images on their way: for each extractor, accumulators that merge and can be kept."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.distributed import World
from lsgm.errors import UserError
from lsgm.files.arrays import Arrays
from lsgm.files.names import shown
from lsgm.generative import GenerativeModel
from lsgm.structure import to_dict
from lsgm_eval.cache import cell_key, code_version, read_kept, room_for, write_kept
from lsgm_eval.features.extractor import Classifies, Extractor, Spatial
from lsgm_eval.features.statistics import CAPACITY, Collector, room_of
from lsgm_eval.metrics.inception_score import SPLITS, ClassSums
from lsgm_eval.metrics.moments import Array
from lsgm_eval.models.open import packages_of
from lsgm_eval.samples.draw import Batch

__all__ = [
    "PREVIEW",
    "Accumulator",
    "Accumulators",
    "Branch",
    "Share",
    "StateFile",
    "Summary",
    "branches",
    "class_sums",
    "pass_key",
]


class Accumulator(Protocol):
    """Sums over images that do not depend on how these come: by which batches, processes or interruptions."""

    def add(self, features: NDArray[Any], index: NDArray[np.int64]) -> None:
        """Take the features [B, D] of the images whose numbers in the whole pass are ``index`` [B]."""
        ...

    def merge(self, other: Self) -> None:
        """Take everything that another accumulator has seen, of other images."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """Return named arrays from which `load` makes the same sums; they hold until the next `add`."""
        ...

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        """Take what `state` returned in place of everything seen so far. Raises DataError for all else."""
        ...

    def holds(self, numbers: NDArray[np.int64]) -> bool:
        """Return whether what has been seen is the images numbered ``numbers`` [N], each once."""
        ...


Accumulators = Callable[[Extractor, int], Mapping[str, Accumulator]]
"""From an extractor and the number of images of the whole pass to accumulators of its pooled features."""


def class_sums(extractor: Extractor, count: int) -> dict[str, Accumulator]:
    """Return {"classes": ClassSums} of an extractor that classifies, by which the Inception Score comes free.

    Empty for other extractors, and for fewer images than the score has splits.
    """
    if not isinstance(extractor, Classifies) or count < SPLITS:
        return {}

    def logits(features: NDArray[Any]) -> Tensor:
        return extractor.class_logits(torch.from_numpy(features))

    return {"classes": ClassSums(count, logits=logits)}


@dataclass(frozen=True)
class Branch:
    """One extractor, and all that is gathered of what it makes of the images."""

    extractor: Extractor
    features: Collector
    spatial: Collector | None
    """Moments of the spatial features, where the extractor has them (sFID, arXiv:2103.03841)."""
    others: Mapping[str, Accumulator]

    def take(self, images: Tensor, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Extract once, give every accumulator its rows of the images uint8 [B, C, H, W], and return them.

        What is returned are the pooled features [B, D].
        """
        if self.spatial is not None and isinstance(self.extractor, Spatial):
            pooled, spatial = self.extractor.with_spatial(images)
            self.spatial.add(spatial, index)
        else:
            pooled = self.extractor(images)
        features = np.asarray(pooled)
        self.features.add(features, index)
        for accumulator in self.others.values():
            accumulator.add(features, index)
        return features

    def parts(self) -> dict[str, Accumulator]:
        """Return all accumulators by names under which their states can lie in one file."""
        spatial: dict[str, Accumulator] = {} if self.spatial is None else {"spatial": self.spatial}
        return {"features": self.features, **spatial, **{f"other-{k}": v for k, v in self.others.items()}}


def branches(extractors: Sequence[Extractor], count: int, accumulators: Accumulators) -> dict[str, Branch]:
    """Return an empty branch for each extractor, by its name, for a pass of ``count`` images.

    Raises UserError for two extractors of one name, whose numbers could not be told apart.
    """
    found: dict[str, Branch] = {}
    for extractor in extractors:
        if extractor.name in found:
            raise UserError(f"two extractors are called '{extractor.name}': give each feature space once")
        found[extractor.name] = Branch(
            extractor,
            Collector(extractor.dim),
            Collector(extractor.spatial_dim) if isinstance(extractor, Spatial) else None,
            accumulators(extractor, count),
        )
    return found


# What a pass has done so far, in one file under the key of everything it depends on

T = TypeVar("T")
KEY = "key"
OTHER = "is of another pass: its model, seeds, sampler, extractors or code differ"


@dataclass(frozen=True)
class StateFile:
    """A file of named arrays; only those that were written under the same key are ever read."""

    path: Path
    key: str

    def write(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Replace the file: by all of the arrays or, after a crash, not at all."""
        write_kept(self.path, {KEY: np.array(self.key), **arrays})

    def read(self, use: Callable[[Arrays], T], *, room: int = 0) -> T | None:
        """Return what ``use`` makes of the arrays, or None where there is no file or one that is of no use.

        A file that is damaged, of another pass, or refused by a DataError of ``use``, is named on standard
        error. ``room`` is what its arrays may take in bytes beyond the usual limit.
        """

        def ours(arrays: Arrays) -> T | None:
            if arrays.text(KEY) != self.key:
                print(
                    f"lsgm: the interrupted pass {shown(str(self.path))} {OTHER}; beginning again",
                    file=sys.stderr,
                )
                return None
            return use(Arrays(arrays.where, {name: arrays[name] for name in arrays if name != KEY}))

        said = "the interrupted pass {path} is damaged ({why}); beginning again"
        return read_kept(self.path, ours, damaged=said, limit=room_for(room))


def pass_key(
    model: GenerativeModel,
    seeds: Sequence[int],
    sampler: SamplerConfig,
    branches: Mapping[str, Branch],
    world: World,
    save: Path | None,
) -> str:
    """Return the sha256 of all that a pass depends on but for its batches, which only round differently."""
    return cell_key(
        {
            "model": model.sha256,
            "sampler": to_dict(sampler),
            "seeds": hashlib.sha256(np.asarray(seeds, dtype=np.int64).tobytes()).hexdigest(),
            "processes": world.size,
            "device": world.device.type,
            "branches": {name: _identity(branch) for name, branch in branches.items()},
            "capacity": CAPACITY,
            "save": str(save.resolve()) if save else None,
            "code": code_version("lsgm", "lsgm_eval", *packages_of(model)),
        }
    )


def _identity(branch: Branch) -> list[Any]:
    extractor = branch.extractor
    return [extractor.sha256, extractor.dim, extractor.resize, sorted(branch.parts())]


# One process's part of a pass: how far it is, what it has accumulated, and what its images cost

PREVIEW = 100
"""Images kept for the grid."""


@dataclass(frozen=True)
class Summary:
    """What the other processes must know of a share, beside its accumulators."""

    nfe: Array
    seconds: list[float]
    decoder_seconds: list[float]
    """NaN for batches of which it is not known."""
    counts: list[int]
    preview: NDArray[np.uint8]
    preview_numbers: NDArray[np.int64]
    extraction_seconds: float
    peak_bytes: int | None


class Share:
    """Progress through the images numbered ``numbers`` in the pass: everything that a resumed one needs.

    They are of a shape (C, H, W), and done in the order of ``numbers``.
    """

    def __init__(
        self, numbers: NDArray[np.int64], image_shape: tuple[int, int, int], plan: Mapping[str, Branch]
    ) -> None:
        self.numbers, self.plan, self.done = numbers, plan, 0
        self._nfe: Array = np.zeros(len(numbers))
        self._seconds: list[float] = []
        self._decoder: list[float] = []
        self._counts: list[int] = []
        self._preview: NDArray[np.uint8] = np.empty((0, *image_shape), np.uint8)
        self._numbers: NDArray[np.int64] = np.empty(0, np.int64)
        self._extraction_seconds = 0.0
        self._peak = 0

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self.numbers)

    @property
    def room(self) -> int:
        """Bytes that `state` takes at most, but for sums that do not grow with the features."""
        dims = [branch.extractor.dim for branch in self.plan.values()]
        dims += [branch.spatial.moments.dim for branch in self.plan.values() if branch.spatial is not None]
        return sum(map(room_of, dims)) + 32 * self.count + PREVIEW * self._preview[:0].nbytes

    @property
    def mean_nfe(self) -> float:
        """Mean network evaluations of the images that are done."""
        return float(self._nfe[: self.done].mean())

    def note(
        self, batch: Batch, number: NDArray[np.int64], extraction_seconds: float, peak: int | None
    ) -> None:
        """Count a batch, whose images are numbered ``number`` [B] in the pass, as done."""
        end = self.done + len(batch.images)
        self._nfe[self.done : end] = batch.nfe.numpy()
        self.done = end
        self._seconds.append(batch.seconds)
        self._decoder.append(math.nan if batch.decoder_seconds is None else batch.decoder_seconds)
        self._counts.append(len(batch.images))
        shown = number < PREVIEW
        if shown.any():
            self._preview = np.concatenate([self._preview, batch.images.numpy()[shown]])
            self._numbers = np.concatenate([self._numbers, number[shown]])
        self._extraction_seconds += extraction_seconds
        self._peak = max(self._peak, peak or 0)

    def summary(self) -> Summary:
        """Return what is gathered from the processes."""
        return Summary(
            self._nfe,
            self._seconds,
            self._decoder,
            self._counts,
            self._preview,
            self._numbers,
            self._extraction_seconds,
            self._peak or None,
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """Return named arrays from which `load` goes on; they hold until the next batch."""
        arrays = {
            "done": np.array(self.done),
            "nfe": self._nfe,
            "seconds": np.array(self._seconds, dtype=np.float64),
            "decoder_seconds": np.array(self._decoder, dtype=np.float64),
            "counts": np.array(self._counts, dtype=np.int64),
            "preview": self._preview,
            "preview_numbers": self._numbers,
            "extraction_seconds": np.array(self._extraction_seconds),
            "peak_bytes": np.array(self._peak),
        }
        for k, branch in enumerate(self.plan.values()):
            for part, accumulator in branch.parts().items():
                arrays |= {f"{k}/{part}/{name}": value for name, value in accumulator.state().items()}
        return arrays

    def load(self, arrays: Arrays) -> None:
        """Take what `state` returned. Raises DataError for arrays that it does not return."""
        done = _number(arrays, "done", "i")
        if not 0 <= done <= self.count:
            raise arrays.refused(f"says that {done} of {self.count} images are done")
        seconds, decoder = (
            _column(arrays, "seconds", np.float64),
            _column(arrays, "decoder_seconds", np.float64),
        )
        counts, nfe = _column(arrays, "counts", np.int64), _column(arrays, "nfe", np.float64)
        if len(nfe) != self.count or not (np.isfinite(nfe).all() and (nfe >= 0).all()):
            raise arrays.refused(f"does not say the evaluations of {self.count} images")
        if not len(seconds) == len(decoder) == len(counts) or (counts < 1).any() or counts.sum() != done:
            raise arrays.refused(f"has batches that are not of {done} images")
        if (
            not np.isfinite(seconds).all()
            or (seconds < 0).any()
            or (decoder < 0).any()
            or np.isinf(decoder).any()
        ):
            raise arrays.refused("has seconds that are no time")
        preview, numbers = arrays.take("preview", "u", 4), _column(arrays, "preview_numbers", np.int64)
        ours = self.numbers[:done]
        if not np.array_equal(numbers, ours[ours < PREVIEW]):
            raise arrays.refused("shows other images than the first ones")
        if preview.dtype != np.uint8 or preview.shape != (len(numbers), *self._preview.shape[1:]):
            raise arrays.refused(f"shows images of {preview.dtype} {list(preview.shape)}")
        extraction, peak = _number(arrays, "extraction_seconds", "f"), _number(arrays, "peak_bytes", "i")
        if not (math.isfinite(extraction) and extraction >= 0 and peak >= 0):
            raise arrays.refused("has seconds or bytes below 0")
        self._load_plan(arrays, done)
        self.done, self._nfe = int(done), nfe
        self._seconds, self._counts, self._decoder = seconds.tolist(), counts.tolist(), decoder.tolist()
        self._preview, self._numbers = preview, numbers
        self._extraction_seconds, self._peak = float(extraction), int(peak)

    def _load_plan(self, arrays: Arrays, done: float) -> None:
        """Let every accumulator take its arrays. Raises DataError where one is not of the images done."""
        for k, branch in enumerate(self.plan.values()):
            for part, accumulator in branch.parts().items():
                prefix = f"{k}/{part}/"
                mine = {n.removeprefix(prefix): v for n, v in arrays.items() if n.startswith(prefix)}
                try:
                    accumulator.load(mine)
                except UserError as error:
                    raise arrays.refused(f": of {part} {error}") from error
                if not accumulator.holds(self.numbers[: int(done)]):
                    raise arrays.refused(f": {part} is of other images")


def _number(arrays: Arrays, name: str, kind: str) -> float:
    number = arrays.take(name, kind, 0)
    if number.dtype.itemsize != 8:
        raise arrays.refused(f"has '{name}' in {number.dtype}")
    return number.item()  # type: ignore[no-any-return]


def _column(arrays: Arrays, name: str, dtype: type[np.generic]) -> NDArray[Any]:
    column = arrays.take(name, "if", 1)
    if column.dtype != dtype:
        raise arrays.refused(f"has '{name}' in {column.dtype}")
    return column
