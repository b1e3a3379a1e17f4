"""CIFAR-10: the official python archive, read without executing it, or a mirror of lossless WebP sheets."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import tarfile
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lsgm.data.cache import cached_set
from lsgm.data.dataset import Dataset, RemoteFile, carved_set
from lsgm.data.imagefile import reading
from lsgm.data.images import ImageSet
from lsgm.data.places import Mirror, first_good, mirror_ways, missing, places_of
from lsgm.errors import DataError
from lsgm.files.arrays import read_arrays
from lsgm.files.limits import DATASET_FILE, IMAGE_FILE, IMAGES
from lsgm.files.regular import open_regular, read_bytes
from lsgm.progress import bar

CIFAR_FILES = (
    RemoteFile(
        "cifar-10-python.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    ),
)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHEET = (800, 1280)
"""(width, height) of a sheet of 40 rows of 25 images."""
_BATCHES = {"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)}


def read_cifar10(search: list[Path]) -> ImageSet:
    """Return CIFAR-10: 47,500 train, 2,500 val (carved), 10,000 test, uint8 RGB, with labels ``class``.

    The first load hashes every file and caches the decoded pixels under a name that carries the checksum;
    later loads hash those pixels.
    """
    ways: list[Callable[[], ImageSet]] = []
    for root in search:
        ways += [partial(_official, path) for path in places_of("cifar10", CIFAR_FILES[0].file, [root])]
        ways += mirror_ways("cifar10", [root], _mirrored)
    absent = missing("cifar10", CIFAR_FILES[0].file, search, check=CIFAR_FILES[0].check)
    return first_good(ways, search, absent)


def _official(path: Path) -> ImageSet:
    def verified() -> ImageSet:
        CIFAR_FILES[0].verify(path, dataset="cifar10")
        return read_archive(path)

    return cached_set(f"cifar10-official-{CIFAR_FILES[0].sha256[:16]}", verified)


def _mirrored(mirror: Mirror) -> ImageSet:
    for entry in mirror.files:
        mirror.path(entry.file)  # present and of the right size, at every load
    return cached_set(mirror.key, partial(read_sheets, mirror))


def read_archive(path: Path) -> ImageSet:
    """Return the image set in a ``cifar-10-python.tar.gz``; its pickles are read as data, never executed.

    Raises DataError where the archive is damaged, lacks a batch, or its pickles hold more than arrays.
    """
    images, labels = {}, {}
    try:
        with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:gz") as archive:
            for split, batches in _BATCHES.items():
                parts = [_batch(archive, name, path) for name in batches]
                images[split] = np.concatenate([data for data, _ in parts])
                labels[split] = {"class": np.concatenate([label for _, label in parts])}
    except (tarfile.TarError, KeyError, OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} is truncated or corrupted ({error}); delete it and fetch it again"
        ) from error
    return _set(images, labels, "official", mirror=False)


def _batch(archive: tarfile.TarFile, name: str, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    info = archive.getmember(f"cifar-10-batches-py/{name}")
    member = archive.extractfile(info) if info.isreg() else None  # a link may lead anywhere
    if member is None:
        raise KeyError(f"{name} is not a file")
    DATASET_FILE.hold(f"{name} in {path}", info.size)
    content = load_arrays(member.read(), f"{name} in {path}")
    data = content.get(b"data")
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape[1:] == (3072,)):
        raise DataError(f"{name} in {path} is not uint8 rows of 3,072; fetch it again")
    labels = content.get(b"labels")
    if not (isinstance(labels, list) and len(labels) == len(data) and all(type(k) is int for k in labels)):
        raise DataError(f"{name} in {path} has no list of {len(data):,} labels; fetch it again")
    return data.reshape(-1, 3, 32, 32), classes_in(labels, f"{name} in {path}")


def classes_in(labels: Any, where: str) -> NDArray[np.int64]:
    """Return classes as int64 [N]. Raises DataError for other numbers than 0 to 9."""
    values = np.asarray(labels)
    if values.ndim != 1 or values.dtype.kind not in "iu" or ((values < 0) | (values >= len(CLASSES))).any():
        raise DataError(f"the labels of {where} are not all whole numbers from 0 to 9; fetch it again")
    return values.astype(np.int64)


# The pickles inside of the archive

_RECONSTRUCT = np.zeros(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
"""Every name a pickle may refer to, and what it is today."""


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise DataError(f"refers to {module}.{name}, which a file of arrays has no use for")
        return _ALLOWED[module, name]


def load_arrays(contents: bytes, source: str) -> dict[bytes, Any]:
    """Return the dictionary of a pickle made of containers, numbers, strings and arrays; keys are bytes.

    Raises DataError where it refers to anything else, or is no pickle of a dictionary. Nothing of it has run.
    """
    try:
        value = _ArraysOnly(io.BytesIO(contents), encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{source} {error}; do not trust this file, fetch it again") from error
    # What damaged bytes make of it has no end of kinds: UnpicklingError, EOFError, KeyError, MemoryError.
    except Exception as error:
        raise DataError(f"{source} is not a readable pickle ({error}); fetch it again") from error
    if not isinstance(value, dict):
        raise DataError(f"{source} holds a {type(value).__name__} instead of a dictionary; fetch it again")
    return value


# The sheets of a mirror


def untile(sheet: NDArray[np.uint8], rows: int = 40, columns: int = 25) -> NDArray[np.uint8]:
    """Return the tiles of a sheet ``[32 rows, 32 columns, 3]``, row by row: ``[N, 32, 32, 3]``."""
    tiles = sheet.reshape(rows, 32, columns, 32, 3).swapaxes(1, 2)
    return np.ascontiguousarray(tiles.reshape(-1, 32, 32, 3))


def read_sheets(mirror: Mirror) -> ImageSet:
    """Return the image set of a mirror of WebP sheets; label ``exact`` is 0 for the few stand-in images.

    Raises DataError where a file or the decoded pixels have another checksum than the manifest says.
    """
    mirror.verify()
    images: dict[str, NDArray[np.uint8]] = {}
    for split in ("train", "test"):
        names = sorted(f.file for f in mirror.files if re.fullmatch(rf"{split}-\d+\.webp", f.file))
        if not names:
            raise DataError(f"{mirror.folder} lists no sheet {split}-00.webp; copy the mirror again")
        progress = bar(names, desc=f"decoding {split}", unit="sheet")
        sheets = [untile(_decode(mirror.path(name))) for name in progress]
        IMAGES.hold(f"{mirror.folder}: {split}", sum(map(len, sheets)))
        pixels = np.concatenate(sheets)
        found, wanted = hashlib.sha256(pixels.data).hexdigest(), mirror.pixels_sha256.get(split)
        if wanted is not None and found != wanted:
            raise DataError(
                f"the {split} pixels of {mirror.folder} decode to sha256 {found}, "
                f"the manifest says {wanted}; update Pillow, whose WebP decoder should be lossless here"
            )
        images[split] = pixels.transpose(0, 3, 1, 2)
    labels = {split: _labels(mirror.path("labels.npz"), split, len(images[split])) for split in images}
    return _set(images, labels, mirror.version, mirror=True)


def _labels(path: Path, split: str, count: int) -> dict[str, NDArray[np.int64]]:
    stored = read_arrays(path, (f"{split}_labels", f"{split}_exact"), limit=DATASET_FILE)
    found = {
        "class": classes_in(stored.take(f"{split}_labels", "iu", 1), f"{split} in {path}"),
        "exact": stored.take(f"{split}_exact", "b", 1).astype(np.int64),
    }
    for values in found.values():
        if len(values) != count:
            raise DataError(f"{path} has {len(values):,} labels of {count:,} {split} images; copy it again")
    return found


def _decode(path: Path) -> NDArray[np.uint8]:
    raw = read_bytes(path, IMAGE_FILE)
    with reading(str(path)), Image.open(io.BytesIO(raw), formats=("WEBP",)) as image:
        if image.size != SHEET:
            raise DataError(f"{path} has {image.width} x {image.height} pixels instead of 800 x 1280")
        return np.asarray(image.convert("RGB"))


def _set(
    images: Mapping[str, NDArray[np.uint8]],
    labels: Mapping[str, Mapping[str, NDArray[np.int64]]],
    version: str,
    *,
    mirror: bool,
) -> ImageSet:
    """Return the image set of NCHW arrays train and test."""
    train, test = (torch.from_numpy(np.ascontiguousarray(images[split])) for split in ("train", "test"))
    named = {split: {k: torch.from_numpy(v) for k, v in labels[split].items()} for split in labels}
    pairs = (train, test), (named["train"], named["test"])
    return carved_set("cifar10", version, "uint8", *pairs, {"class": CLASSES}, mirror=mirror)


CIFAR10 = Dataset(
    "cifar10",
    "CIFAR-10, 8 bits",
    "uint8",
    (3, 32, 32),
    read_cifar10,
    CIFAR_FILES,
    hub="uoft-cs/cifar10",
)
