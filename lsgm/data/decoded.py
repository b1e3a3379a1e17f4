"""Decoded images in the cache: a memory-mapped file for each content, so that no set gets another's."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import disk_usage
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import __version__ as pillow_version
from torch import Tensor

from lsgm.config import require
from lsgm.data.imagefile import Convert, Header, Room, decode, fitted, inspect, is_binary, reading
from lsgm.data.images import sha256_of
from lsgm.data.listing import ImageFile, Listing, once
from lsgm.errors import DataError
from lsgm.files.arrays import map_array
from lsgm.files.names import shown
from lsgm.files.text import read_record
from lsgm.files.write import atomic_path, cache_dir, exclusive
from lsgm.generative import Pixels
from lsgm.progress import bar
from lsgm.structure import to_dict

__all__ = [
    "CheckedFiles",
    "FileImages",
    "Rows",
    "Seen",
    "Size",
    "agreed",
    "decoded",
    "file_stamp",
    "is_cached",
    "opened",
    "remembered",
    "size_words",
    "threads",
]

T = TypeVar("T")
Size = tuple[int, int]
"""(height, width)."""
_HAS_CTIME = os.name != "nt"
_SETTLED = 2_000_000_000
"""Nanoseconds for which a file must have been left alone before its dates stand for its content."""


@dataclass(frozen=True)
class Seen:
    """What is remembered of files: the key of their images, and how many test images train as well."""

    key: str
    shared: int = 0

    def __post_init__(self) -> None:
        require(re.fullmatch("[0-9a-f]{24}", self.key) is not None, f"key is '{self.key}'")


@dataclass(frozen=True)
class _Note:
    """What lies beside decoded images."""

    sha256: str
    source: str = ""

    def __post_init__(self) -> None:
        require(re.fullmatch("[0-9a-f]{64}", self.sha256) is not None, f"sha256 is '{self.sha256}'")


class Rows(Protocol):
    """Images in an order, checked, each decoded when it is asked for."""

    channels: int
    how: str
    """The words of ``--convert`` by which their pixels are what they are, none where they need none."""
    in_order: bool
    """Whether a row is slow to get after a later one, as in a compressed array."""

    def __len__(self) -> int: ...

    def size(self, row: int) -> Size:
        """Return (height, width) of image ``row``."""
        ...

    def label(self, row: int) -> str:
        """Return the name by which an error calls image ``row``."""
        ...

    def content(self, row: int) -> str:
        """Return a text that two images share only where their pixels are the same."""
        ...

    def row(self, row: int) -> NDArray[np.uint8]:
        """Return image ``row``, uint8 [C, H, W]."""
        ...


def size_words(size: Size) -> str:
    """Return ``64px`` for a square and ``64x96px`` (height first) for a rectangle."""
    height, width = size
    return f"{height}px" if height == width else f"{height}x{width}px"


def decoded(path: Path, rows: Rows, splits: Mapping[str, Sequence[int]], size: Size | None) -> str:
    """Decode the images of each split into a file uint8 ``[N, C, H, W]``; return the key that opens it.

    Images are brought to ``size`` (`fitted`), or keep the one size that all have. Decoding happens once, on
    all cores; the cached file is found again by the content of the images in their order, never by names or
    dates. Sets larger than memory work: nothing is held in it.

    Raises DataError for images of different or too small sizes, and for a disk that is too small.
    """
    size = agreed(path, rows, size)
    counts = [len(part) for part in splits.values()]
    order = [row for part in splits.values() for row in part]
    about = f"2 {size} {rows.channels} {counts} {pillow_version} {rows.how}"
    digest = hashlib.sha256(about.encode())
    for row in order:
        digest.update(f"\n{rows.content(row)}".encode())
    key = digest.hexdigest()[:24]
    pixels, note = _places(key)
    if not note.exists():
        with exclusive(note):
            if not note.exists():
                sha256 = _decode_all(path, rows, order, counts, size, pixels)
                with atomic_path(note) as temporary:
                    temporary.write_text(json.dumps(asdict(_Note(sha256, repr(str(path))))))
    return key


def opened(key: str, counts: Mapping[str, int]) -> tuple[dict[str, Tensor], str]:
    """Return the decoded images cached under a key by split, and their sha256.

    Raises DataError for a file that is truncated or corrupted.
    """
    pixels, note = _places(key)
    damaged = DataError(f"the cached {pixels} is truncated or corrupted; delete it and {note.name}")
    try:
        rows, about = map_array(pixels), read_record(_Note, note)
    except DataError as error:
        if isinstance(error.__cause__, PermissionError):
            raise
        raise damaged from error
    if rows.dtype != np.uint8 or rows.ndim != 4 or len(rows) != sum(counts.values()):
        raise damaged
    parts = torch.split(torch.from_numpy(rows), list(counts.values()))
    return dict(zip(counts, parts, strict=True)), about.sha256


def is_cached(key: str) -> bool:
    """Return whether decoded images lie under a key."""
    return all(place.exists() for place in _places(key))


def _places(key: str) -> tuple[Path, Path]:
    base = cache_dir() / "derived"
    return base / f"images-{key}.npy", base / f"images-{key}.json"


def agreed(path: Path, rows: Rows, size: Size | None) -> Size:
    """Return the size of all images; refuse those that have none in common or are smaller than asked."""
    if size is None:
        first = rows.size(0)
        for row in range(len(rows)):
            if rows.size(row) != first:
                raise DataError(
                    f"{rows.label(row)} is {_width_first(rows.size(row))} and other images are "
                    f"{_width_first(first)}: give a data.image-size to which all are cropped and reduced"
                )
        return first
    for row in range(len(rows)):
        height, width = rows.size(row)
        if height < size[0] or width < size[1]:
            raise DataError(
                f"{rows.label(row)} is {_width_first((height, width))}, smaller than "
                f"{size[0] if size[0] == size[1] else _width_first(size)}; choose a smaller data.image-size"
            )
    return size


def _width_first(size: Size) -> str:
    return f"{size[1]} x {size[0]}"


def _decode_all(
    path: Path, rows: Rows, order: Sequence[int], counts: list[int], size: Size, pixels: Path
) -> str:
    shape = (len(order), rows.channels, *size)
    pixels.parent.mkdir(parents=True, exist_ok=True)
    need, free = int(np.prod(shape)), disk_usage(pixels.parent).free
    if need > free:
        raise DataError(
            f"{path} needs {need / 1e9:.1f} GB decoded, {pixels.parent} has {free / 1e9:.1f} GB left; "
            "set LSGM_CACHE to a larger disk"
        )
    # In the order in which they lie: rows of a compressed array come quickly in that order only.
    walk = sorted((row, place) for place, row in enumerate(order))
    with atomic_path(pixels) as temporary:
        out = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        _reserve(temporary)

        def one(pair: tuple[int, int]) -> None:
            row, place = pair
            out[place] = fitted(rows.row(row), size)

        with (
            ThreadPoolExecutor(1 if rows.in_order else threads()) as pool,
            bar(total=len(walk), desc="decoding images") as progress,
        ):
            for start in range(0, len(walk), BLOCK):  # bounded, so that a bad file stops the work soon
                block = walk[start : start + BLOCK]
                list(pool.map(one, block))
                progress.update(len(block))
        out.flush()
        return sha256_of(torch.split(torch.from_numpy(out), counts))


def _reserve(path: Path) -> None:
    """Take the room of a file on the disk: a disk that fills up under mapped memory ends the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, path.stat().st_size))


