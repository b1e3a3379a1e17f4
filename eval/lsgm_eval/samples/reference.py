"""Features of the data themselves, cached under everything that they depend on.

Statistics and some rows of a split lie in an npz. The features of all its images lie beside it, float32 with
their sha256 at the end, in a file that is read a block at a time and never mapped: a file that is cut short
while it is mapped ends the process, one that is read ends in a sentence.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsgm.data import ImageSet, sha256_of, test_levels
from lsgm.distributed import ALONE, World
from lsgm.errors import DataError, UserError
from lsgm.files.arrays import Arrays
from lsgm.files.names import shown
from lsgm.files.regular import open_regular
from lsgm.files.write import atomic_path, cache_dir
from lsgm.logs import log
from lsgm.progress import bar
from lsgm.rng import derive_seed
from lsgm_eval.cache import code_version, make_way, read_kept, reason_of, room_for, write_kept
from lsgm_eval.features.extractor import Extractor, Spatial, label_of
from lsgm_eval.features.statistics import read_statistics
from lsgm_eval.metrics.kernel import within_sums
from lsgm_eval.metrics.moments import Array, FeatureStats, Moments
from lsgm_eval.metrics.precision_recall import radii
from lsgm_eval.samples.collect import Branch, Extracted, branches, room_of

CODE = (
    "lsgm_eval.features.extractor",
    "lsgm_eval.metrics.moments",
    "lsgm_eval.samples.collect",
    "lsgm.data.splits",
    "lsgm.data.images",
)


@dataclass(frozen=True)
class Reference:
    """The features of a split, and the sha256 of the very pixels (binarised where they are) they are of."""

    stats: FeatureStats
    """Without rows where only statistics were given, which tell Frechet distances alone."""
    sha256: str
    spatial: Moments | None = None
    """Of the spatial features, where the extractor has them."""
    remark: str = ""
    """What must be said beside every number that it is used for."""
    dataset: str = ""
    """``name@version@sha256`` and the split, where it is of a file that says so."""
    extractor: str = ""
    """``name@sha256`` of the feature space."""
    _radii: dict[int, Array] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def within(self) -> Array:
        """Kernel sums among the rows, computed once for the many models that meet one reference."""
        return within_sums(self.stats.rows)

    def radii(self, k: int) -> Array:
        """Return how far every row is from its k-th nearest other row, [R], once for all models."""
        if k not in self._radii:
            self._radii[k] = radii(self.stats.rows, k)
        return self._radii[k]


def choose(total: int, count: int, seed: int) -> Tensor:
    """Return ``count`` of ``total`` row numbers at random: a smaller count is a prefix of a larger one."""
    generator = torch.Generator().manual_seed(derive_seed("choose", seed, total))
    return torch.randperm(total, generator=generator)[:count]


def data_images(images: ImageSet, split: str, seed: int) -> Tensor:
    """Return a split as images uint8 [N, C, H, W] in 0..255, binary sets binarised with ``seed``."""
    return test_levels(images, split, seed) * 255 if images.pixels == "binary" else images.split(split)


def reference_pixels(images: ImageSet, split: str, seed: int, rows: int | None) -> Tensor:
    """Return the images that `reference_features` are of, uint8 [N, C, H, W]."""
    pixels = data_images(images, split, seed)
    return pixels if rows is None else pixels[choose(len(pixels), rows, seed)]


def cache_key(images: ImageSet, split: str, seed: int, rows: int | None, extractor: Extractor) -> str:
    """Return the address of a split's features: another data set, extractor, seed or code is another file."""
    parts = {
        "dataset": images.identity,
        "split": split,
        "binarisation_seed": seed if images.pixels == "binary" else None,
        "rows": rows,
        "extractor": label_of(extractor),
        "resize": extractor.resize,
        "dtype": "float32",
        "code": code_version(*CODE),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def reference_features(
    images: ImageSet,
    split: str,
    seed: int,
    extractor: Extractor,
    *,
    rows: int | None = None,
    batch_size: int = 500,
) -> Reference:
    """Return the features of a split, or of ``rows`` of its images at random, from the cache where they are.

    A cached file that is truncated or damaged is named on standard error and made again.
    """
    path = _path(images, split, seed, rows, extractor)
    cached = _read(path, extractor)
    if cached is not None:
        return cached
    pixels = reference_pixels(images, split, seed, rows)
    return _made(path, pixels, extractor, f"features of {images.name} {split}", batch_size)


def all_features(
    images: ImageSet,
    split: str,
    seed: int,
    extractor: Extractor,
    *,
    rows: int | None = None,
    batch_size: int = 500,
) -> RowFile:
    """Return the features of every image of a split in their order, [N, D], read from disk as needed.

    The reference's statistics are made and kept on the same way, so that the images are extracted once.
    """
    path, total = _path(images, split, seed, rows, extractor), len(images.split(split))
    place, shape = path.with_suffix(".f4"), (total if rows is None else min(rows, total), extractor.dim)
    found = open_rows(place, shape)
    if found is not None:
        return found
    pixels = reference_pixels(images, split, seed, rows)
    with write_rows(place, shape) as keep:
        _made(path, pixels, extractor, f"features of {images.name} {split}", batch_size, keep)
    return RowFile(place, shape)


def extract_together(
    images: ImageSet,
    split: str,
    seed: int,
    extractor: Extractor,
    *,
    rows: int | None = None,
    every: bool = False,
    world: World,
    batch_size: int = 500,
) -> None:
    """Have all processes extract what the cache of the first one lacks, which then finds it there.

    What lands in the cache is to the last bit what one process makes: the batches are those, and the first
    process adds them up in their order. With ``every`` it is what `all_features` reads, else what
    `reference_features` does. Raises on all processes what stops one of them.
    """
    path, total = _path(images, split, seed, rows, extractor), len(images.split(split))
    place, shape = path.with_suffix(".f4"), (total if rows is None else min(rows, total), extractor.dim)

    def there() -> bool:
        return (open_rows(place, shape) if every else _read(path, extractor)) is not None

    if world.size == 1 or world.on_main(there):
        return
    pixels, desc = reference_pixels(images, split, seed, rows), f"features of {images.name} {split}"
    with write_rows(place, shape) if every and world.main else nullcontext(_let_go) as keep:
        _made(path, pixels, extractor, desc, batch_size, keep, world)


def _let_go(features: NDArray[np.float32]) -> None:
    """Keep no rows."""


def given_reference(path: Path, extractor: Extractor) -> Reference:
    """Return a reference of which a file tells mean and covariance only, as others publish them.

    Raises DataError where the file is of another extractor, damaged or absent.
    """
    found = read_statistics(path, extractor)
    empty = np.empty((0, extractor.dim), np.float32)
    digest = hashlib.sha256(found.moments.mean.tobytes() + found.moments.covariance.tobytes()).hexdigest()
    said = f"reference statistics of {path.name}{f', {found.dataset}' if found.dataset else ''}"
    remark = "; ".join(part for part in (said, found.remark) if part)
    return Reference(FeatureStats(found.moments, empty), digest, found.spatial, remark, found.dataset)


def _path(images: ImageSet, split: str, seed: int, rows: int | None, extractor: Extractor) -> Path:
    return cache_dir() / "features" / f"{cache_key(images, split, seed, rows, extractor)}.npz"


def _made(
    path: Path,
    pixels: Tensor,
    extractor: Extractor,
    desc: str,
    size: int,
    keep: Callable[[NDArray[np.float32]], None] = _let_go,
    world: World = ALONE,
) -> Reference:
    """Return the features of images, left in a file but for what ``keep`` takes as it comes.

    Of several processes each extracts a batch in turn, and the first one has all of them.
    """
    ((label, branch),) = branches([extractor], len(pixels), classes=False).items()
    with bar(total=len(pixels), desc=desc, unit="image") as progress:
        for first in range(0, len(pixels), size * world.size):
            starts = range(first, min(first + size * world.size, len(pixels)), size)
            for start, found in zip(starts, _round(branch, pixels, starts, size, world), strict=False):
                keep(branch.put(found, np.arange(start, start + len(found[0]))))
                progress.update(len(found[0]))
    spatial = branch.spatial.moments if branch.spatial is not None else None
    found_all = Reference(branch.features.stats(), sha256_of(pixels), spatial, extractor=label)
    if world.main:
        texts = {"key": path.stem, "sha256": found_all.sha256, "extractor": label}
        arrays = {name: np.array(text) for name, text in texts.items()} | {"rows": found_all.stats.rows}
        arrays |= found_all.stats.moments.arrays()
        arrays |= spatial.arrays("spatial_") if spatial is not None else {}
        write_kept(path, arrays, sealed=True)
    return found_all


def _round(branch: Branch, pixels: Tensor, starts: range, size: int, world: World) -> list[Extracted]:
    """Return what all processes extract of a batch each, to the first one; others get none."""
    own, said = None, ""
    if world.rank < len(starts):
        start = starts[world.rank]
        try:
            own = branch.extract(pixels[start : start + size])
        except UserError as error:
            if world.size == 1:
                raise
            said = str(error)
    if world.size > 1 and (stopped := [stop for stop in world.gather(said) if stop]):
        raise UserError(stopped[0])
    return [found for found in world.hand_in(own) if found is not None]


def _read(path: Path, extractor: Extractor) -> Reference | None:
    """Return the cached features; None where there are none, or damaged ones."""

    def whole(arrays: Arrays) -> Reference:
        if arrays.text("key") != path.stem:
            raise arrays.refused("is of other images, or of another extractor")
        return _reference(arrays)

    spatial_dim = extractor.spatial_dim if isinstance(extractor, Spatial) else 0
    room = room_for(room_of(extractor.dim) + room_of(spatial_dim))
    said = "the cached features {path} are damaged ({why}); computing them again"
    return read_kept(path, whole, damaged=said, limit=room, sealed=True)


def kept_references(sha256: str, extractor: str) -> Iterator[Reference]:
    """Yield the cached features of the pixels with this hash in the space ``extractor``, ``name@sha256``.

    Damaged files are passed over: `reference_features` names them and makes them again.
    """

    def asked(arrays: Arrays) -> bool:
        return (arrays.text("sha256"), arrays.text("extractor")) == (sha256, extractor)

    for path in sorted((cache_dir() / "features").glob("*.npz")):
        if read_kept(path, asked, names=("sha256", "extractor")):
            found = read_kept(path, _reference, sealed=True)
            if found is not None:
                yield found


def _reference(arrays: Arrays) -> Reference:
    spatial = Moments.kept(arrays, "spatial_") if "spatial_total" in arrays else None
    stats = FeatureStats(Moments.kept(arrays), arrays["rows"])
    return Reference(stats, arrays.text("sha256"), spatial, extractor=arrays.text("extractor"))


DTYPE = np.dtype("<f4")
BLOCK = 2**24
"""Bytes that are read at once to check them."""
DIGEST = 32


class RowFile:
    """Features float32 [N, D] on disk, of which rows are read by a slice or by their numbers."""

    ndim = 2

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        """Raise DataError for a file that is not as long as features of that shape and their sha256."""
        self.path, self.shape = path, shape
        self._file = open_regular(path)
        size = os.fstat(self._file.fileno()).st_size
        if size != shape[0] * shape[1] * DTYPE.itemsize + DIGEST:
            raise DataError(f"{shown(str(path))} has {size:,} bytes, which are not those of its rows")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows [K, D]. Raises DataError where the file has become shorter."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1:
                raise ValueError("rows are read one after the other")
            return self._read(start, max(stop - start, 0))
        found = [self._read(int(row), 1) for row in rows]
        return np.concatenate(found) if found else np.empty((0, self.shape[1]), np.float32)

    def check(self) -> None:
        """Raise DataError unless the numbers are those that were written."""
        digest = hashlib.sha256()
        size = max(1, BLOCK // (DTYPE.itemsize * self.shape[1]))
        for start in range(0, len(self), size):
            digest.update(self[start : start + size].tobytes())
        self._file.seek(-DIGEST, os.SEEK_END)
        if self._file.read(DIGEST) != digest.digest():
            raise DataError(f"{shown(str(self.path))} holds other numbers than were written")

    def _read(self, row: int, count: int) -> NDArray[np.float32]:
        width = self.shape[1]
        self._file.seek(row * width * DTYPE.itemsize)
        raw = self._file.read(count * width * DTYPE.itemsize)
        if len(raw) < count * width * DTYPE.itemsize:
            raise DataError(
                f"{shown(str(self.path))} was cut short while it was read: run the same command again"
            )
        return np.frombuffer(raw, DTYPE).reshape(count, width)


def open_rows(path: Path, shape: tuple[int, int]) -> RowFile | None:
    """Return the rows in a file, None where there is none, or one that is damaged, which is said."""
    if not os.path.lexists(path):
        return None
    try:
        rows = RowFile(path, shape)
        rows.check()
    except UserError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            why = reason_of(error, path)
            log.warning(f"the cached features {shown(str(path))} are damaged ({why}); computing them again")
        return None
    return rows


@contextmanager
def write_rows(path: Path, shape: tuple[int, int]) -> Iterator[Callable[[NDArray[np.float32]], None]]:
    """Yield a function that takes N rows, some at a time; the file is there once the block has ended well."""
    make_way(path)
    digest, written = hashlib.sha256(), 0
    with atomic_path(path) as temporary, temporary.open("wb") as file:

        def keep(rows: NDArray[np.float32]) -> None:
            nonlocal written
            raw = np.ascontiguousarray(rows, DTYPE).tobytes()
            digest.update(raw)
            file.write(raw)
            written += len(rows)

        yield keep
        if written != shape[0]:
            raise ValueError(f"{written} rows were kept of {shape[0]}")
        file.write(digest.digest())
