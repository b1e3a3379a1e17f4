"""MNIST: grey for dynamic binarisation (`mnist`), and Larochelle's fixed binarisation (`mnist-fixed`)."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lsgm.data.dataset import Dataset, RemoteFile, carved_set, gunzip
from lsgm.data.images import ImageSet, sha256_of
from lsgm.data.places import Mirror, first_good, mirror_ways, missing, places_of
from lsgm.errors import DataError
from lsgm.files.arrays import read_arrays
from lsgm.files.limits import DATASET_FILE
from lsgm.files.regular import read_bytes

_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_FILES = tuple(
    RemoteFile(file, _URL + file, contents_md5=md5)
    for file, md5 in (
        ("train-images-idx3-ubyte.gz", "6bbc9ace898e44ae57da46a324031adb"),
        ("train-labels-idx1-ubyte.gz", "a25bea736e30d166cdddb491f175f624"),
        ("t10k-images-idx3-ubyte.gz", "2646ac647ad5339dbf082846283269ea"),
        ("t10k-labels-idx1-ubyte.gz", "27ae3e4e09519cfbb04c329615203637"),
    )
)
_FIXED_URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
FIXED_FILES = tuple(
    RemoteFile(f"binarized_mnist_{split}.amat", f"{_FIXED_URL}binarized_mnist_{split}.amat")
    for split in ("train", "valid", "test")
)
FIXED_COUNTS = {"train": 50_000, "val": 10_000, "test": 10_000}
_FIXED_NAMES = {"train": "train", "val": "valid", "test": "test"}


def read_idx(contents: bytes, path: Path) -> Tensor:
    """Return the uint8 tensor in the bytes of an idx file. Raises DataError for other bytes, or too few."""
    if len(contents) < 4 or contents[:3] != b"\x00\x00\x08":
        raise DataError(
            f"{path} is not an idx file of bytes; run `lsgm data fetch mnist` into an empty folder"
        )
    rank = contents[3]
    if not 1 <= rank <= 3 or len(contents) < 4 + 4 * rank:
        raise DataError(
            f"{path} has the header of {rank} dimensions and {len(contents):,} bytes; fetch it again"
        )
    shape = struct.unpack_from(f">{rank}I", contents, 4)
    values = np.frombuffer(contents[4 + 4 * rank :], np.uint8)
    if values.size != math.prod(shape):
        raise DataError(f"{path} holds {values.size:,} values, its header says {shape}; fetch it again")
    return torch.from_numpy(values.reshape(shape).copy())


def read_mnist(search: list[Path]) -> ImageSet:
    """Return MNIST in grey, ink white: 57,000 train, 3,000 val (carved), 10,000 test, with labels ``digit``.

    The contents of the four files are checked by the official md5s at every load, so results are comparable
    with published ones wherever the files came from.
    """
    arrays = []
    for item in MNIST_FILES:
        ways = [partial(_read_official, item, path) for path in places_of("mnist", item.file, search)]
        absent = missing("mnist", item.file, search, check=item.check)
        arrays.append(first_good(ways, search, absent))
    train, train_digits, test, test_digits = arrays
    labels = {"digit": train_digits.long()}, {"digit": test_digits.long()}
    classes = {"digit": tuple("0123456789")}
    return carved_set("mnist", "official", "binary", (train[:, None], test[:, None]), labels, classes)


def _read_official(item: RemoteFile, path: Path) -> Tensor:
    try:
        contents = gunzip(path)
    except DataError as error:
        raise DataError(f"{error}; delete it and run `lsgm data fetch mnist`") from error
    if hashlib.md5(contents, usedforsecurity=False).hexdigest() != item.contents_md5:
        item.verify(path, dataset="mnist")
    return read_idx(contents, path)


def read_amat(path: Path) -> Tensor:
    """Return uint8 ``[N, 1, 28, 28]`` in {0, 255} from a text file of 784 zeros and ones per line.

    Raises DataError for anything else in it.
    """
    digits = np.frombuffer(read_bytes(path, DATASET_FILE), np.uint8)
    digits = digits[digits > 32]  # spaces and line ends
    if digits.size % 784 or not ((digits == 48) | (digits == 49)).all():
        raise DataError(
            f"{path} is not lines of 784 zeros and ones; delete it and run `lsgm data fetch mnist-fixed`"
        )
    return torch.from_numpy((digits - 48) * np.uint8(255)).reshape(-1, 1, 28, 28)


def read_mnist_fixed(search: list[Path]) -> ImageSet:
    """Return the fixed binarisation as {0, 255}, from Larochelle's text files or a bit-packed mirror.

    Binarising {0, 255} dynamically changes nothing, so the same code serves both datasets.
    """
    ways: list[Callable[[], ImageSet]] = []
    for root in search:
        if all(places_of("mnist-fixed", item.file, [root]) for item in FIXED_FILES):
            ways.append(partial(_read_texts, root))
        ways += mirror_ways("mnist-fixed", [root], _read_packed)
    return first_good(ways, search, missing("mnist-fixed", FIXED_FILES[0].file, search))


def _read_texts(root: Path) -> ImageSet:
    splits: dict[str, Tensor] = {}
    for split, item in zip(FIXED_COUNTS, FIXED_FILES, strict=True):
        places = places_of("mnist-fixed", item.file, [root])
        splits[split] = first_good([partial(read_amat, path) for path in places], [])
    return _fixed(splits, "official-amat", mirror=False, source=root)


def _read_packed(mirror: Mirror) -> ImageSet:
    mirror.verify()
    path = mirror.path(mirror.files[0].file if mirror.files else "binarized_mnist_packed.npz")
    packed = read_arrays(path, _FIXED_NAMES.values(), limit=DATASET_FILE)
    bits = {}
    for split, name in _FIXED_NAMES.items():
        rows = packed.take(name, "u", 2)
        if rows.dtype != np.uint8 or rows.shape != (FIXED_COUNTS[split], 98):
            raise DataError(
                f"{path}: '{name}' is {rows.dtype} {list(rows.shape)} instead of uint8 "
                f"{[FIXED_COUNTS[split], 98]}; copy the mirror again"
            )
        bits[split] = np.unpackbits(rows, axis=1)
    splits = {s: torch.from_numpy(b * np.uint8(255)).reshape(-1, 1, 28, 28) for s, b in bits.items()}
    return _fixed(splits, mirror.version, mirror=True, source=path)


def _fixed(splits: dict[str, Tensor], version: str, *, mirror: bool, source: Path) -> ImageSet:
    counts = {split: len(images) for split, images in splits.items()}
    if counts != FIXED_COUNTS:
        raise DataError(
            f"mnist-fixed at {source} has {counts} images instead of {FIXED_COUNTS}; fetch it again"
        )
    return ImageSet("mnist-fixed", version, sha256_of(splits.values()), "binary", splits, mirror=mirror)


MNIST = Dataset(
    "mnist",
    "MNIST, dynamically binarised",
    "binary",
    (1, 28, 28),
    read_mnist,
    MNIST_FILES,
    hub="ylecun/mnist",
)
MNIST_FIXED = Dataset(
    "mnist-fixed",
    "MNIST in Larochelle's fixed binarisation",
    "binary",
    (1, 28, 28),
    read_mnist_fixed,
    FIXED_FILES,
    together=True,
    carved=False,
)
