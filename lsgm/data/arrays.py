"""Images that are rows of an array: an npz as this project and ADM write it (``arr_0``), or a plain npy."""

from __future__ import annotations

import hashlib
import math
import threading
import weakref
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from lsgm.data.imagefile import is_binary, reading
from lsgm.errors import DataError
from lsgm.files.limits import IMAGE_PIXELS, IMAGES
from lsgm.files.names import shown
from lsgm.files.regular import open_regular, open_zip
from lsgm.generative import Pixels
from lsgm.progress import bar, warn

ARRAYS = (".npz", ".npy")

MAIN = "arr_0.npy"
BLOCK = 1 << 24
"""Bytes looked at together."""
MEMBERS = 10_000
"""Arrays of an npz, at most."""


@dataclass(frozen=True)
class _ArrayHeader:
    """The header of an array in a file, and where its first byte is."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    start: int

    @property
    def layout(self) -> str:
        """``NHWC``, ``NCHW`` or ``NHW``; an empty string for what are no images."""
        if len(self.shape) == 3:
            return "NHW"
        if len(self.shape) != 4:
            return ""
        return "NHWC" if self.shape[3] in (1, 3) else "NCHW" if self.shape[1] in (1, 3) else ""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        size = dict(zip(self.layout, self.shape, strict=True))
        return size.get("C", 1), size["H"], size["W"]


def read_array(path: Path, name: str | None = None) -> ArrayImages:
    """Return the images of an npz or npy: uint8 [N, H, W, 3], [N, H, W, 1], [N, H, W], or channels first.

    Of an npz the array ``name`` is taken, by default ``arr_0`` or its only one that fits. Raises DataError
    naming the file for one that is damaged, holds no such array, or floats, or levels 0 and 1 in place of 0
    and 255.
    """
    with reading(str(path)):
        if not path.exists():
            raise DataError(f"{path} does not exist: give a folder, zip, npz or npy of images")
        if path.suffix.lower() == ".npy":
            return ArrayImages(path, open_regular(path), path.stat().st_size, "")
        archive = _archive(path)
        member = f"{name}.npy" if name is not None else _member(path, archive)
        size = archive.getinfo(member).file_size
        where = f": {shown(member[:-4])}"
        return ArrayImages(path, archive.open(member), size, where, named=name is not None)


def _archive(path: Path) -> zipfile.ZipFile:
    """Open an npz. Raises DataError for one that unpacks to more than it may say, or has too many members."""
    archive = open_zip(path)
    if (count := len(archive.infolist())) > MEMBERS:
        raise DataError(f"{path} has {count:,} members, and no npz has more than {MEMBERS:,}: replace it")
    for info in archive.infolist():
        # Of these a few bytes become gigabytes before any is counted, and no program writes them into an npz.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"{path}: {shown(info.filename)} is packed by another method than deflate: write it anew"
            )
    return archive


def image_arrays(path: Path) -> list[str]:
    """Return the names of the arrays of an npz that are images, in the order of the file."""
    with reading(str(path)), _archive(path) as archive:
        return [name for name, array in _arrays(archive).items() if array.layout and array.dtype == np.uint8]


def _arrays(archive: zipfile.ZipFile) -> dict[str, _ArrayHeader]:
    arrays: dict[str, _ArrayHeader] = {}
    for name in archive.namelist():
        if name.endswith(".npy"):
            with archive.open(name) as stream:
                arrays[name[:-4]] = _header(stream)
    return arrays


def _member(path: Path, archive: zipfile.ZipFile) -> str:
    arrays = _arrays(archive)
    fitting = [name for name, array in arrays.items() if array.layout and array.dtype == np.uint8]
    if MAIN in archive.namelist():
        if beside := [shown(name) for name in fitting if f"{name}.npy" != MAIN]:
            warn(f"{path}: left out are arrays of images beside arr_0: {len(beside)} ({beside[0]})")
        return MAIN
    if len(fitting) == 1:
        return f"{fitting[0]}.npy"
    held = ", ".join(f"{shown(name)} {a.dtype}{list(a.shape)}" for name, a in arrays.items()) or "nothing"
    raise DataError(
        f"{path} holds {held} and not one array of images: write them as arr_0, uint8 [N, height, width, 3]"
    )


def _header(stream: IO[bytes]) -> _ArrayHeader:
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    return _ArrayHeader(shape, dtype, fortran, stream.tell())


class ArrayImages:
    """Images that are rows of an array in a file; only the rows asked for are in memory.

    All bytes pass once at the beginning, by blocks: they are hashed (with the shape they make the sha256),
    which verifies an npz's checksum, and looked at for values. Rows of a compressed npz are fast to get in
    ascending order only, which is how a harness asks for them.
    """

    lossy, how = 0, ""

    def __init__(self, path: Path, stream: IO[bytes], size: int, array: str, *, named: bool = False) -> None:
        weakref.finalize(self, stream.close)
        self.path, self.what = path, f"an {path.suffix.lower()[1:]} file"
        self._where, self._stream, self._lock = f"{path}{array}", stream, threading.Lock()
        self._array = _header(stream)
        if wrong := _wrong(self._array, named=named):
            raise DataError(f"{self._where} {wrong}")
        self._row_bytes = math.prod(self._array.shape[1:])
        _hold(self._where, self._array, size)
        self.channels = self._array.image_shape[0]
        self.grey_row: int | None = None
        self.sha256 = self._scan()
        shape = self._array.image_shape
        binary = shape[0] == 1 and self.grey_row is None
        self.pixels = Pixels(*shape, "binary", 1) if binary else Pixels(*shape, "discrete")

    def __len__(self) -> int:
        return self._array.shape[0]

    def label(self, row: int) -> str:
        """Return the name by which an error calls image ``row``."""
        return f"{self._where}: image {row}"

    def size(self, row: int) -> tuple[int, int]:
        """Return (height, width) of image ``row``."""
        return self._array.image_shape[1:]

    def content(self, row: int) -> str:
        """Return a text that two images share only where they are the same row of the same array."""
        return f"{self.sha256} {row}"

    def row(self, row: int) -> NDArray[np.uint8]:
        """Return image ``row``, uint8 [C, H, W]."""
        return self.read([row])[0].numpy()

    def read(self, rows: Sequence[int]) -> Tensor:
        """Return images uint8 [len(rows), C, H, W]. Raises DataError for a file that has become shorter."""
        with self._lock, reading(self._where):
            flat = np.stack([self._row(row) for row in rows])
        shaped = flat.reshape(len(rows), *self._array.shape[1:])
        if self._array.layout == "NHWC":
            shaped = shaped.transpose(0, 3, 1, 2)
        return torch.from_numpy(shaped.reshape(len(rows), *self._array.image_shape))

    def _row(self, row: int) -> NDArray[np.uint8]:
        self._stream.seek(self._array.start + row * self._row_bytes)
        return np.frombuffer(self._exactly(self._row_bytes), dtype=np.uint8)

    def _exactly(self, count: int) -> bytes:
        parts, left = [], count
        while left and (part := self._stream.read(left)):
            parts.append(part)
            left -= len(part)
        if left:
            raise EOFError("its end is missing")
        return b"".join(parts)

    def _scan(self) -> str:
        """Return the sha256 of shape and bytes; find the first grey value and what cannot be images."""
        digest = hashlib.sha256(f"{self._array.layout}{list(self._array.shape)}".encode())
        most = 0
        for row, block in self._blocks():
            digest.update(block.data)
            most = max(most, int(block.max(initial=0)))
            if self.grey_row is None and not is_binary(block):
                self.grey_row = row + next(k for k, image in enumerate(block) if not is_binary(image))
        with reading(self._where):
            self._stream.read(1)  # at the end of a member zipfile compares its checksum
        if most <= 1:
            raise DataError(
                f"{self._where} has no value above {most}: give 0..255 in place of levels 0 and 1"
            )
        return digest.hexdigest()

    def _blocks(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        step = max(1, BLOCK // self._row_bytes)
        with bar(total=len(self), desc=f"checking {self.path.name}", unit="image") as progress:
            for start in range(0, len(self), step):
                rows = min(step, len(self) - start)
                with reading(self._where):
                    raw = self._exactly(rows * self._row_bytes)
                yield start, np.frombuffer(raw, dtype=np.uint8).reshape(rows, -1)
                progress.update(rows)


def _hold(where: str, array: _ArrayHeader, size: int) -> None:
    """Raise DataError for a header that claims more than the ``size`` bytes it stands in, or too much."""
    claimed = array.start + math.prod(array.shape)
    if claimed > size:
        raise DataError(
            f"{where} cannot be read (of the shape {list(array.shape)} its end is missing, {size:,} "
            f"bytes of {claimed:,}): replace it"
        )
    IMAGES.hold(where, array.shape[0])
    IMAGE_PIXELS.hold(f"an image of {where}", math.prod(array.image_shape[1:]))


def _wrong(array: _ArrayHeader, *, named: bool) -> str:
    """Return what keeps an array from being ready images and what to do about it, or an empty string.

    One that is ``named`` after a split is a set, however few its images are.
    """
    if len(array.shape) == 4 and array.shape[3] in (2, 4):
        return f"has {array.shape[3]} channels, the last one alpha: flatten it onto a background first"
    if not array.layout or min(array.shape) < 1:
        return f"has shape {list(array.shape)} and holds no images: write [N, height, width, 3]"
    if array.dtype != np.uint8:
        return f"is {array.dtype} and ready images are uint8 in 0..255: round them as the model means it"
    if array.layout == "NHW" and ((array.shape[0] == 3 and not named) or array.shape[2] in (1, 2, 3, 4)):
        shape = list(array.shape)
        return (
            f"has shape {shape}, one image or {shape[0]} grey ones of {shape[1]} x {shape[2]}: write "
            "array[None] for the one, array[..., None] for the others"
        )
    if array.fortran:
        return "is stored column by column: write np.ascontiguousarray of it"
    return ""
