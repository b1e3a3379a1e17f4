"""OMNIGLOT twice: the set of Burda et al. (`omniglot`), and Lake's drawings reduced (`omniglot-lake28`)."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsgm.data.images import ImageSet, sha256_of
from lsgm.data.mirror import Mirror, mirror_ways
from lsgm.data.order import carve_validation
from lsgm.data.remote import RemoteFile
from lsgm.data.store import cached_set, file_sha256, first_good, missing, places_of
from lsgm.errors import DataError

__all__ = ["OMNIGLOT_FILES", "box_reduce", "read_chardata", "read_lake28", "read_omniglot"]

OMNIGLOT_FILES = (
    RemoteFile("chardata.mat", "https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/chardata.mat"),
)
OFFICIAL_COUNTS = (24_345, 8_070)
LAKE_MIRROR = "omniglot-lake105"


def read_omniglot(search: list[Path]) -> ImageSet:
    """Return the official set: 23,128 train, 1,217 val (carved), 8,070 test, grey, ink white.

    No checksum of chardata.mat is published, so its shapes and value range are checked and its own sha256
    becomes part of the version.
    """
    places = places_of("omniglot", OMNIGLOT_FILES[0].file, search)
    if not places:
        raise missing("omniglot", OMNIGLOT_FILES[0].file, search)
    return first_good([partial(_official, path) for path in places], search)


def _official(path: Path) -> ImageSet:
    sha256 = file_sha256(path)
    return cached_set(f"omniglot-{sha256[:16]}", partial(read_chardata, path, f"official+{sha256[:12]}"))


def read_chardata(path: Path, version: str, *, counts: tuple[int, int] = OFFICIAL_COUNTS) -> ImageSet:
    """Return the image set in a ``chardata.mat``: arrays ``data`` and ``testdata``, 784 x N in [0, 1].

    Each column lists a picture column by column; it is transposed here so that the characters stand upright.
    Grey values are rounded to 1/255.

    Raises:
        DataError: not such a file.
    """
    import scipy.io

    again = "delete it and run `lsgm data fetch omniglot`"
    try:
        content: dict[str, Any] = scipy.io.loadmat(path)
    except (
        Exception
    ) as error:  # scipy raises many kinds on a damaged file, zlib.error and TypeError among them
        raise DataError(f"{path} is truncated or not a MATLAB file ({error}); {again}") from error
    arrays = []
    for name, count in zip(("data", "testdata"), counts, strict=True):
        values = content.get(name)
        if values is None or values.shape != (784, count):
            found = "no array" if values is None else f"shape {values.shape}"
            raise DataError(f"{path} has {found} for '{name}' instead of (784, {count}); {again}")
        if not (np.isfinite(values).all() and values.min() >= 0 and 0 < values.max() <= 1):
            raise DataError(f"{path}: '{name}' has values outside [0, 1]; {again}")
        upright = np.rint(values.T.reshape(-1, 28, 28).swapaxes(1, 2) * 255).astype(np.uint8)
        arrays.append(torch.from_numpy(np.ascontiguousarray(upright))[:, None])
    labels = [_chardata_labels(content, prefix) for prefix in ("", "test")]
    return _assemble("omniglot", version, arrays, labels, mirror=False)


def _chardata_labels(content: dict[str, Any], prefix: str) -> dict[str, Tensor]:
    labels = {}
    if (alphabet := content.get(f"{prefix}target")) is not None:
        labels["alphabet"] = torch.from_numpy(np.asarray(alphabet).argmax(0).astype(np.int64))
    if (character := content.get(f"{prefix}targetchar")) is not None:
        labels["character"] = torch.from_numpy(np.asarray(character).reshape(-1).astype(np.int64))
    return labels


def read_lake28(search: list[Path]) -> ImageSet:
    """Return Lake's drawings at 28 x 28: drawers 1-15 are train (a part carved for val), 16-20 test.

    The set has as many training images as `omniglot` but other pictures: its likelihoods are not comparable.
    """
    if ways := mirror_ways("omniglot-lake28", search, _mirrored):
        return first_good(ways, search)
    how = f"copy the mirror {LAKE_MIRROR} into one of them, or set LSGM_DATA to the folder that holds it"
    raise missing("omniglot-lake28", f"{LAKE_MIRROR}/manifest.json", search, how=how)


def _mirrored(mirror: Mirror) -> ImageSet:
    for entry in mirror.files:
        mirror.path(entry.file)
    return cached_set(mirror.key, partial(_lake, mirror))


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


def _lake(mirror: Mirror) -> ImageSet:
    mirror.verify()
    grey = []
    for file in ("images_background.npz", "images_evaluation.npz"):
        with np.load(mirror.path(file)) as stored:
            paper = stored["images"]
        grey.append(box_reduce(~paper.reshape(-1, 105, 105)).reshape(-1, 20, 28, 28))
    images = torch.from_numpy(np.concatenate(grey))
    characters = len(images)
    alphabets = torch.zeros(characters, dtype=torch.int64)
    ranges = json.loads(mirror.path("alphabet_ranges.json").read_text())
    for index, entry in enumerate(ranges):
        alphabets[entry["first_char"] - 1 : entry["last_char"]] = index
    arrays, labels = [], []
    for drawers in (slice(0, 15), slice(15, 20)):
        part = images[:, drawers]
        arrays.append(part.reshape(-1, 1, 28, 28))
        labels.append(
            {
                "character": torch.arange(characters).repeat_interleave(part.shape[1]),
                "alphabet": alphabets.repeat_interleave(part.shape[1]),
                "drawer": torch.arange(20)[drawers].repeat(characters),
            }
        )
    classes = {"alphabet": tuple(entry["alphabet"] for entry in ranges)}
    return _assemble("omniglot-lake28", mirror.version, arrays, labels, mirror=True, classes=classes)


def _assemble(
    name: str,
    version: str,
    arrays: list[Tensor],
    labels: list[dict[str, Tensor]],
    *,
    mirror: bool,
    classes: dict[str, tuple[str, ...]] | None = None,
) -> ImageSet:
    rows, val_rows = carve_validation(len(arrays[0]))
    splits = {"train": arrays[0][rows], "val": arrays[0][val_rows], "test": arrays[1]}
    named = {
        "train": {label: values[rows] for label, values in labels[0].items()},
        "val": {label: values[val_rows] for label, values in labels[0].items()},
        "test": labels[1],
    }
    return ImageSet(name, version, sha256_of(splits.values()), "binary", splits, named, classes or {}, mirror)