def file_stamp(path: Path) -> tuple[int, ...]:
    """Return a file's dates of change, device, inode and size."""
    about = path.stat()
    return about.st_mtime_ns, about.st_ctime_ns, about.st_dev, about.st_ino, about.st_size


def remembered(
    cls: type[T], settings: str, stamps: Sequence[tuple[str, tuple[int, ...]]], compute: Callable[[], T]
) -> T:
    """Return what ``compute`` found of files before, where it is sure that they are still the same.

    A file that keeps device, inode, size, date of content and date of status (ctime, which no program can
    set) has not been written to, copied over or put in place of another. What is computed is remembered only
    where each file has been left alone for two seconds, because dates have a grain; and never on Windows,
    whose ctime is the date of creation. ``settings`` is whatever else the result depends on, and ``cls`` the
    dataclass of what was found; a note that is none of these is made anew.
    """
    now = time.time_ns()
    lines = [f"{name} {stamp}\n" for name, stamp in stamps]
    settled = all(stamp and max(stamp[:2]) < now - _SETTLED for _, stamp in stamps)
    digest = hashlib.sha256(settings.encode("utf-8", "surrogateescape"))
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape"))
    note = cache_dir() / "derived" / f"seen-{digest.hexdigest()[:24]}.json"
    if settled and _HAS_CTIME:
        with contextlib.suppress(DataError):
            return read_record(cls, note)
    found = compute()
    if settled and _HAS_CTIME:
        with atomic_path(note) as temporary:
            temporary.write_text(json.dumps(to_dict(found)))
    return found


# A set of image files, in a folder or in a zip: every file is checked once and decoded when asked for

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
