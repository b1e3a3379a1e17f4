"""Mean and covariance of features in the npz that others read and write: ``mu`` and ``sigma``.

ADM's reference batches (arXiv:2105.05233) hold ``mu_s`` and ``sigma_s`` of the spatial features beside them,
and images as ``arr_0``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lsgm.errors import DataError, UserError
from lsgm.files.arrays import Arrays, array_names, read_arrays
from lsgm.files.limits import STATISTICS
from lsgm.files.names import shown
from lsgm_eval.cache import reason_of, write_kept
from lsgm_eval.features.extractor import Extractor, ImageShape, Spatial, label_of
from lsgm_eval.metrics.moments import Moments

UNVERIFIED = "unverified extractor"
MOMENTS = ("mu", "sigma", "mu_s", "sigma_s")
OURS = ("count", "extractor", "sha256", "dataset", "resize")
UNKNOWN_COUNT = 2**31
"""Stands for a number of images that a foreign file does not tell: large, so that nothing seems singular."""
LARGEST = 1e60
"""Beyond any feature, and small enough for sums over images and products of covariances."""
LONGEST = 1000
"""Characters of what a file says of itself."""


@dataclass(frozen=True)
class Statistics:
    """Moments of reference features as a file tells them, and what is known of where they come from."""

    moments: Moments
    """Where ``count`` is None their own count is nominal: they serve a distance and are not to be merged."""
    count: int | None
    """Images behind the statistics; None where the file does not say."""
    dataset: str
    """``name@version@sha256`` and the split, or an empty string."""
    remark: str
    """What must be said beside numbers that use them: `UNVERIFIED`, or an empty string."""
    spatial: Moments | None = None
    """Of the spatial features, where the file has them and the extractor too."""


def write_statistics(
    path: Path, moments: Moments, extractor: Extractor, *, dataset: str, spatial: Moments | None = None
) -> None:
    """Write ``mu`` float64 [D] and ``sigma`` [D, D] (divisor N - 1), which pytorch-fid, EDM and ADM read.

    Those of spatial features are written as ``mu_s`` and ``sigma_s``, as ADM has them. Beside them lie count,
    extractor, sha256, dataset and resize, by which `read_statistics` knows what they are of. Raises UserError
    for moments of fewer than two images.
    """
    known: dict[str, Any] = {
        "count": np.array(moments.count),
        "extractor": np.array(extractor.name),
        "sha256": np.array(extractor.sha256),
        "dataset": np.array(dataset),
        "resize": np.array(extractor.resize),
    }
    if spatial is not None:
        known |= {"mu_s": spatial.mean, "sigma_s": spatial.covariance}
    write_kept(path, {"mu": moments.mean, "sigma": moments.covariance, **known})


def read_statistics(path: Path, extractor: Extractor) -> Statistics:
    """Return the statistics in an npz, for distances in the space of ``extractor``.

    A file with the keys of `write_statistics` must be of this very extractor, weights and resize. One of
    others, with ``mu`` and ``sigma`` alone, is taken on trust and its remark says so. Raises DataError naming
    the file where it is missing, damaged, of another space or dimension, or no mean and covariance.
    """
    arrays = _read(path)
    known = [name for name in OURS if name in arrays]
    if known and len(known) < len(OURS):
        raise DataError(
            f"{path} has {', '.join(known)} but not {', '.join(n for n in OURS if n not in known)}: write it "
            "again, or with mu and sigma alone"
        )
    count, dataset = None, ""
    if known:
        _check_space(path, arrays, extractor)
        count, dataset = _count(path, arrays), _text(path, arrays, "dataset")
    nominal = UNKNOWN_COUNT if count is None else count

    def moments(dim: int, suffix: str) -> Moments:
        mu, sigma = arrays[f"mu{suffix}"], arrays[f"sigma{suffix}"]
        if said := _wrong(path, mu, sigma, extractor.name, dim, suffix):
            raise DataError(said)
        return Moments.given(mu, sigma, nominal)

    spatial = None
    if isinstance(extractor, Spatial) and {"mu_s", "sigma_s"} <= set(arrays):
        spatial = moments(extractor.spatial_dim, "_s")
    return Statistics(moments(extractor.dim, ""), count, dataset, "" if known else UNVERIFIED, spatial)


@dataclass
class NamedSpace:
    """A feature space as a file of statistics names it: an extractor whose network is not open."""

    name: str
    """Empty where the file does not say."""
    sha256: str
    resize: str
    dim: int
    spatial_dim: int
    """0 where the file has no statistics of spatial features."""
    official: bool = False
    image_shape: ImageShape = (3, None, None)

    def __call__(self, images: Tensor) -> Tensor:
        """Raise UserError: there are statistics on both sides, and no network."""
        raise UserError(f"the network of {self.name} is not open: there are statistics on both sides")

    def with_spatial(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Raise UserError as well."""
        return self(images), self(images)


