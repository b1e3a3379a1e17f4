"""CelebA-HQ at 256 x 256: there is no single official file, so the user brings the 30,000 images."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lsgm.config import Convert
from lsgm.data.cache import PixelNote, file_stamp, remembered
from lsgm.data.dataset import Dataset
from lsgm.data.folder import decode_files
from lsgm.data.images import ImageSet, sha256_of
from lsgm.data.listing import hidden, list_files
from lsgm.data.places import first_good, is_there, missing
from lsgm.errors import DataError
from lsgm.files.arrays import map_array
from lsgm.files.regular import refuse_special

COUNTS = (27_000, 3_000)
"""Train and test images, by order of name (or row): the split on which LSGM reports 5-bit likelihoods."""
HOW = (
    "put 30,000 images of 256 x 256 into a folder, a zip or an .npy (uint8, N x 256 x 256 x 3) named "
    "celebahq256 in one of them; names in order, the last 3,000 are the test set"
)


def find_celebahq(root: Path) -> Path | None:
    """Return ``celebahq256`` in a root: an .npy, a zip, or a folder that holds one of these or images."""
    return next(iter(_places(root)), None)


def _places(root: Path) -> list[Path]:
    base = root / "celebahq256"
    places = [base.with_suffix(".npy"), base.with_suffix(".zip")]
    try:
        places += [*sorted(base.glob("*.npy")), *sorted(base.glob("*.zip"))]
        folder = base.is_dir()
    except OSError:  # a root that is none, as a name too long for one
        folder = False
    found = [place for place in places if is_there(place) and not hidden(place.name)]
    return found or ([base] if folder else [])


def read_celebahq(search: list[Path], *, counts: tuple[int, int] = COUNTS) -> ImageSet:
    """Return CelebA-HQ in order: 25,650 train, 1,350 val, 3,000 test, uint8 RGB, 5 bits for likelihoods.

    Files larger than 256 x 256 are reduced as those of any folder; an array must have the right size. Raises
    DataError where it is absent, of another number of images, or of images of another size.
    """
    ways = [partial(_read_at, place, counts) for root in search for place in _places(root)]
    absent = missing("celebahq256", "the folder, zip or .npy celebahq256", search, how=HOW)
    return first_good(ways, search, absent)


def _read_at(path: Path, counts: tuple[int, int]) -> ImageSet:
    # The last 5 % of train: slices stay views of the file, a random choice would be a copy.
    val = counts[0] // 20
    sizes = dict(zip(("train", "val", "test"), (counts[0] - val, val, counts[1]), strict=True))
    if path.suffix == ".npy":
        array = _from_array(path)
        cut = _cut(len(array), sizes, path)
        splits = {split: array[rows.start : rows.stop] for split, rows in cut.items()}
        stamps = [(str(path.resolve()), file_stamp(path))]
        pixels = remembered(
            PixelNote, f"celebahq256 {sizes}", stamps, lambda: PixelNote(sha256_of(splits.values()))
        )
        sha256 = pixels.sha256
    else:
        listing = list_files(path)
        listing.say()
        parts = _cut(len(listing.files), sizes, path)
        splits, sha256, _ = decode_files(listing, listing.files, parts, (256, 256), Convert())
    if splits["train"].shape[1] != 3:
        raise DataError(f"{path} has grey images; {HOW}")
    return ImageSet("celebahq256", f"27000-3000+{sha256[:12]}", sha256, "uint8", splits, bits=5)


def _cut(total: int, sizes: dict[str, int], path: Path) -> dict[str, range]:
    """Return consecutive stretches of all rows by split."""
    if total != sum(sizes.values()):
        raise DataError(f"{path} has {total:,} images; {HOW}")
    parts, start = {}, 0
    for split, size in sizes.items():
        parts[split] = range(start, start + size)
        start += size
    return parts


def _from_array(path: Path) -> Tensor:
    refuse_special(path)
    try:
        array = map_array(path)
    except DataError as error:
        why = str(error).partition(";")[0]
        raise DataError(f"{path} is truncated or not an array ({why}); copy it again") from error
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1:] != (256, 256, 3):
        raise DataError(f"{path} is {array.dtype} {array.shape}; {HOW}")
    return torch.from_numpy(array).permute(0, 3, 1, 2)


CELEBAHQ = Dataset(
    "celebahq256",
    "CelebA-HQ at 256 x 256, brought by the user",
    "uint8",
    (3, 256, 256),
    read_celebahq,
    how=HOW.replace(" in one of them", " in $LSGM_DATA"),
    find=find_celebahq,
)
