"""Where drawn images are kept, as they are drawn: a folder of PNGs, or one npz in ADM's format."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from lsgm.errors import DataError, UserError
from lsgm.files.arrays import read_arrays
from lsgm.files.limits import DOCUMENT
from lsgm.files.names import said, shown
from lsgm.files.regular import open_regular, open_zip, read_bytes
from lsgm.files.write import UnwritableError, atomic_path, claim, open_update, remedy
from lsgm.generative import Pixels

BROKEN = (ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What a damaged, encrypted or otherwise packed zip raises; NotImplementedError is a RuntimeError."""
DAMAGE = (OSError, *BROKEN)
MAIN = "arr_0.npy"
LARGEST = 2**62
"""Bytes of images in one npz, less than a file's length can be."""
KEY = "pass"
"""What an npz calls the key of its images; in a folder it is a hidden file."""


class Output:
    """A place for images, each at its number; several processes may write at once. This one keeps nothing.

    Number k is the image of the k-th seed that the place was opened with.
    """

    def prepare(self, done: Collection[int]) -> bool:
        """Make the place ready, by one process; return whether it holds the images of those numbers.

        Raises UserError for a place that holds other images.
        """
        return True

    def holds(self, number: int) -> bool:
        """Return whether there is room taken for image ``number``, once the place is ready.

        In a folder that is its file; an npz has room for all, and its user knows which ones are written.
        """
        return False

    def write(self, index: NDArray[np.int64], images: Tensor) -> None:
        """Keep images uint8 [B, C, H, W] as those numbered ``index`` [B]; they are on disk on return."""

    def read(self, index: Sequence[int]) -> Tensor:
        """Return written images uint8 [len(index), C, H, W]. Raises DataError where they cannot be read."""
        raise DataError("no images were kept")

    def finish(self) -> None:
        """Put everything in its final form, by one process once all have written."""

    def discard(self) -> None:
        """Leave nothing of a place that was made ready and to which no image was written."""


def open_output(
    save: Path | None, key: str, seeds: Sequence[int], pixels: Pixels, *, digits: int | None = None
) -> Output:
    """Return the place that ``save`` names: an npz by its suffix, else a folder; nothing is kept for None.

    ``key`` tells the images from others: a place of another key is never written to. A folder may grow by
    other seeds under its key, and an npz by seeds after its last one. ``digits`` of a file's name: as many
    as keep all of the seeds in order. Raises UserError for a suffix of something else.
    """
    if save is None:
        return Output()
    claim(save)
    if save.suffix.lower() == ".npz":
        return _Npz(save, key, len(seeds), pixels)
    if save.suffix.lower() in (".zip", ".npy", ".png", ".jpg"):
        raise UserError(f"images cannot be kept as {save.name}: name a folder for PNGs, or a file of .npz")
    return _Folder(save, key, seeds, pixels, digits or max(6, len(str(max(seeds)))))


@contextlib.contextmanager
def keeping(place: Path) -> Iterator[None]:
    """Turn what the disk refuses, for being full for one, into a UserError that names the place."""
    try:
        yield
    except (OSError, UnwritableError) as error:
        # Of what is there and cannot be read, or is no file of ours, its own sentence is said.
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        raise UserError(
            f"{place} cannot be written ({cause.strerror or cause}): what is there stays; {remedy(cause)}, "
            "or name another place, and run the command again"
        ) from error


