"""A set of image files, in a folder or in a zip: checked whole once, decoded when they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsgm.errors import DataError
from lsgm.generative import Pixels
from lsgm.progress import bar
from lsgm_eval.sources.checks import SUFFIXES, Header, check_same, decode, inspect, is_binary, reading

__all__ = ["FileImages", "ImageFile", "chosen", "hidden"]

THREADS = 4
"""Files decoded at once; Pillow decodes outside of Python's lock."""


@dataclass(frozen=True)
class ImageFile:
    """A file of a set: its name inside the folder or zip, and how to get its bytes."""

    name: str
    read: Callable[[], bytes]


def chosen(path: Path, files: Sequence[ImageFile]) -> list[ImageFile]:
    """Return the image files in order of name (as text: ``10.png`` before ``9.png``), hidden ones left out.

    Raises DataError where there are none, and for a file that is neither hidden nor an image: what is not
    understood is not skipped.
    """
    kept = sorted((file for file in files if not hidden(file.name)), key=lambda file: file.name)
    kinds = ", ".join(SUFFIXES)
    if not kept:
        raise DataError(f"{path} is empty, but for hidden files perhaps: put {kinds} files there")
    for file in kept:
        if PurePosixPath(file.name).suffix.lower() not in SUFFIXES:
            raise DataError(
                f"{path}: {file.name} is no image ({kinds} are): take it away, so that it is sure what counts"
            )
    return kept


def hidden(name: str) -> bool:
    """Return whether a name is none of a set: a part of it begins with a dot, or a Mac zipped it."""
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") for part in parts) or parts[0] == "__MACOSX"


class FileImages:
    """Image files of one size and kind as one set; its sha256 covers names and bytes, in order.

    Every file is read once at the beginning: hashed, its header checked, a PNG's checksums verified, and
    greyscale ones decoded until one has a value other than 0 and 255, because pixels of a set without such a
    file are binary. Memory does not grow with the pixels. Raises DataError naming the file.
    """

    def __init__(self, path: Path, files: Sequence[ImageFile], what: str) -> None:
        self.path, self.what, self._files = path, what, chosen(path, files)
        self.grey_row: int | None = None
        self._hashes: list[bytes] = []
        first, self.lossy = self._check(0), 0
        for row, file in enumerate(self._progress()):
            header = self._check(row) if row else first
            check_same(first, self._files[0].name, header, file.name, str(path))
            self.lossy += header.lossy
        binary = first.channels == 1 and self.grey_row is None
        self.pixels = Pixels(*first.shape, "binary", 1) if binary else Pixels(*first.shape, "discrete")
        listing = (f"{h.hex()} {file.name}\n" for file, h in zip(self._files, self._hashes, strict=True))
        self.sha256 = hashlib.sha256("".join(listing).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._files)

    def label(self, row: int) -> str:
        """Return the name by which an error calls image ``row``."""
        return f"{self.path}: {self._files[row].name}"

    def read(self, rows: Sequence[int]) -> Tensor:
        """Return images uint8 [len(rows), C, H, W]. Raises DataError for a damaged or changed file."""
        with ThreadPoolExecutor(THREADS) as pool:
            return torch.from_numpy(np.stack(list(pool.map(self._decode, rows))))

    def _progress(self) -> Iterable[ImageFile]:
        return bar(self._files, desc=f"checking {self.path.name}", unit="image")

    def _bytes(self, row: int) -> bytes:
        with reading(self.label(row)):
            return self._files[row].read()

    def _check(self, row: int) -> Header:
        raw = self._bytes(row)
        header = inspect(raw, self.label(row))
        self._hashes.append(hashlib.sha256(raw).digest())
        if header.channels == 1 and self.grey_row is None and not is_binary(decode(raw, self.label(row))):
            self.grey_row = row
        return header

    def _decode(self, row: int) -> NDArray[np.uint8]:
        raw = self._bytes(row)
        if hashlib.sha256(raw).digest() != self._hashes[row]:
            raise DataError(f"{self.label(row)} has changed since it was checked: run the command again")
        return decode(raw, self.label(row))
