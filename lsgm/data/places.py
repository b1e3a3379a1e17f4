"""Where data files are looked for: under their published names, or in a mirror.

A mirror is a folder whose `manifest.json` names a dataset, its version, and the sha256 of every file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from lsgm.config import require
from lsgm.data.listing import hidden
from lsgm.errors import DataError
from lsgm.files.regular import open_regular
from lsgm.files.text import read_record, record_of
from lsgm.files.write import cache_dir
from lsgm.logs import log

T = TypeVar("T")


def roots(root: str | os.PathLike[str] | None = None) -> list[Path]:
    """Return the folders in which data are looked for: ``root``, those of ``$LSGM_DATA``, then the cache."""
    named = [Path(part).expanduser() for part in os.environ.get("LSGM_DATA", "").split(os.pathsep) if part]
    return ([Path(root)] if root is not None else []) + named + [cache_dir() / "data"]


def places_of(dataset: str, file: str, search: Iterable[Path]) -> list[Path]:
    """Return those of ``root/dataset/file`` and ``root/file`` at which there is something, in order."""
    return [place for root in search for place in (root / dataset / file, root / file) if is_there(place)]


def is_there(place: Path) -> bool:
    """Return whether there is something at a place, also something that this process may not look into."""
    try:
        place.stat()
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
    return True


def first_good(
    ways: Sequence[Callable[[], T]], nothing_in: Sequence[Path], absent: DataError | None = None
) -> T:
    """Return what the first of several ways to the same thing gives: a bad copy hides no good one behind it.

    What was wrong with the copies before it is said on standard error. Raises ``absent`` where there is no
    way, and DataError where every one fails: what is wrong with each copy, and in which places there is none.
    """
    if absent is not None and not ways:
        raise absent
    wrong: dict[str, None] = {}
    for way in ways:
        try:
            found = way()
        except DataError as error:
            wrong[str(error)] = None
        except OSError as error:
            wrong[f"{error.filename or 'a file'} cannot be read ({error.strerror or error})"] = None
        else:
            for sentence in wrong:
                log.warning(f"another copy is used, because {sentence}")
            return found
    places = ", ".join(dict.fromkeys(map(str, nothing_in)))
    raise DataError("; ".join(wrong) + (f"; there is no other copy in {places}" if places else ""))


def missing(dataset: str, file: str, search: list[Path], *, check: str = "", how: str = "") -> DataError:
    """Return the error for an absent file: its name, every place looked in, its checksum, what to do next."""
    looked = ", ".join(str(root) for root in search) + (" and its" if len(search) == 1 else " and their")
    what_next = how or f"run `lsgm data fetch {dataset}`, or set LSGM_DATA to a folder that holds it"
    known = f" ({check})" if check else ""
    return DataError(f"{dataset}: {file}{known} is not here; looked in {looked} sub-folders; {what_next}")


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file. Raises DataError for what is none, or cannot be read."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Mirrors


@dataclass(frozen=True)
class MirrorFile:
    """One file of a mirror as the manifest describes it."""

    file: str
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.file.replace("\\", "/")).parts
        require(
            bool(parts) and ".." not in parts and not self.file.startswith("/") and ":" not in parts[0],
            f"file is '{self.file}', which does not lie in the mirror's folder",
        )


@dataclass(frozen=True)
class _Split:
    """What a manifest says of a split."""

    files: tuple[MirrorFile, ...] = ()
    pixels_sha256: str = ""


@dataclass(frozen=True)
class _Manifest:
    """What `manifest.json` says."""

    name: str
    version: str | int
    splits: dict[str, _Split] = field(default_factory=dict)
    files: tuple[MirrorFile, ...] = ()
    labels: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Mirror:
    """A dataset's copy under its own version, because it may differ from the official archive."""

    folder: Path
    name: str
    version: str
    files: tuple[MirrorFile, ...]
    pixels_sha256: dict[str, str]

    @property
    def key(self) -> str:
        """Return a name for what is derived from this mirror: it changes with any file's checksum."""
        sums = "".join(sorted(item.sha256 for item in self.files))
        return f"{self.name}-{self.version}-{hashlib.sha256(sums.encode()).hexdigest()[:16]}"

    def path(self, file: str) -> Path:
        """Return a file's path. Raises DataError for one that is not listed, absent or of another size."""
        entry = next((item for item in self.files if item.file == file), None)
        if entry is None:
            raise DataError(f"{self.folder / 'manifest.json'} does not list {file}; replace the mirror")
        if problem := self.problem(entry, contents=False):
            raise DataError(problem)
        return self.folder / file

    def problem(self, entry: MirrorFile, *, contents: bool) -> str:
        """Return what is wrong with a file, in a sentence, or ""; ``contents`` hashes it too."""
        path, advice = self.folder / entry.file, f"copy it again from the source of this {self.name} mirror"
        if not path.is_file():
            return f"{path} (sha256 {entry.sha256}) is missing; {advice}"
        if (size := path.stat().st_size) != entry.bytes:
            state = "truncated" if size < entry.bytes else "not the file listed"
            return f"{path} is {state}: {size:,} bytes where the manifest says {entry.bytes:,}; {advice}"
        if contents and (found := file_sha256(path)) != entry.sha256:
            return f"{path} is corrupted: its sha256 is {found}, the manifest says {entry.sha256}; {advice}"
        return ""

    def problems(self) -> Iterator[tuple[MirrorFile, str]]:
        """Yield every file, hashed, with its problem or ""."""
        for entry in self.files:
            yield entry, self.problem(entry, contents=True)

    def verify(self) -> None:
        """Hash every file. Raises DataError where one is absent, truncated or corrupted."""
        for _, problem in self.problems():
            if problem:
                raise DataError(problem)


