"""The one reader of images by path (folder, zip, npz, npy): as a dataset with splits, or as a flat set.

A set of image files is checked whole before anything else, and each file decoded when it is asked for.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsgm.config import Convert, parse_convert
from lsgm.data.arrays import ARRAYS, ArrayImages, image_arrays, read_array
from lsgm.data.cache import (
    Size,
    agreed,
    decoded,
    file_stamp,
    size_words,
)
from lsgm.data.decoding import Asked, Team
from lsgm.data.imagefile import fitted, is_binary, reading
from lsgm.data.images import ImageSet, sha256_of
from lsgm.data.listing import ImageFile, Listing, holds_images, list_files, list_one, once
from lsgm.data.splits import Role, Split, TooFewError, role_in, split_files, split_rows
from lsgm.errors import DataError
from lsgm.files.names import shown
from lsgm.generative import Pixels
from lsgm.progress import bar

RULES = 1
"""Raised whenever files are checked, split or decoded by other rules."""


class CheckedFiles:
    """Image files in a given order, each read once at the beginning: its bytes hashed, its header checked.

    A set has one number of channels: 1 where every file is greyscale, 3 where every file is RGB. Sizes may
    differ. Memory grows by a few hundred bytes for each file, not with the pixels.

    Raises DataError naming the file for one that is damaged or refused (`inspect`), and for a mixture of
    greyscale and RGB, unless ``convert`` has ``grey``: then all are RGB.
    """

    def __init__(self, listing: Listing, files: Sequence[ImageFile], convert: Convert) -> None:
        self.listing, self.files, self.convert = listing, list(files), convert
        self.sizes: list[tuple[int, int]] = []
        self.hashes: list[bytes] = []
        self.lossy = 0
        self.converted = False
        """Whether any of the images is not as its file has it."""
        self._first_of: dict[int, int] = {}
        counts = {1: 0, 3: 0}
        # Where a folder's files lie other processes can open them; of a zip there is one reader.
        self._sources = [file.real or file.read for file in self.files]
        self._names = [listing.place(file) for file in self.files]
        total, moved = sum(file.size for file in self.files), all(file.real for file in self.files)
        self._team = Team(str(listing.path), len(self.files), total, movable=moved)
        asked = map(Asked, self._sources, self._names, (file.size for file in self.files))
        desc = f"checking {shown(listing.path.name)}"
        with bar(total=len(self.files), desc=desc, unit="image") as progress:
            for row, (header, digest) in enumerate(self._team.look(asked, convert)):
                self.sizes.append((header.height, header.width))
                self.hashes.append(digest)
                self.lossy += header.lossy
                self.converted |= header.converted
                counts[header.channels] += 1
                self._first_of.setdefault(header.channels, row)
                self.accept(row)
                progress.update()
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

    def each(self, rows: Iterable[int], size: Size | None = None) -> Iterator[NDArray[np.uint8]]:
        """Yield images ``rows`` uint8 [C, H, W], brought to ``size`` where one is given, several at a time.

        Raises DataError for a damaged or changed file.
        """
        return chain.from_iterable(self.pixels_of(rows, size))

    def row(self, row: int) -> NDArray[np.uint8]:
        """Return image ``row``, uint8 [C, H, W]. Raises DataError for a damaged or changed file."""
        return next(self.each([row]))

    def pixels_of(self, rows: Iterable[int], size: Size | None = None) -> Iterator[Any]:
        """Yield what `each` does, some together: arrays [N, C, H, W], or lists where sizes differ."""
        asked = (
            Asked(
                self._sources[row],
                self._names[row],
                self.files[row].size,
                self.hashes[row],
                math.prod(self.sizes[row]),
            )
            for row in rows
        )
        return self._team.pixels(asked, self.convert, self.channels, size)

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
            images = enumerate(self.each(range(len(self))))
            self.grey_row = next((row for row, pixels in images if not is_binary(pixels)), None)
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
        return torch.from_numpy(np.concatenate(list(self.pixels_of(rows))))


def is_images(path: Path) -> bool:
    """Return whether a path is one of images: a file by its suffix, a folder by an image in it, any depth."""
    if path.is_dir():
        return holds_images(path)
    return path.suffix.lower() in (*ARRAYS, ".zip")


def open_images(path: Path, convert: str = "") -> FileImages | ArrayImages:
    """Return the images of a folder, zip, npz or npy as one set, in order of name or row, at their own size.

    Every file is checked at once and decoded when its turn comes; ``convert`` is the words of `CONVERSIONS`.
    Raises DataError naming the file that is missing, damaged, or no 8-bit greyscale or RGB image of the size
    of the others, and ConfigError for an unknown word.
    """
    words = parse_convert(convert)
    if path.suffix.lower() in ARRAYS and not path.is_dir():
        return read_array(path)
    return FileImages(list_files(path), words)


def read_folder(path: Path, size: Size | None, convert: str = "", *, few: bool = False) -> ImageSet:
    """Return the images of a folder, zip, npz or npy at ``size``, split by name, memory-mapped.

    The splits are those of `split_files`; arrays of an npz are told apart by their names (``x_train``,
    ``test_images``), rows of a single one by the hash of their numbers. Without a size all images must have
    one, which they keep. What is left out is said on standard error. With ``few`` a flat set from which no
    splits can be taken is one of them, ``test``: it can be measured, though not trained on.

    Raises DataError where an image is refused or too small, and where too few are there to train on.
    """
    words = parse_convert(convert)
    if path.suffix.lower() in ARRAYS and not path.is_dir():
        return _read_arrays(path, size, few=few)
    listing = list_files(path)
    try:
        files, split = split_files(listing)
    except TooFewError:
        if not few:
            raise
        files = once(listing, listing.files)
        split = _whole(len(files))
    listing.say()
    splits, sha256, shared = decode_files(listing, files, split.parts, size, words)
    return _image_set(path, splits, sha256, split, shared)


def read_image(path: Path, size: Size | None, convert: str = "") -> ImageSet:
    """Return one image file at ``size`` as a set whose only split is ``test``.

    Raises DataError where it is refused or too small.
    """
    listing = list_one(path)
    rows = CheckedFiles(listing, listing.files, parse_convert(convert))
    size = agreed(path, rows, size)
    test = torch.from_numpy(fitted(rows.row(0), size).copy())[None]
    sha256 = sha256_of(test)
    return ImageSet(path.name, f"{size_words(size)}+{sha256[:12]}", sha256, "uint8", {"test": test})


def decode_files(
    listing: Listing,
    files: Sequence[ImageFile],
    parts: Mapping[str, Sequence[int]],
    size: Size | None,
    convert: Convert,
) -> tuple[dict[str, Tensor], str, int]:
    """Return files by split, decoded at ``size``, the pixels' sha256, and how many test files train has too.

    The last is counted byte for byte. Raises DataError where an image is refused or too small.
    """
    stamps = (
        [(file.name, file.stamp) for file in files]
        if listing.path.is_dir()
        else [(str(listing.path.resolve()), file_stamp(listing.path))]
    )

    def look() -> tuple[CheckedFiles, int]:
        rows = CheckedFiles(listing, files, convert)
        trained = {rows.hashes[row] for row in parts.get("train", ())}
        return rows, sum(rows.hashes[row] in trained for row in parts["test"])

    return decoded(listing.path, parts, size, f"{RULES} {size} {convert}", stamps, look)


def _whole(count: int) -> Split:
    return Split({"test": list(range(count))}, {"test": "all"})


def _image_set(path: Path, splits: dict[str, Tensor], sha256: str, split: Split, shared: int) -> ImageSet:
    height, width = next(iter(splits.values())).shape[2:]
    version = f"{size_words((int(height), int(width)))}+{sha256[:12]}"
    remark = split.sentence() + (
        f"; {shared:,} of the test images train too, byte for byte" if shared else ""
    )
    return ImageSet(path.resolve().name, version, sha256, "uint8", splits, carved=split.carved, remark=remark)


class _Arrays:
    """Arrays of one file, one after the other."""

    how = ""

    def __init__(self, arrays: Sequence[ArrayImages]) -> None:
        self.arrays = arrays
        self.places = [(array, row) for array in arrays for row in range(len(array))]
        first = arrays[0]
        self.channels = first.channels
        for other in arrays:
            if other.channels != first.channels:
                raise DataError(
                    f"{first.label(0)} has {first.channels} channels and {other.label(0)} {other.channels}: "
                    "write all images of a set alike"
                )

    def __len__(self) -> int:
        return len(self.places)

    def size(self, row: int) -> Size:
        array, at = self.places[row]
        return array.size(at)

    def label(self, row: int) -> str:
        array, at = self.places[row]
        return array.label(at)

    def content(self, row: int) -> str:
        array, at = self.places[row]
        return array.content(at)

    def each(self, rows: Iterable[int], size: Size | None = None) -> Iterator[NDArray[np.uint8]]:
        for array, at in map(self.places.__getitem__, rows):
            yield array.row(at) if size is None else fitted(array.row(at), size)


def _read_arrays(path: Path, size: Size | None, *, few: bool) -> ImageSet:
    """Return the images of an npz or npy as a dataset."""
    with reading(str(path)):
        if not path.exists():
            raise DataError(f"{path} does not exist: give a folder, zip, npz or npy of images")
    roles = {name: role_in(name) for name in image_arrays(path)} if path.suffix.lower() == ".npz" else {}
    if "train" in roles.values() and {"val", "test"} & set(roles.values()):
        rows, parts, origin = _by_role(path, {name: role for name, role in roles.items() if role})
        split = split_rows(path, list(map(str, range(len(rows)))), parts, origin)
    else:
        rows = _Arrays([read_array(path)])
        try:
            split = split_rows(path, list(map(str, range(len(rows)))), {"train": range(len(rows))})
        except TooFewError:
            if not few:
                raise
            split = _whole(len(rows))

    stamps = [(str(path.resolve()), file_stamp(path))]
    splits, sha256, _ = decoded(path, split.parts, size, f"{RULES} {size}", stamps, lambda: (rows, 0))
    return _image_set(path, splits, sha256, split, 0)


def _by_role(path: Path, roles: Mapping[str, Role]) -> tuple[_Arrays, dict[Role, range], dict[Role, str]]:
    """Return the arrays of an npz that are named after splits, which rows of them each is, and the names."""
    parts: dict[Role, range] = {}
    origin: dict[Role, str] = {}
    arrays: list[ArrayImages] = []
    start = 0
    for name, role in roles.items():
        if role in parts:
            raise DataError(
                f"{path} has two arrays for {role}, {shown(origin[role])} and {shown(name)}: keep one of them"
            )
        arrays.append(read_array(path, name))
        parts[role], origin[role] = range(start, start + len(arrays[-1])), name
        start += len(arrays[-1])
    return _Arrays(arrays), parts, origin
