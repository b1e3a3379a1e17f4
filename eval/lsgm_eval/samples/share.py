"""One process's part of a pass: how far it is, what it has gathered, what its images cost, and its file."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.distributed import World
from lsgm.errors import UserError
from lsgm.files.arrays import Arrays
from lsgm.files.names import shown
from lsgm.generative import GenerativeModel
from lsgm.results.manifest import digest_of
from lsgm.structure import to_dict
from lsgm_eval.cache import code_version, read_kept, room_for, write_kept
from lsgm_eval.metrics.moments import Array
from lsgm_eval.models import packages_of
from lsgm_eval.samples.collect import CAPACITY, Branch, room_of

__all__ = ["PREVIEW", "Batch", "Share", "StateFile", "Told", "arrays_under", "pass_key"]

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


def arrays_under(arrays: Mapping[str, NDArray[Any]], label: str, part: str) -> dict[str, NDArray[Any]]:
    """Return the state of one accumulator: the arrays ``label/part/NAME`` of a pass's file by their NAME."""
    prefix = f"{label}/{part}/"
    return {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}


def pass_key(
    model: GenerativeModel,
    seeds: Sequence[int],
    sampler: SamplerConfig,
    branches: Mapping[str, Branch],
    world: World,
    save: Path | None,
) -> str:
    """Return the sha256 of all that a pass depends on but for its batches, which only round differently."""
    spaces = {
        label: [branch.extractor.dim, branch.extractor.resize, sorted(branch.parts)]
        for label, branch in branches.items()
    }
    return digest_of(
        {
            "model": model.sha256,
            "sampler": to_dict(sampler),
            "seeds": hashlib.sha256(np.asarray(seeds, dtype=np.int64).tobytes()).hexdigest(),
            "processes": world.size,
            "device": world.device.type,
            "branches": spaces,
            "capacity": CAPACITY,
            "save": str(save.resolve()) if save else None,
            "code": code_version("lsgm", "lsgm_eval", *packages_of(model)),
        }
    )


@dataclass(frozen=True)
class Batch:
    """Images uint8 [B, C, H, W] from some seeds, their evaluations int64 [B], and the seconds they took."""

    start: int
    """Which of the seeds given is the first of these."""
    seeds: Sequence[int]
    images: Tensor
    nfe: Tensor
    seconds: float
    decoder_seconds: float | None = None
    """The decoder's part of them; None where it is not known."""


PREVIEW = 100
"""Images kept for the sheet."""


@dataclass
class Told:
    """What the other processes must know of a share, beside its accumulators."""

    nfe: Array
    seconds: list[float]
    decoder_seconds: list[float]
    """NaN for batches of which it is not known."""
    counts: list[int]
    preview: NDArray[np.uint8]
    preview_numbers: NDArray[np.int64]
    extraction_seconds: float = 0.0
    peak_bytes: int = 0
    """0 where it is not known."""