def read_manifest(folder: Path) -> Mirror:
    """Return the mirror in a folder. Raises DataError where its manifest is not valid."""
    path = folder / "manifest.json"
    try:
        manifest = read_record(_Manifest, path, repair="restore it")
        labels = [record_of(MirrorFile, manifest.labels, path)] if "file" in manifest.labels else []
    except DataError as error:
        raise DataError(
            f"{path} is not a mirror's manifest ({str(error).partition(';')[0]}); replace it or move it away"
        ) from error
    files = (
        *manifest.files,
        *(entry for split in manifest.splits.values() for entry in split.files),
        *labels,
    )
    pixels = {name: split.pixels_sha256 for name, split in manifest.splits.items() if split.pixels_sha256}
    return Mirror(folder, manifest.name, str(manifest.version), files, pixels)


def find_mirror(name: str, root: Path) -> Mirror | None:
    """Return the mirror of a dataset in a folder or one of its sub-folders, whatever those are called.

    Raises DataError where there is none, but a folder that bears the dataset's name has a broken manifest.
    Broken manifests elsewhere belong to something else and are passed over.
    """
    return first_good(ways, []) if (ways := mirror_ways(name, [root], lambda mirror: mirror)) else None


def mirror_ways(name: str, search: Sequence[Path], read: Callable[[Mirror], T]) -> list[Callable[[], T]]:
    """Return for every mirror of a dataset in some folders how to ``read`` it, for `first_good`.

    A broken manifest in a folder that bears the dataset's name is a way too, which says what is wrong.
    """
    ways: list[Callable[[], T]] = []
    for root in search:
        found: set[Path] = set()
        with contextlib.suppress(OSError):  # a root that is none, as a name too long for one
            found |= {*root.glob("manifest.json"), *root.glob("*/manifest.json")}
        own = root / name / "manifest.json"
        if is_there(own):  # a folder that may not be looked into is passed over by a glob
            found.add(own)
        for manifest in sorted(found):
            if hidden(manifest.relative_to(root).as_posix()):
                continue
            try:
                mirror = read_manifest(manifest.parent)
            except DataError:
                if manifest.parent.name == name:

                    def say(folder: Path = manifest.parent) -> T:
                        return read(read_manifest(folder))

                    ways.append(say)
                continue
            if mirror.name == name:
                ways.append(partial(read, mirror))
    return ways
