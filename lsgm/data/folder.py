"""The one reader of images by path (folder, zip, npz, npy): as a dataset with splits, or as a flat set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import __version__ as pillow_version
from torch import Tensor

from lsgm.data.arrays import ARRAYS, ArrayImages, image_arrays, read_array
from lsgm.data.decoded import (
    CheckedFiles,
    FileImages,
    Seen,
    Size,
    agreed,
    decoded,
    file_stamp,
    is_cached,
    opened,
    remembered,
    size_words,
)
from lsgm.data.imagefile import Convert, fitted, parse_convert, reading
from lsgm.data.images import ImageSet, sha256_of
from lsgm.data.listing import ImageFile, Listing, holds_images, list_files, list_one, once
from lsgm.data.splits import Role, Split, TooFewError, role_in, split_files, split_rows
from lsgm.errors import DataError
from lsgm.files.names import shown

__all__ = ["decode_files", "is_images", "open_images", "read_folder", "read_image"]

RULES = 1
"""Raised whenever files are checked, split or decoded by other rules."""


def is_images(path: Path) -> bool:
    """Return whether a path is one of images: a file by its suffix, a folder by an image in it, any depth."""
    if path.is_dir():
        return holds_images(path)
    return path.suffix.lower() in (*ARRAYS, ".zip")


def open_images(path: Path, convert: str = "") -> FileImages | ArrayImages:
    """Return the images of a folder, zip, npz or npy as one set, in order of name or row, at their own size.

    Every file is checked at once and decoded when its turn comes; ``convert`` is the words of `WORDS`.
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

    def compute() -> Seen:
        rows = CheckedFiles(listing, files, convert)
        trained = {rows.hashes[row] for row in parts.get("train", ())}
        shared = sum(rows.hashes[row] in trained for row in parts["test"])
        return Seen(decoded(listing.path, rows, parts, size), shared)

    return _kept(f"{size} {convert}", stamps, parts, compute)


def _whole(count: int) -> Split:
    return Split({"test": list(range(count))}, {"test": "all"})


def _kept(
    settings: str,
    stamps: Sequence[tuple[str, tuple[int, ...]]],
    parts: Mapping[str, Sequence[int]],
    compute: Callable[[], Seen],
) -> tuple[dict[str, Tensor], str, int]:
    counts = {split: len(rows) for split, rows in parts.items()}
    found = remembered(Seen, f"{RULES} {settings} {counts} {pillow_version}", stamps, compute)
    if not is_cached(found.key):  # deleted from the cache since
        found = compute()
    splits, sha256 = opened(found.key, counts)
    return splits, sha256, found.shared


def _image_set(path: Path, splits: dict[str, Tensor], sha256: str, split: Split, shared: int) -> ImageSet:
    height, width = next(iter(splits.values())).shape[2:]
    version = f"{size_words((int(height), int(width)))}+{sha256[:12]}"
    remark = split.sentence() + (
        f"; {shared:,} of the test images train too, byte for byte" if shared else ""
    )
    return ImageSet(path.resolve().name, version, sha256, "uint8", splits, carved=split.carved, remark=remark)


class _Arrays:
    """Arrays of one file, one after the other."""

    how, in_order = "", True

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
        """Return (height, width) of image ``row``."""
        array, at = self.places[row]
        return array.size(at)

    def label(self, row: int) -> str:
        """Return the name by which an error calls image ``row``."""
        array, at = self.places[row]
        return array.label(at)

    def content(self, row: int) -> str:
        """Return a text that two images share only where they are the same row of the same array."""
        array, at = self.places[row]
        return array.content(at)

    def row(self, row: int) -> NDArray[np.uint8]:
        """Return image ``row``, uint8 [C, H, W]."""
        array, at = self.places[row]
        return array.row(at)


def _read_arrays(path: Path, size: Size | None, *, few: bool) -> ImageSet:
    """Return the images of an npz or npy as a dataset."""
    with reading(str(path)):
        if not path.exists():
            raise DataError(f"{path} does not exist: give a folder, zip, npz or npy of images")
    roles = {name: role_in(name) for name in image_arrays(path)} if path.suffix.lower() == ".npz" else {}
    if "train" in roles.values() and {"val", "test"} & set(roles.values()):
        rows, parts, origin = _by_role(path, {name: role for name, role in roles.items() if role})
        split = split_rows(path, _numbers(len(rows)), parts, origin)
    else:
        rows = _Arrays([read_array(path)])
        try:
            split = split_rows(path, _numbers(len(rows)), {"train": range(len(rows))})
        except TooFewError:
            if not few:
                raise
            split = _whole(len(rows))

    def compute() -> Seen:
        return Seen(decoded(path, rows, split.parts, size))

    stamps = [(str(path.resolve()), file_stamp(path))]
    splits, sha256, _ = _kept(f"{size}", stamps, split.parts, compute)
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


def _numbers(count: int) -> list[str]:
    return [str(row) for row in range(count)]
