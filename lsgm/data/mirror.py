"""A mirror: a folder whose `manifest.json` names a dataset, its version, and the sha256 of every file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lsgm.data.listing import hidden
from lsgm.data.store import file_sha256, first_good
from lsgm.errors import DataError

__all__ = ["Mirror", "MirrorFile", "find_mirror", "mirror_ways", "read_manifest"]

T = TypeVar("T")


@dataclass(frozen=True)
class MirrorFile:
    """One file of a mirror as the manifest describes it."""

    file: str
    bytes: int
    sha256: str


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
        content: dict[str, Any] = json.loads(path.read_text())
        splits: dict[str, Any] = content.get("splits", {})
        entries = [*content.get("files", [])]
        entries += [entry for split in splits.values() for entry in split.get("files", [])]
        entries += [content["labels"]] if "file" in content.get("labels", {}) else []
        files = tuple(MirrorFile(e["file"], int(e["bytes"]), e["sha256"]) for e in entries)
        pixels = {name: s["pixels_sha256"] for name, s in splits.items() if "pixels_sha256" in s}
        return Mirror(folder, content["name"], str(content["version"]), files, pixels)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not a mirror's manifest ({error!r}); replace it or move it away"
        ) from error


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
        for manifest in sorted([*root.glob("manifest.json"), *root.glob("*/manifest.json")]):
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