class Share:
    """Progress through the images numbered ``numbers`` in the pass: everything that a resumed one needs.

    They are of a shape (C, H, W), and done in the order of ``numbers``.
    """

    def __init__(
        self, numbers: NDArray[np.int64], image_shape: tuple[int, int, int], plan: Mapping[str, Branch]
    ) -> None:
        self.numbers, self.plan, self.done = numbers, plan, 0
        none = np.empty((0, *image_shape), np.uint8)
        self.told = Told(np.zeros(len(numbers)), [], [], [], none, np.empty(0, np.int64))

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self.numbers)

    @property
    def room(self) -> int:
        """Bytes that `state` takes at most, but for sums that do not grow with the features."""
        dims = [branch.extractor.dim for branch in self.plan.values()]
        dims += [branch.spatial.moments.dim for branch in self.plan.values() if branch.spatial is not None]
        return sum(map(room_of, dims)) + 32 * self.count + PREVIEW * self.told.preview[:0].nbytes

    @property
    def mean_nfe(self) -> float:
        """Mean network evaluations of the images that are done."""
        return float(self.told.nfe[: self.done].mean())

    def note(
        self, batch: Batch, number: NDArray[np.int64], extraction_seconds: float, peak: int | None
    ) -> None:
        """Count a batch, whose images are numbered ``number`` [B] in the pass, as done."""
        told, end = self.told, self.done + len(batch.images)
        told.nfe[self.done : end] = batch.nfe.numpy()
        self.done = end
        told.seconds.append(batch.seconds)
        told.decoder_seconds.append(math.nan if batch.decoder_seconds is None else batch.decoder_seconds)
        told.counts.append(len(batch.images))
        shown = number < PREVIEW
        if shown.any():
            told.preview = np.concatenate([told.preview, batch.images.numpy()[shown]])
            told.preview_numbers = np.concatenate([told.preview_numbers, number[shown]])
        told.extraction_seconds += extraction_seconds
        told.peak_bytes = max(told.peak_bytes, peak or 0)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return named arrays from which `load` goes on; they hold until the next batch.

        Those of an accumulator are called ``name@sha256/part/array`` after its extractor.
        """
        told = self.told
        arrays = {
            "done": np.array(self.done),
            "nfe": told.nfe,
            "seconds": np.array(told.seconds, dtype=np.float64),
            "decoder_seconds": np.array(told.decoder_seconds, dtype=np.float64),
            "counts": np.array(told.counts, dtype=np.int64),
            "preview": told.preview,
            "preview_numbers": told.preview_numbers,
            "extraction_seconds": np.array(told.extraction_seconds),
            "peak_bytes": np.array(told.peak_bytes),
        }
        for label, branch in self.plan.items():
            for part, accumulator in branch.parts.items():
                arrays |= {f"{label}/{part}/{name}": value for name, value in accumulator.state().items()}
        return arrays

    def load(self, arrays: Arrays) -> None:
        """Take what `state` returned. Raises DataError for arrays that it does not return."""
        # How far it is, and what each batch and image cost.
        done = _number(arrays, "done", "i")
        if not 0 <= done <= self.count:
            raise arrays.refused(f"says that {done} of {self.count} images are done")
        seconds, decoder, nfe = (
            _column(arrays, name, np.float64) for name in ("seconds", "decoder_seconds", "nfe")
        )
        counts = _column(arrays, "counts", np.int64)
        if len(nfe) != self.count or not (np.isfinite(nfe).all() and (nfe >= 0).all()):
            raise arrays.refused(f"does not say the evaluations of {self.count} images")
        if not len(seconds) == len(decoder) == len(counts) or (counts < 1).any() or counts.sum() != done:
            raise arrays.refused(f"has batches that are not of {done} images")
        # The decoder's may be NaN, where it is not known.
        if (
            not np.isfinite(seconds).all()
            or (seconds < 0).any()
            or (decoder < 0).any()
            or np.isinf(decoder).any()
        ):
            raise arrays.refused("has seconds that are no time")
        # The first images.
        preview, numbers = arrays.take("preview", "u", 4), _column(arrays, "preview_numbers", np.int64)
        ours = self.numbers[: int(done)]
        if not np.array_equal(numbers, ours[ours < PREVIEW]):
            raise arrays.refused("shows other images than the first ones")
        if preview.dtype != np.uint8 or preview.shape != (len(numbers), *self.told.preview.shape[1:]):
            raise arrays.refused(f"shows images of {preview.dtype} {list(preview.shape)}")
        extraction, peak = _number(arrays, "extraction_seconds", "f"), _number(arrays, "peak_bytes", "i")
        if not (math.isfinite(extraction) and extraction >= 0 and peak >= 0):
            raise arrays.refused("has seconds or bytes below 0")
        # What was gathered, which must be of the images done and no others.
        for label, branch in self.plan.items():
            for part, accumulator in branch.parts.items():
                try:
                    accumulator.load(arrays_under(arrays, label, part))
                except UserError as error:
                    raise arrays.refused(f": of {part} {error}") from error
                if not accumulator.holds(ours):
                    raise arrays.refused(f": {part} is of other images")
        self.done, costs = int(done), (seconds.tolist(), decoder.tolist(), counts.tolist())
        self.told = Told(nfe, *costs, preview, numbers, float(extraction), int(peak))


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
