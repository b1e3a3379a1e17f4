"""OMNIGLOT twice: the set of Burda et al. (`omniglot`), and Lake's drawings reduced (`omniglot-lake28`)."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsgm.data.cache import cached_set
from lsgm.data.dataset import Dataset, Labels, RemoteFile, carved_set
from lsgm.data.images import ImageSet
from lsgm.data.places import Mirror, file_sha256, first_good, mirror_ways, missing, places_of
from lsgm.errors import DataError
from lsgm.files.arrays import read_arrays
from lsgm.files.limits import DATASET_FILE
from lsgm.files.regular import read_bytes
from lsgm.files.text import read_json, record_of

OMNIGLOT_FILES = (
    RemoteFile("chardata.mat", "https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/chardata.mat"),
)
OFFICIAL_COUNTS = (24_345, 8_070)
LAKE_MIRROR = "omniglot-lake105"
_AGAIN = "delete it and run `lsgm data fetch omniglot`"
_VARIABLES = [f"{part}{name}" for part in ("", "test") for name in ("data", "target", "targetchar")]


def read_omniglot(search: list[Path]) -> ImageSet:
    """Return the official set: 23,128 train, 1,217 val (carved), 8,070 test, grey, ink white.

    No checksum of chardata.mat is published, so its shapes and value range are checked and its own sha256
    becomes part of the version.
    """
    file = OMNIGLOT_FILES[0].file
    ways = [partial(_official, path) for path in places_of("omniglot", file, search)]
    return first_good(ways, search, missing("omniglot", file, search))


def _official(path: Path) -> ImageSet:
    sha256 = file_sha256(path)
    return cached_set(f"omniglot-{sha256[:16]}", partial(read_chardata, path, f"official+{sha256[:12]}"))


def read_chardata(path: Path, version: str, *, counts: tuple[int, int] = OFFICIAL_COUNTS) -> ImageSet:
    """Return the image set in a ``chardata.mat``: arrays ``data`` and ``testdata``, 784 x N in [0, 1].

    Each column lists a picture column by column; it is transposed here so that the characters stand upright.
    Grey values are rounded to 1/255. Raises DataError for anything else.
    """
    import scipy.io

    raw = read_bytes(path, DATASET_FILE)
    DATASET_FILE.hold(f"{path}, unpacked,", _unpacked(raw))
    try:
        stream: Any = io.BytesIO(raw)  # which the stubs do not know to be read
        content: dict[str, Any] = scipy.io.loadmat(stream, variable_names=_VARIABLES)
    except Exception as error:  # scipy raises many kinds on a damaged file, zlib.error and TypeError too
        raise DataError(f"{path} is truncated or not a MATLAB file ({error}); {_AGAIN}") from error
    arrays, labels = [], []
    for prefix, count in zip(("", "test"), counts, strict=True):
        name = f"{prefix}data"
        values = content.get(name)
        if not (isinstance(values, np.ndarray) and values.dtype.kind in "biuf"):
            raise DataError(f"{path} has no array of numbers for '{name}'; {_AGAIN}")
        if values.shape != (784, count):
            raise DataError(
                f"{path} has shape {values.shape} for '{name}' instead of (784, {count}); {_AGAIN}"
            )
        if not (np.isfinite(values).all() and values.min() >= 0 and 0 < values.max() <= 1):
            raise DataError(f"{path}: '{name}' has values outside [0, 1]; {_AGAIN}")
        upright = np.rint(values.T.reshape(-1, 28, 28).swapaxes(1, 2) * 255).astype(np.uint8)
        arrays.append(torch.from_numpy(np.ascontiguousarray(upright))[:, None])
        labels.append(_chardata_labels(content, prefix, count, path))
    return carved_set("omniglot", version, "binary", (arrays[0], arrays[1]), (labels[0], labels[1]), {})


def _unpacked(raw: bytes) -> int:
    """Return how many bytes the packed elements of a MATLAB file (version 5) hold, or a bound that they pass.

    An element is a type and a length of 32 bits each, in the order of bytes that the file's header states,
    and its content; type 15 is a packed one.
    """
    order = "<" if raw[126:128] == b"IM" else ">"
    total, at = 0, 128
    while at + 8 <= len(raw) and total <= DATASET_FILE.value:
        kind, length = struct.unpack_from(f"{order}II", raw, at)
        at += 8
        if kind == 15:
            packed, piece = zlib.decompressobj(), raw[at : at + length]
            try:
                while piece and total <= DATASET_FILE.value:
                    total += len(packed.decompress(piece, 2**22))
                    piece = packed.unconsumed_tail
            except zlib.error:  # which is the reader's affair
                return total
        at += length
    return total


def _chardata_labels(content: dict[str, Any], prefix: str, count: int, path: Path) -> dict[str, Tensor]:
    labels = {}
    for name, entry in (("alphabet", f"{prefix}target"), ("character", f"{prefix}targetchar")):
        values = content.get(entry)
        if values is None:
            continue
        shaped = isinstance(values, np.ndarray) and values.ndim == 2 and values.shape[1] == count
        if not (shaped and values.dtype.kind in "biuf" and values.size and np.isfinite(values).all()):
            raise DataError(f"{path}: '{entry}' is no array of {count:,} labels; {_AGAIN}")
        found = values.argmax(0) if name == "alphabet" else values[0]
        labels[name] = torch.from_numpy(found.astype(np.int64))
    return labels


def read_lake28(search: list[Path]) -> ImageSet:
    """Return Lake's drawings at 28 x 28: drawers 1-15 are train (a part carved for val), 16-20 test.

    The set has as many training images as `omniglot` but other pictures: its likelihoods are not comparable.
    """
    how = f"copy the mirror {LAKE_MIRROR} into one of them, or set LSGM_DATA to the folder that holds it"
    absent = missing("omniglot-lake28", f"{LAKE_MIRROR}/manifest.json", search, how=how)
    return first_good(mirror_ways("omniglot-lake28", search, _mirrored), search, absent)


def _mirrored(mirror: Mirror) -> ImageSet:
    for entry in mirror.files:
        mirror.path(entry.file)
    return cached_set(mirror.key, partial(_reduced, mirror))


def box_reduce(ink: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return grey ``[N, 28, 28]`` of bitmaps ``[N, 105, 105]``: the share of ink in each pixel, x 255.

    A pixel spans 105 / 28 = 15 / 4 bitmap pixels. In quarters every overlap is an integer, so the area of
    ink in 225ths of a pixel and its rounding are exact on every machine.
    """
    edges = np.arange(29) * 15
    low, high = edges[:-1, None], edges[1:, None]
    start = np.arange(105)[None] * 4
    overlap = np.clip(np.minimum(high, start + 4) - np.maximum(low, start), 0, 4).astype(np.float32)
    out = np.empty((len(ink), 28, 28), np.uint8)
    for first in range(0, len(ink), 2048):
        # float32 carries these integers (at most 225) exactly and multiplies fast.
        area = overlap @ ink[first : first + 2048].astype(np.float32) @ overlap.T
        out[first : first + 2048] = (area.astype(np.int64) * 510 + 225) // 450
    return out


