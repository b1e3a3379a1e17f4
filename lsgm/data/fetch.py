"""Getting what is not here: official datasets, and the weights that packages measure with.

Packages offer weights through the entry-point group ``lsgm.weights``: each is a mapping from names to
`Weights`. What is at hand anywhere, a mirror too, is left as it is.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lsgm.data.dataset import Dataset
from lsgm.data.download import RemoteFile, fetch
from lsgm.data.images import sha256_of
from lsgm.data.places import (
    Mirror,
    file_sha256,
    find_file,
    find_mirror,
    is_there,
    mirror_ways,
    places_of,
    roots,
)
from lsgm.data.registry import DATASETS, find_dataset
from lsgm.discovery import offers
from lsgm.errors import DataError
from lsgm.files.write import cache_dir

__all__ = [
    "Checked",
    "Weights",
    "at_hand",
    "fetch_dataset",
    "fetch_weights",
    "published_weights",
    "verify",
    "verify_weights",
]


@dataclass(frozen=True)
class Weights:
    """Published weights of a network that measures.

    Attributes:
        remote: The file as it is published.
        places: Returns where copies may lie, in the order in which they are looked for.
        get: Returns where a good copy lies, downloading it into the cache where there is none.
    """

    remote: RemoteFile
    places: Callable[[], Sequence[Path]]
    get: Callable[[], Path]

    def find(self) -> Path | None:
        """Return where a good copy lies, None where there is none; nothing is downloaded."""
        return next((place for place in self.places() if self.remote.is_good(place)), None)


def published_weights() -> Mapping[str, Weights]:
    """Return the weights that the installed packages offer, by name."""
    found: dict[str, Weights] = {}
    for point in offers("lsgm.weights").values():
        found |= point.load()
    return found


def at_hand(name: str, search: list[Path]) -> Path | None:
    """Return where a whole and verified copy of a dataset lies, a mirror's folder or an official file's.

    A damaged copy does not count.
    """
    dataset = DATASETS[name]
    for whole in mirror_ways(name, search, _whole):
        with contextlib.suppress(DataError, OSError):
            return whole()
    if dataset.find is not None:
        for path in filter(None, map(dataset.find, search)):
            return path
    for part in [[root] for root in search] if dataset.together else [search]:
        copies = [_good_copy(item, name, part) for item in dataset.files]
        if copies and copies[0] is not None and all(copies):
            return copies[0].parent
    return None


def _whole(mirror: Mirror) -> Path:
    mirror.verify()
    return mirror.folder


def _good_copy(item: RemoteFile, name: str, search: list[Path]) -> Path | None:
    return next((place for place in places_of(name, item.file, search) if item.is_good(place)), None)


def fetch_dataset(name: str, to: Path | None = None) -> list[str]:
    """Get a dataset into the cache, or below ``to``, and return a line for the screen on each thing done.

    Without ``to`` nothing is done where every place that is looked in together has it.

    Raises:
        DataError: there is no place to get it from, no network, no room; names file, place and command.
    """
    dataset, search = DATASETS[name], roots() if to is None else [to]
    if dataset.bundled:
        return [f"{name}: nothing to fetch, it is rendered here"]
    if (place := at_hand(name, search)) is not None:
        return [f"{name}: nothing to fetch, it is in {place}"]
    if not dataset.files:
        looked = ", ".join(map(str, search))
        raise DataError(
            f"{name} cannot be downloaded; {dataset.how}; looked in {looked}, each with its sub-folders; "
            f"`lsgm data verify {name}` says whether it is found"
        )
    folder = (cache_dir() / "data" if to is None else to) / name
    wanted = _wanted(dataset, folder, search)
    return [f"{path}  sha256 {file_sha256(path)}" for path in fetch(wanted, folder, dataset=name)]


def _wanted(dataset: Dataset, folder: Path, search: list[Path]) -> list[RemoteFile]:
    """Return the files to download, and remove damaged ones that stand in their way in the cache."""
    search = [folder.parent] if dataset.together else search
    wanted = [item for item in dataset.files if _good_copy(item, dataset.name, search) is None]
    for item in wanted:
        path = folder / item.file
        if not path.is_file():
            continue
        wrong = f"{path} is not the file that it should be"
        if not path.is_relative_to(cache_dir()):  # not ours to throw away
            raise DataError(f"{wrong}; delete it and run `lsgm data fetch {dataset.name}` again")
        print(f"lsgm: {wrong}; it is fetched again", file=sys.stderr)
        path.unlink()
    return wanted


def fetch_weights(name: str, weights: Weights) -> list[str]:
    """Get published weights into the cache unless a good copy is anywhere; return a line for the screen.

    Raises:
        DataError: no network, no room; names file, place and command.
    """
    if (place := weights.find()) is not None:
        return [f"{name}: nothing to fetch, it is in {place}"]
    path = weights.get()
    return [f"{path}  sha256 {file_sha256(path)}"]


# Hashing every file of a dataset, and reading it, or of weights: what `lsgm data verify` reports


@dataclass(frozen=True)
class Checked:
    """One thing that was checked: a file, or the pixels read from it. ``problem`` is "" where all is well.

    ``dataset`` may be the name of weights.
    """

    dataset: str
    item: str
    problem: str = ""


def verify(names: Sequence[str], *, required: bool = True) -> Iterator[Checked]:
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


def _files(name: str, found: Path | None, search: list[Path]) -> Iterator[Checked]:
    if found is None:
        return
    mirror = find_mirror(name, found) if found.is_dir() else None
    if mirror is not None:
        for entry, problem in mirror.problems():
            yield Checked(name, str(mirror.folder / entry.file), problem)
        return
    for item in DATASETS[name].files:
        path = find_file(name, item.file, search)
        if path is not None:
            yield _file(name, item, path)


def _file(name: str, item: RemoteFile, path: Path) -> Checked:
    try:
        problem = item.problem(path)
    except (OSError, DataError) as error:
        what = (isinstance(error, OSError) and error.strerror) or str(error)
        problem = what if what.startswith(str(path)) else f"{path} cannot be read ({what})"
    advice = f"; delete it and run `lsgm data fetch {name}`" if problem else ""
    return Checked(name, str(path), problem + advice)


def verify_weights(name: str, weights: Weights, *, required: bool = True) -> Iterator[Checked]:
    """Yield a finding for every copy of published weights; that there is none is one where ``required``."""
    places = list(dict.fromkeys(weights.places()))
    there = [place for place in places if is_there(place)]
    for place in there:
        yield _file(name, weights.remote, place)
    if required and not there:
        looked = ", ".join(map(str, places))
        problem = f"not here; looked for {looked}: run `lsgm data fetch {name}`"
        yield Checked(name, weights.remote.file, problem)


def _pixels(name: str, search: list[Path]) -> Checked:
    try:
        images = DATASETS[name].read(search)
    except DataError as error:
        return Checked(name, "pixels", str(error))
    if sha256_of(images.splits.values()) != images.sha256:  # only memory-mapped sets can get here
        return Checked(
            name, "pixels", f"the pixels of {name} in the cache are corrupted; delete {cache_dir()}"
        )
    counts = ", ".join(f"{len(rows):,} {split}" for split, rows in images.splits.items())
    return Checked(name, f"{images.identity} ({counts})")