class _Folder(Output):
    """PNGs named by their seeds, with as many digits as keep them in order, and a hidden note of the key."""

    def __init__(self, folder: Path, key: str, seeds: Sequence[int], pixels: Pixels, digits: int) -> None:
        self.folder, self.key, self.seeds, self.pixels, self.digits = folder, key, seeds, pixels, digits

    def prepare(self, done: Collection[int]) -> bool:
        note = self.folder / f".{KEY}"
        with keeping(self.folder):
            if note.is_file() and read_bytes(note, DOCUMENT) == self.key.encode():
                self._sweep()
                return all(self.holds(number) for number in done)
            if self.folder.exists() and not self.folder.is_dir():
                raise UserError(f"{self.folder} is a file and PNGs need a folder: name another place")
            if self.folder.exists() and any(self.folder.iterdir()):
                raise UserError(
                    f"{self.folder} is not empty and what is in it are other images: name another place, or "
                    "remove it"
                )
            with atomic_path(note) as temporary:
                temporary.write_text(self.key, encoding="utf-8")
        return False

    def holds(self, number: int) -> bool:
        try:
            about = self._path(number).lstat()
        except FileNotFoundError:
            return False
        return stat.S_ISREG(about.st_mode) and about.st_size > 0  # a link is drawn again, and replaced

    def write(self, index: NDArray[np.int64], images: Tensor) -> None:
        with keeping(self.folder):
            for number, image in zip(index.tolist(), images, strict=True):
                save_image(image, self._path(number))

    def read(self, index: Sequence[int]) -> Tensor:
        return torch.stack([self._read(self._path(number)) for number in index])

    def discard(self) -> None:
        if {path.name for path in self.folder.iterdir()} <= {f".{KEY}"}:
            (self.folder / f".{KEY}").unlink(missing_ok=True)
            self.folder.rmdir()

    def _read(self, path: Path) -> Tensor:
        try:
            with open_regular(path) as file, Image.open(file, formats=("PNG",)) as image:
                if (image.height, image.width) != self.pixels.shape[1:]:
                    raise ValueError(f"it has {image.width} x {image.height} pixels")
                pixels = np.array(image).reshape(*self.pixels.shape[1:], self.pixels.channels)
            if pixels.dtype != np.uint8:
                raise ValueError(f"it is of {pixels.dtype}")
        except UserError:
            raise
        except Exception as error:  # Pillow has no end of kinds for what is damaged
            why = "it is no PNG" if isinstance(error, UnidentifiedImageError) else said(error)
            raise DataError(f"{path} cannot be read ({why}): remove it and run the command again") from error
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def _sweep(self) -> None:
        """Remove what a kill has left unfinished."""
        for leftover in self.folder.glob(".*.png.*"):
            leftover.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.seeds[number]:0{self.digits}d}.png"