def space_of(path: Path) -> NamedSpace:
    """Return the feature space that a file of statistics is of. Raises DataError as `read_statistics`."""
    arrays = _read(path)
    told = ("extractor", "sha256", "resize")
    name, sha256, resize = (_text(path, arrays, key) if key in arrays else "" for key in told)
    spatial = arrays["mu_s"].size if {"mu_s", "sigma_s"} <= set(arrays) else 0
    return NamedSpace(name, sha256, resize, arrays["mu"].size, spatial)


def statistics_in(path: Path) -> set[str]:
    """Return the names of an npz that holds mu or sigma, an empty set for one that does not or is damaged."""
    try:
        names = set(array_names(path))
    except DataError:
        return set()
    return names if names & {"mu", "sigma"} else set()


def _read(path: Path) -> Arrays:
    if not os.path.lexists(path):
        raise DataError(f"the statistics {path} are not here: give the npz that holds mu and sigma")
    try:
        # Only what is needed: ADM's files hold images and features as well. Reading verifies checksums.
        found = read_arrays(path, (*MOMENTS, *OURS), limit=STATISTICS)
    except DataError as error:
        if STATISTICS.variable in str(error):
            raise
        why = reason_of(error, path)
        raise DataError(
            f"the statistics {shown(str(path))} are damaged or no npz ({why}): get them again"
        ) from error
    if not {"mu", "sigma"} <= set(found):
        held = ", ".join(array_names(path) if "" not in found else []) or "nothing"
        raise DataError(f"{path} holds {shown(held)[:200]} and not mu and sigma: it is no file of statistics")
    return found


def _text(path: Path, arrays: Arrays, name: str) -> str:
    """Return what a file says of itself. Raises DataError where that is no text of one line."""
    text = arrays.text(name)
    if not text.isprintable() or len(text) > LONGEST:
        raise DataError(
            f"{path} has a '{name}' that is no line of text: write it again, or with mu and sigma alone"
        )
    return text


def _count(path: Path, arrays: Arrays) -> int:
    array = arrays["count"]
    if array.dtype.kind not in "iu" or array.ndim:
        raise DataError(f"{path} has a count that is no whole number: write it again")
    if not 2 <= (count := int(array)) < UNKNOWN_COUNT:
        raise DataError(f"{path} says that it is of {count} images, of which there is no covariance")
    return count


def _check_space(path: Path, known: Arrays, extractor: Extractor) -> None:
    name, sha256, resize = (_text(path, known, key) for key in ("extractor", "sha256", "resize"))
    have, want = f"{name}@{sha256}", label_of(extractor)
    if have != want:
        raise DataError(
            f"{path} is of the extractor {have} and distances are asked for in {want}: numbers of two spaces "
            "do not compare; use its extractor, or compute the reference again"
        )
    if resize != extractor.resize:
        raise DataError(
            f"{path} is of images resized by '{resize}' and {extractor.name} resizes by "
            f"'{extractor.resize}': compute the reference again"
        )


def _wrong(path: Path, mu: NDArray[Any], sigma: NDArray[Any], name: str, dim: int, suffix: str) -> str:
    """Return why these are no mean and covariance of D features; nothing where they are."""
    if mu.dtype.kind != "f" or sigma.dtype.kind != "f":
        return (
            f"{path} holds mu{suffix} in {mu.dtype} and sigma{suffix} in {sigma.dtype}: statistics are real "
            "numbers, write them as float64"
        )
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        return (
            f"{path} holds mu{suffix} {list(mu.shape)} and sigma{suffix} {list(sigma.shape)}: they must be "
            "[D] and [D, D]"
        )
    if len(mu) != dim:
        kind = "spatial features" if suffix else "features"
        return f"{path} is of {len(mu)} {kind} and the extractor {name} has {dim}: it is of another space"
    if not all(np.isfinite(array).all() and (np.abs(array) < LARGEST).all() for array in (mu, sigma)):
        return f"{path} holds values that are not finite, or beyond {LARGEST:g}: compute the statistics again"
    # To the single precision of others' files.
    largest = 1e-5 * np.abs(sigma).max(initial=0.0)
    if not dim or np.abs(sigma - sigma.T).max() > largest or (np.diagonal(sigma) < 0).any():
        return f"the sigma{suffix} of {path} is no covariance: it must be symmetric, its diagonal positive"
    return ""
