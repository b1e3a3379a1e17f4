"""Ready images that are in memory already: tensors, arrays, and splits of data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsgm.data import sha256_of
from lsgm.errors import DataError
from lsgm.generative import Pixels

__all__ = ["MemoryImages", "from_array"]


class MemoryImages:
    """Tensors uint8 [N, C, H, W], one after the other, as one set that nothing is copied for."""

    lossy, how = 0, ""
    grey_row: int | None = None

    def __init__(self, name: str, what: str, parts: Sequence[Tensor], pixels: Pixels, sha256: str) -> None:
        self.path, self.what = Path(name), what
        self.pixels, self.sha256 = pixels, sha256
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def label(self, row: int) -> str:
        """Return the name by which an error calls image ``row``."""
        return f"{self.path}: image {row}"

    def read(self, rows: Sequence[int]) -> Tensor:
        """Return images uint8 [len(rows), C, H, W]."""
        which = np.searchsorted(self._ends, rows, side="right")
        starts = self._ends - [len(part) for part in self._parts]
        return torch.stack(
            [self._parts[k][row - starts[k]] for k, row in zip(which.tolist(), rows, strict=True)]
        )


_ADVICE = "images are uint8 in 0..255: round them as if written to files"


def _own(images: NDArray[Any]) -> NDArray[Any]:
    """Return an array in the order of its indices that may be written to, as torch expects."""
    return np.require(images, requirements=["C", "W"])


def from_array(images: Tensor | NDArray[Any], name: str) -> MemoryImages:
    """Return a tensor or array of images, called ``name`` in errors.

    Raises DataError unless it is uint8 [N, C, H, W] with one or three channels and values up to 255.
    """
    if not isinstance(images, Tensor) and (not isinstance(images, np.ndarray) or images.dtype == object):
        raise DataError(f"{name} is a {type(images).__name__} and no tensor or array of images")
    if not isinstance(images, Tensor) and images.dtype != np.uint8:  # torch does not know every dtype
        raise DataError(f"{name} is {images.dtype} and {_ADVICE}")
    tensor = images if isinstance(images, Tensor) else torch.from_numpy(_own(images))
    shape = list(tensor.shape)
    if tensor.ndim != 4 or 0 in shape or tensor.shape[1] not in (1, 3):
        advice = ": move the channels to the front" if shape[3:] in ([1], [3]) else ""
        raise DataError(f"{name} has shape {shape} and images are [N, 1 or 3, height, width]{advice}")
    if tensor.dtype != torch.uint8:
        raise DataError(f"{name} is {tensor.dtype} and {_ADVICE}")
    if int(tensor.max()) <= 1:
        raise DataError(f"{name} has no value above 1: give 0..255 in place of levels 0 and 1")
    cpu = tensor.detach().cpu()
    binary = tensor.shape[1] == 1 and bool(((cpu == 0) | (cpu == 255)).all())
    pixels = Pixels(shape[1], shape[2], shape[3], *(("binary", 1) if binary else ("discrete", 8)))
    return MemoryImages(name, "an array", [cpu], pixels, sha256_of(cpu))
