"""A mirror: a folder whose `manifest.json` names a dataset, its version, and the sha256 of every file."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from lsgm.config import require
from lsgm.data.listing import hidden
from lsgm.data.store import file_sha256, first_good, is_there
from lsgm.errors import DataError
from lsgm.files.text import read_record, record_of

__all__ = ["Mirror", "MirrorFile", "find_mirror", "mirror_ways", "read_manifest"]

T = TypeVar("T")


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
        """Return the path of a file, its presence and size checked.

        Raises:
            DataError: not in the manifest, absent, or of another size.
        """
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
        """Hash every file.

        Raises:
            DataError: one is absent, truncated or corrupted.
        """
        for _, problem in self.problems():
            if problem:
                raise DataError(problem)


def read_manifest(folder: Path) -> Mirror:
    """Return the mirror in a folder.

    Raises:
        DataError: the manifest is not valid.
    """
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

    Raises:
        DataError: there is none, but a folder that bears the dataset's name has a broken manifest. Broken
            manifests elsewhere belong to something else and are passed over.
    """
    return first_good(ways, []) if (ways := mirror_ways(name, [root], _itself)) else None


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
                    ways.append(partial(_read_at, manifest.parent, read))
                continue
            if mirror.name == name:
                ways.append(partial(read, mirror))
    return ways


def _read_at(folder: Path, read: Callable[[Mirror], T]) -> T:
    return read(read_manifest(folder))


def _itself(mirror: Mirror) -> Mirror:
    return mirror
