"""Mean and covariance of features in the npz that others read and write: ``mu`` and ``sigma``.

ADM's reference batches (arXiv:2105.05233) hold ``mu_s`` and ``sigma_s`` of the spatial features beside them,
and images as ``arr_0``.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsgm.errors import DataError
from lsgm.files.write import atomic_path
from lsgm_eval.extractors.base import Extractor, Spatial
from lsgm_eval.moments import Moments

__all__ = [
    "UNKNOWN_COUNT",
    "UNVERIFIED",
    "NamedSpace",
    "Statistics",
    "read_statistics",
    "space_of",
    "statistics_in",
    "write_statistics",
]

UNVERIFIED = "unverified extractor"
MOMENTS = ("mu", "sigma", "mu_s", "sigma_s")
OURS = ("count", "extractor", "sha256", "dataset", "resize")
UNKNOWN_COUNT = 2**31
"""Stands for a number of images that a foreign file does not tell: large, so that nothing seems singular."""
DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""What NumPy and zipfile answer to a file that is cut short, overwritten or no npz."""


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
    mu, sigma = moments.mean, moments.covariance
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, mu=mu, sigma=sigma, **known)


def read_statistics(path: Path, extractor: Extractor) -> Statistics:
    """Return the statistics in an npz, for distances in the space of ``extractor``.

    A file with the keys of `write_statistics` must be of this very extractor, weights and resize. One of
    others, with ``mu`` and ``sigma`` alone, is taken on trust and its remark says so. Raises DataError naming
    the file where it is missing, damaged, of another space or dimension, or no mean and covariance.
    """
    arrays = _read(path)
    known = {name: arrays[name] for name in OURS if name in arrays}
    if known and len(known) < len(OURS):
        raise DataError(
            f"{path} has {', '.join(known)} but not {', '.join(n for n in OURS if n not in known)}: write it "
            "again, or with mu and sigma alone"
        )
    if known:
        _check_space(path, known, extractor)
    count = int(known["count"]) if known else None
    if count is not None and count < 2:
        raise DataError(f"{path} says that it is of {count} images, of which there is no covariance")
    spatial = None
    if isinstance(extractor, Spatial) and {"mu_s", "sigma_s"} <= set(arrays):
        spatial = _moments(path, arrays, extractor.spatial_dim, extractor, count, suffix="_s")
    return Statistics(
        _moments(path, arrays, extractor.dim, extractor, count),
        count,
        str(known["dataset"]) if known else "",
        "" if known else UNVERIFIED,
        spatial,
    )


@dataclass(frozen=True)
class NamedSpace:
    """A feature space as a file of statistics names it, without its network."""

    name: str
    """Empty where the file does not say."""
    sha256: str
    resize: str
    dim: int
    spatial_dim: int
    """0 where the file has no statistics of spatial features."""


def space_of(path: Path) -> NamedSpace:
    """Return the feature space that a file of statistics is of. Raises DataError as `read_statistics`."""
    arrays = _read(path)
    name, sha256, resize = (str(arrays.get(key, "")) for key in ("extractor", "sha256", "resize"))
    spatial = arrays["mu_s"].size if {"mu_s", "sigma_s"} <= set(arrays) else 0
    return NamedSpace(name, sha256, resize, arrays["mu"].size, spatial)


def statistics_in(path: Path) -> set[str]:
    """Return the names of an npz that holds mu or sigma, an empty set for one that does not or is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
    except DAMAGE:
        return set()
    return names if names & {"mu", "sigma"} else set()


def _moments(
    path: Path,
    arrays: dict[str, NDArray[Any]],
    dim: int,
    extractor: Extractor,
    count: int | None,
    *,
    suffix: str = "",
) -> Moments:
    mu, sigma = arrays[f"mu{suffix}"], arrays[f"sigma{suffix}"]
    _check_shape(path, mu, sigma, extractor.name, dim, suffix)
    return Moments.given(mu, sigma, UNKNOWN_COUNT if count is None else count)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise DataError(f"the statistics {path} are not here: give the npz that holds mu and sigma")
    try:
        # Only what is needed: ADM's files hold images and features as well. Reading verifies checksums.
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in (*MOMENTS, *OURS) if name in file.files}
            held = ", ".join(file.files) or "nothing"
    except DAMAGE as error:
        raise DataError(f"the statistics {path} are damaged or no npz ({error}): get them again") from error
    if not {"mu", "sigma"} <= set(found):
        raise DataError(f"{path} holds {held} and not mu and sigma: it is no file of statistics")
    return found


def _check_space(path: Path, known: dict[str, NDArray[Any]], extractor: Extractor) -> None:
    have, want = f"{known['extractor']}@{known['sha256']}", f"{extractor.name}@{extractor.sha256}"
    if have != want:
        raise DataError(
            f"{path} is of the extractor {have} and distances are asked for in {want}: numbers of two spaces "
            "do not compare; use its extractor, or compute the reference again"
        )
    if str(known["resize"]) != extractor.resize:
        raise DataError(
            f"{path} is of images resized by '{known['resize']}' and {extractor.name} resizes by "
            f"'{extractor.resize}': compute the reference again"
        )


def _check_shape(path: Path, mu: NDArray[Any], sigma: NDArray[Any], name: str, dim: int, suffix: str) -> None:
    if mu.dtype.kind not in "fiu" or sigma.dtype.kind not in "fiu":
        raise DataError(
            f"{path} holds mu{suffix} and sigma{suffix} that are no numbers: write them as float64"
        )
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise DataError(
            f"{path} holds mu{suffix} {list(mu.shape)} and sigma{suffix} {list(sigma.shape)}: they must be "
            "[D] and [D, D]"
        )
    if len(mu) != dim:
        raise DataError(
            f"{path} is of {len(mu)} {'spatial ' if suffix else ''}features and the extractor {name} has "
            f"{dim}: it is of another space"
        )
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise DataError(f"{path} holds values that are not finite: compute the statistics again")
    # float32 statistics of others are symmetric to single precision.
    if (
        np.abs(sigma - sigma.T).max(initial=0.0) > 1e-5 * np.abs(sigma).max(initial=0.0)
        or (np.diagonal(sigma) < 0).any()
    ):
        raise DataError(
            f"the sigma{suffix} of {path} is no covariance: it must be symmetric, its diagonal positive"
        )
