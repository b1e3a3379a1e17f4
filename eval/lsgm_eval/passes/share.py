"""One process's part of a pass: how far it is, what it has accumulated, and what its images cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsgm.errors import UserError
from lsgm.files.arrays import Arrays
from lsgm_eval.features import room_of
from lsgm_eval.moments import Array
from lsgm_eval.passes.draw import Batch
from lsgm_eval.passes.plan import Branch

__all__ = ["PREVIEW", "Share", "Summary"]

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
