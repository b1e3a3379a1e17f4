"""Hashing every file of a dataset, and reading it, or of weights: what `lsgm data verify` reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lsgm.data.fetch import Weights
from lsgm.data.images import sha256_of
from lsgm.data.mirror import find_mirror
from lsgm.data.registry import DATASETS, find_dataset
from lsgm.data.remote import RemoteFile
from lsgm.data.store import find_file, is_there, roots
from lsgm.errors import DataError
from lsgm.files.cache import cache_dir

__all__ = ["Finding", "verify", "verify_weights"]


@dataclass(frozen=True)
class Finding:
    """One thing that was checked: a file, or the pixels read from it. ``problem`` is "" where all is well.

    ``dataset`` may be the name of weights.
    """

    dataset: str
    item: str
    problem: str = ""


def verify(names: Sequence[str], *, required: bool = True) -> Iterator[Finding]:
    """Yield a finding for every file of every dataset named, then one for its pixels.

    Args:
        names: Datasets.
        required: Whether an absent dataset is a problem; otherwise it is passed over.
    """
    search = roots()
    for name in names:
        found = find_dataset(name, search)
        if found is None and not DATASETS[name].bundled and not required:
            continue
        files = list(_files(name, found, search))
        yield from files
        if not any(finding.problem for finding in files):
            yield _pixels(name, search)


def _files(name: str, found: Path | None, search: list[Path]) -> Iterator[Finding]:
    if found is None:
        return
    mirror = find_mirror(name, found) if found.is_dir() else None
    if mirror is not None:
        for entry, problem in mirror.problems():
            yield Finding(name, str(mirror.folder / entry.file), problem)
        return
    for item in DATASETS[name].files:
        path = find_file(name, item.file, search)
        if path is not None:
            yield _file(name, item, path)


def _file(name: str, item: RemoteFile, path: Path) -> Finding:
    try:
        problem = item.problem(path)
    except (OSError, DataError) as error:
        what = (isinstance(error, OSError) and error.strerror) or str(error)
        problem = what if what.startswith(str(path)) else f"{path} cannot be read ({what})"
    advice = f"; delete it and run `lsgm data fetch {name}`" if problem else ""
    return Finding(name, str(path), problem + advice)


def verify_weights(name: str, weights: Weights, *, required: bool = True) -> Iterator[Finding]:
    """Yield a finding for every copy of published weights; that there is none is one where ``required``."""
    places = list(dict.fromkeys(weights.places()))
    there = [place for place in places if is_there(place)]
    for place in there:
        yield _file(name, weights.remote, place)
    if required and not there:
        looked = ", ".join(map(str, places))
        problem = f"not here; looked for {looked}: run `lsgm data fetch {name}`"
        yield Finding(name, weights.remote.file, problem)


def _pixels(name: str, search: list[Path]) -> Finding:
    try:
        images = DATASETS[name].read(search)
    except DataError as error:
        return Finding(name, "pixels", str(error))
    if sha256_of(images.splits.values()) != images.sha256:  # only memory-mapped sets can get here
        return Finding(
            name, "pixels", f"the pixels of {name} in the cache are corrupted; delete {cache_dir()}"
        )
    counts = ", ".join(f"{len(rows):,} {split}" for split, rows in images.splits.items())
    return Finding(name, f"{images.identity} ({counts})")
