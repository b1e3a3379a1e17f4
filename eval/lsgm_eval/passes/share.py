"""One process's part of a pass: how far it is, what it has accumulated, and what its images cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    """Progress through ``count`` images of a shape (C, H, W): everything that a resumed pass needs."""

    def __init__(self, count: int, image_shape: tuple[int, int, int], plan: Mapping[str, Branch]) -> None:
        self.count, self.plan, self.done = count, plan, 0
        self._nfe: Array = np.zeros(count)
        self._seconds: list[float] = []
        self._decoder: list[float] = []
        self._counts: list[int] = []
        self._preview: NDArray[np.uint8] = np.empty((0, *image_shape), np.uint8)
        self._numbers: NDArray[np.int64] = np.empty(0, np.int64)
        self._extraction_seconds = 0.0
        self._peak = 0

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

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take what `state` returned."""
        self.done, self._nfe = int(arrays["done"]), arrays["nfe"]
        self._seconds, self._counts = arrays["seconds"].tolist(), arrays["counts"].tolist()
        self._decoder = arrays["decoder_seconds"].tolist()
        self._preview, self._numbers = arrays["preview"], arrays["preview_numbers"]
        self._extraction_seconds = float(arrays["extraction_seconds"])
        self._peak = int(arrays["peak_bytes"])
        for k, branch in enumerate(self.plan.values()):
            for part, accumulator in branch.parts().items():
                prefix = f"{k}/{part}/"
                mine = {n.removeprefix(prefix): v for n, v in arrays.items() if n.startswith(prefix)}
                accumulator.load(mine)
