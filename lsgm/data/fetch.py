"""Getting what is not here: official datasets, and the weights that packages measure with.

Packages offer weights through the entry-point group ``lsgm.weights``: each is a mapping from names to
`Weights`. What is at hand anywhere, a mirror too, is left as it is.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lsgm.data.celeba import find_celebahq
from lsgm.data.mirror import Mirror, mirror_ways
from lsgm.data.registry import DATASETS, Dataset
from lsgm.data.remote import RemoteFile, fetch
from lsgm.data.store import file_sha256, places_of, roots
from lsgm.discovery import offers
from lsgm.errors import DataError
from lsgm.files.cache import cache_dir

__all__ = ["Weights", "at_hand", "fetch_dataset", "fetch_weights", "published_weights"]


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
    for root in search if name == "celebahq256" else ():
        if (path := find_celebahq(root)) is not None:
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
