"""Where a pass keeps its images if it is asked to: a folder of PNGs, or one npz in ADM's format."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from lsgm.data.store import atomic_path
from lsgm.errors import UserError
from lsgm.generative import Pixels
from lsgm.grid import save_image

__all__ = ["Output", "open_output"]

DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


class Output(Protocol):
    """A place for the images of one pass, each at its number; several processes may write at once."""

    def prepare(self, done: int) -> bool:
        """Make the place ready, by one process; return whether it holds this pass's first ``done`` images.

        Raises UserError for a place that holds other images.
        """
        ...

    def write(self, index: NDArray[np.int64], images: Tensor) -> None:
        """Keep images uint8 [B, C, H, W] as those numbered ``index`` [B]; they are on disk on return."""
        ...

    def finish(self) -> None:
        """Put everything in its final form, by one process once all have written."""
        ...


def open_output(save: Path | None, key: str, seeds: Sequence[int], pixels: Pixels) -> Output:
    """Return the place that ``save`` names: an npz by its suffix, else a folder; nothing is kept for None.

    ``key`` tells the pass from others. Raises UserError for a suffix of something else.
    """
    if save is None:
        return _Nothing()
    if save.suffix.lower() == ".npz":
        return _Array(save, key, len(seeds), pixels)
    if save.suffix.lower() in (".zip", ".npy", ".png", ".jpg"):
        raise UserError(f"images cannot be kept as {save.name}: name a folder for PNGs, or a file of .npz")
    return _Folder(save, key, seeds)


class _Nothing:
    def prepare(self, done: int) -> bool:
        return True

    def write(self, index: NDArray[np.int64], images: Tensor) -> None:
        """Keep nothing."""

    def finish(self) -> None:
        """There is nothing to finish."""


class _Folder:
    """PNGs named by their seeds, with as many digits as keep them in order, and a hidden note of the key."""

    def __init__(self, folder: Path, key: str, seeds: Sequence[int]) -> None:
        self.folder, self.key, self.seeds = folder, key, seeds
        self.digits = max(6, len(str(max(seeds))))

    def prepare(self, done: int) -> bool:
        note = self.folder / ".pass"
        if note.is_file() and note.read_text(encoding="utf-8") == self.key:
            return all(self._path(number).is_file() for number in range(done))
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise UserError(
                f"{self.folder} is not empty and its files are not of this pass: remove it, or name another"
            )
        with atomic_path(note) as temporary:
            temporary.write_text(self.key, encoding="utf-8")
        return False

    def write(self, index: NDArray[np.int64], images: Tensor) -> None:
        for number, image in zip(index.tolist(), images, strict=True):
            save_image(image, self._path(number))

    def finish(self) -> None:
        """Every file is final as soon as it is written."""

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.seeds[number]:0{self.digits}d}.png"


class _Array:
    """arr_0 uint8 [N, H, W, C], filled row by row in a plain file and then put into an npz beside its key.

    C is 1 for greyscale, where ADM's own files know colours only.
    """

    def __init__(self, path: Path, key: str, count: int, pixels: Pixels) -> None:
        self.path, self.key = path, key
        self.shape = (count, pixels.height, pixels.width, pixels.channels)
        self.partial = path.with_name(f".{path.name}.{key[:16]}.partial")
        self._row_bytes = math.prod(self.shape[1:])

    def prepare(self, done: int) -> bool:
        if self.partial.is_file() or (done == self.shape[0] and self._finished()):
            return True
        with atomic_path(self.partial) as temporary, temporary.open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": self.shape}
            npy.write_array_header_1_0(file, header)
            file.truncate(file.tell() + self.shape[0] * self._row_bytes)
        return False

    def write(self, index: NDArray[np.int64], images: Tensor) -> None:
        rows = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        start = self.partial.stat().st_size - self.shape[0] * self._row_bytes
        with self.partial.open("r+b") as file:
            for number, row in zip(index.tolist(), rows, strict=True):
                file.seek(start + number * self._row_bytes)
                file.write(row.data)

    def finish(self) -> None:
        if not self.partial.is_file():
            return
        with atomic_path(self.path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            archive.write(self.partial, "arr_0.npy")
            with archive.open("pass.npy", "w") as member:
                npy.write_array(member, np.array(self.key), allow_pickle=False)
        self.partial.unlink()

    def _finished(self) -> bool:
        try:
            with np.load(self.path, allow_pickle=False) as file:
                return str(file["pass"]) == self.key
        except DAMAGE:
            return False
