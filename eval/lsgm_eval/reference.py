"""Features of the data themselves, cached under everything that they depend on."""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsgm.data import ImageSet, sha256_of, test_levels
from lsgm.files.cache import cache_dir
from lsgm.files.write import atomic_path
from lsgm.progress import bar
from lsgm.rng import derive_seed
from lsgm_eval.code_version import code_version
from lsgm_eval.extractors.base import Extractor
from lsgm_eval.features import FeatureStats
from lsgm_eval.moments import Array, Moments
from lsgm_eval.passes.plan import Branch, branches
from lsgm_eval.precision_recall import radii
from lsgm_eval.statistics_file import read_statistics

__all__ = [
    "Reference",
    "all_features",
    "cache_key",
    "choose",
    "data_images",
    "given_reference",
    "reference_features",
    "reference_pixels",
]

CODE = (
    "lsgm_eval.extractors",
    "lsgm_eval.features",
    "lsgm_eval.moments",
    "lsgm_eval.passes.plan",
    "lsgm.data.subset",
    "lsgm.data.pixels",
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
    _radii: dict[int, Array] = field(default_factory=dict, repr=False, compare=False)

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
        "extractor": f"{extractor.name}@{extractor.sha256}",
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
    cached = _read(path)
    if cached is not None and cached.stats.moments.dim == extractor.dim:
        return cached
    pixels = reference_pixels(images, split, seed, rows)
    branch = _extract(pixels, extractor, f"features of {images.name} {split}", batch_size)
    reference = _gathered(branch, pixels)
    _write(path, reference)
    return reference


def all_features(
    images: ImageSet,
    split: str,
    seed: int,
    extractor: Extractor,
    *,
    rows: int | None = None,
    batch_size: int = 500,
) -> NDArray[np.float32]:
    """Return the features of every image of a split in their order, float32 [N, D], read from disk as needed.

    The reference's statistics are made and kept on the same way, so that the images are extracted once.
    """
    path = _path(images, split, seed, rows, extractor).with_suffix(".npy")
    found = _mapped(path, extractor.dim)
    if found is not None:
        return found
    pixels = reference_pixels(images, split, seed, rows)
    with atomic_path(path) as temporary:
        kept = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.float32, shape=(len(pixels), extractor.dim)
        )
        branch = _extract(pixels, extractor, f"features of {images.name} {split}", batch_size, kept)
        kept.flush()
        del kept
    _write(_path(images, split, seed, rows, extractor), _gathered(branch, pixels))
    mapped: NDArray[np.float32] = np.load(path, mmap_mode="r")
    return mapped


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


def _extract(
    pixels: Tensor, extractor: Extractor, desc: str, size: int, keep: NDArray[np.float32] | None = None
) -> Branch:
    (branch,) = branches([extractor], len(pixels), lambda *_: {}).values()
    with bar(total=len(pixels), desc=desc, unit="image") as progress:
        for start in range(0, len(pixels), size):
            batch = pixels[start : start + size]
            features = branch.take(batch, np.arange(start, start + len(batch)))
            if keep is not None:
                keep[start : start + len(batch)] = features
            progress.update(len(batch))
    return branch


def _gathered(branch: Branch, pixels: Tensor) -> Reference:
    spatial = branch.spatial.moments if branch.spatial is not None else None
    return Reference(branch.features.stats(), sha256_of(pixels), spatial)


def _write(path: Path, reference: Reference) -> None:
    arrays = _arrays("", reference.stats.moments)
    if reference.spatial is not None:
        arrays |= _arrays("spatial_", reference.spatial)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, rows=reference.stats.rows, sha256=np.array(reference.sha256), **arrays)


def _arrays(prefix: str, moments: Moments) -> dict[str, Any]:
    return {
        f"{prefix}count": np.int64(moments.count),
        f"{prefix}total": moments.total,
        f"{prefix}scatter": moments.scatter,
    }


def _moments(file: Any, prefix: str) -> Moments:
    return Moments(int(file[f"{prefix}count"]), file[f"{prefix}total"], file[f"{prefix}scatter"])


def _read(path: Path) -> Reference | None:
    if not path.exists():
        return None
    try:
        # The archive carries a checksum of every member, which reading verifies.
        with np.load(path, allow_pickle=False) as file:
            spatial = _moments(file, "spatial_") if "spatial_count" in file.files else None
            return Reference(FeatureStats(_moments(file, ""), file["rows"]), str(file["sha256"]), spatial)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        _say_damaged(path, error)
        return None


def _mapped(path: Path, dim: int) -> NDArray[np.float32] | None:
    """Return the array of a file, which has no checksum: its length alone shows that it is whole."""
    if not path.exists():
        return None
    try:
        found: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        _say_damaged(path, error)
        return None
    return found if found.ndim == 2 and found.shape[1] == dim else None


def _say_damaged(path: Path, error: Exception) -> None:
    print(f"lsgm: the cached features {path} are damaged ({error}); computing them again", file=sys.stderr)