class _Npz(Output):
    """arr_0 uint8 [N, H, W, C], filled row by row in a plain file and then put into an npz beside its key.

    C is 1 for greyscale, where ADM's own files know colours only.
    """

    def __init__(self, path: Path, key: str, count: int, pixels: Pixels) -> None:
        self.path, self.key = path, key
        self.shape = (count, pixels.height, pixels.width, pixels.channels)
        self.partial = path.with_name(f".{path.name}.{key[:16]}.partial")
        self._row_bytes = math.prod(self.shape[1:])

    def prepare(self, done: Collection[int]) -> bool:
        if math.prod(self.shape) >= LARGEST:
            raise UserError(
                f"{self.shape[0]:,} images are more than one file can hold: name a folder for PNGs, or draw "
                "some of them with another first seed"
            )
        with keeping(self.path):
            if self.partial.is_file():
                return self._grow()
            if self._is_finished():
                return len(done) >= self.shape[0] or self._reopen()
            if self.path.exists():
                raise UserError(
                    f"{self.path} is there and is of other images: name another place, or remove it"
                )
            with atomic_path(self.partial) as temporary, temporary.open("wb") as file:
                self._write_header(file)
                file.truncate(file.tell() + self.shape[0] * self._row_bytes)
        return False

    def holds(self, number: int) -> bool:
        return self.partial.is_file() or self.path.is_file()

    def write(self, index: NDArray[np.int64], images: Tensor) -> None:
        rows = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        # Without a buffer, which would write back what it has read of rows between these, and undo what
        # other processes have written there meanwhile.
        with keeping(self.path), open_update(self.partial) as file:
            start = self._begun(file)[1]
            save_rows(file, [start + number * self._row_bytes for number in index.tolist()], rows)

    def read(self, index: Sequence[int]) -> Tensor:
        try:
            with self._rows() as file:
                start = self._begun(file)[1]
                rows = [_row(file, start + number * self._row_bytes, self._row_bytes) for number in index]
        except DAMAGE as error:
            raise DataError(
                f"{self.path} cannot be read ({said(error)}): remove it and run the command again"
            ) from error
        return torch.from_numpy(np.stack(rows).reshape(-1, *self.shape[1:])).permute(0, 3, 1, 2)

    def finish(self) -> None:
        if not self.partial.is_file():
            return
        with keeping(self.path):
            with atomic_path(self.path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
                archive.write(self.partial, MAIN)
                with archive.open(f"{KEY}.npy", "w") as member:
                    npy.write_array(member, np.array(self.key), allow_pickle=False)
            self.partial.unlink()

    def discard(self) -> None:
        self.partial.unlink(missing_ok=True)

    def _write_header(self, file: IO[bytes]) -> None:
        npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": self.shape})

    def _grow(self) -> bool:
        """Give the unfinished file room for all rows; the rows that it has stay where they are."""
        with open_update(self.partial) as file:
            rows, start = self._begun(file)
            if file.seek(0, 2) != start + rows * self._row_bytes:
                raise self._damaged("it has not the length that it says")
            self._refuse_fewer(rows)
            if rows < self.shape[0]:
                # NumPy leaves room in a header for the first axis to grow.
                file.truncate(start + self.shape[0] * self._row_bytes)
                file.seek(0)
                self._write_header(file)
        return True

    def _reopen(self) -> bool:
        """Make the unfinished file of a finished one that is to have more rows; that one stays till then."""
        try:
            self._unpack()
        except BROKEN as error:
            raise self._damaged(said(error)) from error
        return self._grow()

    def _unpack(self) -> None:
        with open_zip(self.path) as archive:
            with archive.open(MAIN) as rows:
                count, start = self._begun(rows)
            if archive.getinfo(MAIN).file_size != start + count * self._row_bytes:
                raise self._damaged("it has not the length that it says")
            self._refuse_fewer(count)
            with (
                archive.open(MAIN) as rows,
                atomic_path(self.partial) as temporary,
                temporary.open("wb") as file,
            ):
                shutil.copyfileobj(rows, file)

    def _refuse_fewer(self, rows: int) -> None:
        if rows > self.shape[0]:
            raise UserError(
                f"{self.path} has been begun for {rows:,} images and {self.shape[0]:,} are asked for now: "
                f"go on with {rows:,}, or name another file"
            )

    def _rows(self) -> IO[bytes]:
        if self.partial.is_file():
            return open_regular(self.partial)
        return open_zip(self.path).open(MAIN)

    def _is_finished(self) -> bool:
        try:
            if read_arrays(self.path, [KEY], limit=DOCUMENT).text(KEY) != self.key:
                return False
            with open_zip(self.path) as archive:
                return MAIN in archive.namelist()
        except (DataError, *DAMAGE):
            return False

    def _begun(self, file: IO[bytes]) -> tuple[int, int]:
        """Return the number of rows of an npy file, and where the first is. Raises DataError for others."""
        try:
            npy.read_magic(file)
            shape, by_columns, dtype = npy.read_array_header_1_0(file)
        except Exception as error:  # whatever damaged bytes make of it, TokenError and SyntaxError too
            raise self._damaged(str(error)) from error
        ours = len(shape) == 4 and shape[1:] == self.shape[1:] and 0 <= shape[0] < LARGEST
        if not ours or by_columns or dtype != np.uint8:
            raise self._damaged(f"it is {dtype} {list(shape)}")
        return int(shape[0]), file.tell()

    def _damaged(self, why: str) -> DataError:
        place = self.partial if self.partial.exists() else self.path
        why = shown(" ".join(why.split()))[:200]
        return DataError(f"{place} is damaged ({why}): remove it and run the command again")


def save_rows(file: IO[bytes], places: Sequence[int], rows: NDArray[np.uint8]) -> None:
    """Write each of the rows [B, ...] at its place in a file without a buffer."""
    for place, row in zip(places, rows, strict=True):
        file.seek(place)
        left = memoryview(row.tobytes())
        while left:
            # A full disk takes a part, and refuses the rest in a call of its own.
            left = left[file.write(left) :]


def _row(file: IO[bytes], at: int, size: int) -> NDArray[np.uint8]:
    file.seek(at, os.SEEK_SET)
    raw = file.read(size)
    if len(raw) < size:
        raise EOFError("its end is missing")
    return np.frombuffer(raw, dtype=np.uint8)


def tiled(images: Tensor, *, columns: int = 10, gap: int = 2, scale: int | None = None) -> Image.Image:
    """Return uint8 images [N, 1 or 3, H, W] as one picture, row by row on grey; small ones are enlarged."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 128, np.uint8)
    for k, picture in enumerate(images.permute(0, 2, 3, 1).cpu().numpy()):
        top, left = gap + k // columns * (height + gap), gap + k % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return _picture(sheet, scale if scale is not None else max(1, 64 // height))


def save_grid(
    images: Tensor, path: Path, *, columns: int = 10, gap: int = 2, scale: int | None = None
) -> Path:
    """Write `tiled` images as one PNG."""
    return _save(tiled(images, columns=columns, gap=gap, scale=scale), path)


def save_image(image: Tensor, path: Path) -> Path:
    """Write one uint8 image [1 or 3, H, W] as a PNG of its own size."""
    return _save(_picture(image.permute(1, 2, 0).cpu().numpy(), 1), path)


def _picture(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], factor: int) -> Image.Image:
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _save(picture: Image.Image, path: Path) -> Path:
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")
    return path
