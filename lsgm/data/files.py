"""A set of image files, in a folder or in a zip: every file is checked once and decoded when asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsgm.data.convert import Convert
from lsgm.data.damage import reading
from lsgm.data.imagefile import Header, decode, inspect, is_binary
from lsgm.data.listing import ImageFile, Listing, once
from lsgm.data.room import Room
from lsgm.errors import DataError
from lsgm.files.shown import shown
from lsgm.generative import Pixels
from lsgm.progress import bar

__all__ = ["CheckedFiles", "FileImages", "threads"]

BLOCK = 1024
"""Files looked at before the next are begun, so that a bad one stops the work soon."""
_ROOM = Room(2**29)
_COPIES = 16
"""Bytes for each pixel while an image is decoded, several copies of up to four channels."""


def threads() -> int:
    """Return how many files are read at once; Pillow decodes and hashlib hashes outside of Python's lock."""
    return min(16, max(4, os.cpu_count() or 1))


class CheckedFiles:
    """Image files in a given order, each read once at the beginning: its bytes hashed, its header checked.

    A set has one number of channels: 1 where every file is greyscale, 3 where every file is RGB. Sizes may
    differ. Memory grows by a few hundred bytes for each file, not with the pixels.

    Raises DataError naming the file for one that is damaged or refused (`inspect`), and for a mixture of
    greyscale and RGB, unless ``convert`` has ``grey``: then all are RGB.
    """

    in_order = False

    def __init__(self, listing: Listing, files: Sequence[ImageFile], convert: Convert) -> None:
        self.listing, self.files, self.convert = listing, list(files), convert
        self.sizes: list[tuple[int, int]] = []
        self.hashes: list[bytes] = []
        self.lossy = 0
        self.converted = False
        """Whether any of the images is not as its file has it."""
        self._first_of: dict[int, int] = {}
        counts = {1: 0, 3: 0}
        progress = bar(total=len(self.files), desc=f"checking {shown(listing.path.name)}", unit="image")
        with progress, ThreadPoolExecutor(threads()) as pool:
            for start in range(0, len(self.files), BLOCK):
                rows = range(start, min(start + BLOCK, len(self.files)))
                for row, (header, digest) in zip(rows, pool.map(self._check, rows), strict=True):
                    self.sizes.append((header.height, header.width))
                    self.hashes.append(digest)
                    self.lossy += header.lossy
                    self.converted |= header.converted
                    counts[header.channels] += 1
                    self._first_of.setdefault(header.channels, row)
                    self.accept(row)
                progress.update(len(rows))
        self.channels = self._one_kind(counts)
        self.how = str(convert) if self.converted else ""

    def accept(self, row: int) -> None:
        """Look at image ``row``, whose size is known by now; raise DataError to refuse it."""

    def __len__(self) -> int:
        return len(self.files)

    def label(self, row: int) -> str:
        """Return the name by which an error calls image ``row``."""
        return self.listing.label(self.listing.place(self.files[row]))

    def size(self, row: int) -> tuple[int, int]:
        """Return (height, width) of image ``row``."""
        return self.sizes[row]

    def name(self, row: int) -> str:
        """Return where image ``row`` lies below the path of its set, fit to be printed."""
        return shown(self.listing.place(self.files[row]))

    def content(self, row: int) -> str:
        """Return a text that two images share only where their files' bytes are the same."""
        return self.hashes[row].hex()

    def row(self, row: int) -> NDArray[np.uint8]:
        """Return image ``row``, uint8 [C, H, W]. Raises DataError for a damaged or changed file."""
        height, width = self.sizes[row]
        with _ROOM.taken(self.files[row].size + _COPIES * height * width):
            raw = self._bytes(row)
            if hashlib.sha256(raw).digest() != self.hashes[row]:
                raise DataError(f"{self.label(row)} has changed since it was checked: run the command again")
            return decode(raw, self.label(row), self.convert, self.channels)

    def _one_kind(self, counts: dict[int, int]) -> int:
        if not (counts[1] and counts[3]):
            return 1 if counts[1] else 3
        if "grey" in self.convert:
            self.converted = True
            return 3
        grey, colour = (self.name(self._first_of[channels]) for channels in (1, 3))
        raise DataError(
            f"{self.listing.path} mixes greyscale and RGB: {counts[1]:,} grey ({grey}) and {counts[3]:,} RGB "
            f"({colour}): write all images alike, or give --convert grey, which makes all RGB"
        )

    def _bytes(self, row: int) -> bytes:
        label = self.label(row)
        try:
            with reading(label):
                return self.files[row].read()
        except DataError as error:
            if str(error).startswith(label):
                raise
            why = str(error).partition(";")[0]
            raise DataError(f"{label} cannot be read ({why}): replace it") from error

    def _check(self, row: int) -> tuple[Header, bytes]:
        with _ROOM.taken(2 * self.files[row].size):
            raw = self._bytes(row)
            return inspect(raw, self.label(row), self.convert), hashlib.sha256(raw).digest()


class FileImages(CheckedFiles):
    """Image files of one size as one set; its sha256 covers names and bytes, in order, and conversions.

    Beyond what `CheckedFiles` does, greyscale files are decoded until one has a value other than 0 and 255,
    because pixels of a set without such a file are binary. Raises DataError naming two files whose sizes
    differ.
    """

    def __init__(self, listing: Listing, convert: Convert) -> None:
        self.path, self.what = listing.path, listing.what
        files = once(listing, listing.files)
        listing.say()
        super().__init__(listing, files, convert)
        self.grey_row: int | None = None
        if self.channels == 1:
            rows = range(len(self))
            self.grey_row = next((row for row in rows if not is_binary(self.row(row))), None)
        binary = self.channels == 1 and self.grey_row is None
        shape = (self.channels, *self.sizes[0])
        self.pixels = Pixels(*shape, "binary", 1) if binary else Pixels(*shape, "discrete")
        digest = hashlib.sha256()
        for file, content in zip(self.files, self.hashes, strict=True):
            digest.update(f"{content.hex()} {file.name}\n".encode("utf-8", "surrogateescape"))
        digest.update(self.how.encode())
        self.sha256 = digest.hexdigest()

    def accept(self, row: int) -> None:
        """Refuse an image of another size than the first one's."""
        if self.sizes[row] != self.sizes[0]:
            (height, width), (other_height, other_width) = self.sizes[0], self.sizes[row]
            raise DataError(
                f"{self.path}: {self.name(0)} is {width} x {height} pixels and {self.name(row)} is "
                f"{other_width} x {other_height}: the images of a set have one size, bring them to it first"
            )

    def read(self, rows: Sequence[int]) -> Tensor:
        """Return images uint8 [len(rows), C, H, W]. Raises DataError for a damaged or changed file."""
        with ThreadPoolExecutor(threads()) as pool:
            return torch.from_numpy(np.stack(list(pool.map(self.row, rows))))