@dataclass(frozen=True)
class _Range:
    """The characters of an alphabet, counted from 1."""

    alphabet: str
    first_char: int
    last_char: int


def _ranges(path: Path, characters: int) -> list[_Range]:
    content = read_json(path)
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise DataError(f"{path} is no list of alphabets; copy the mirror again")
    ranges = [record_of(_Range, entry, path) for entry in content]
    for entry in ranges:
        if not 1 <= entry.first_char <= entry.last_char <= characters:
            raise DataError(
                f"{path} has the characters {entry.first_char} to {entry.last_char} of {characters:,}; copy "
                "the mirror again"
            )
    return ranges


def _reduced(mirror: Mirror) -> ImageSet:
    mirror.verify()
    grey = []
    for file in ("images_background.npz", "images_evaluation.npz"):
        paper = read_arrays(mirror.path(file), ["images"], limit=DATASET_FILE).take("images", "b", 4)
        if paper.shape[1:] != (20, 105, 105) or not len(paper):
            raise DataError(
                f"{mirror.folder / file} has drawings of shape {list(paper.shape)} instead of "
                "[characters, 20, 105, 105]; copy the mirror again"
            )
        grey.append(box_reduce(~paper.reshape(-1, 105, 105)).reshape(-1, 20, 28, 28))
    images = torch.from_numpy(np.concatenate(grey))
    characters = len(images)
    alphabets = torch.zeros(characters, dtype=torch.int64)
    ranges = _ranges(mirror.path("alphabet_ranges.json"), characters)
    for index, entry in enumerate(ranges):
        alphabets[entry.first_char - 1 : entry.last_char] = index

    def labels_of(drawers: Tensor) -> Labels:
        return {
            "character": torch.arange(characters).repeat_interleave(len(drawers)),
            "alphabet": alphabets.repeat_interleave(len(drawers)),
            "drawer": drawers.repeat(characters),
        }

    train, test = torch.arange(15), torch.arange(15, 20)
    return carved_set(
        "omniglot-lake28",
        mirror.version,
        "binary",
        (images[:, train].reshape(-1, 1, 28, 28), images[:, test].reshape(-1, 1, 28, 28)),
        (labels_of(train), labels_of(test)),
        {"alphabet": tuple(entry.alphabet for entry in ranges)},
        mirror=True,
    )


OMNIGLOT = Dataset(
    "omniglot",
    "OMNIGLOT as prepared by Burda et al., dynamically binarised",
    "binary",
    (1, 28, 28),
    read_omniglot,
    OMNIGLOT_FILES,
)
OMNIGLOT_LAKE28 = Dataset(
    "omniglot-lake28",
    "OMNIGLOT as collected by Lake et al., area-averaged to 28 x 28",
    "binary",
    (1, 28, 28),
    read_lake28,
    how=f"copy its mirror, the folder {LAKE_MIRROR} with its manifest.json, into a folder named by LSGM_DATA",
)
