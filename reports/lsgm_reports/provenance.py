"""Where a number comes from: an id for every row, and the manifest of the call that measured it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lsgm.config import require
from lsgm.errors import ConfigError, DataError
from lsgm.files.names import file_name, shown
from lsgm.files.text import read_table
from lsgm.structure import from_dict
from lsgm_reports.read import Placed, read_placed, results_of
from lsgm_reports.reproduce.apart import Copied, copied
from lsgm_reports.rows import Row

__all__ = [
    "Manifest",
    "MeasuredModel",
    "MeasuredTask",
    "find_row",
    "manifest_of",
    "read_manifest",
    "row_id",
    "rows_at",
]

FORMAT = 1
"""The newest layout of a manifest that is read here."""

MOST = 4096
"""Threads, processes and packages of a measuring call that are believed."""
MODELS = 256
"""Models of one measuring call."""
REVISION = re.compile(r"[0-9a-f]{7,64}([+-]dirty)?")
REPAIR = "restore it, or remove it to do without"


def row_id(row: Row) -> str:
    """Return 12 hexadecimal digits that name a row: SHA-256 of the canonical JSON of all its keys.

    Keys that do not apply (None) are left out, so that a key which a later version adds renames no row.
    """
    known = {key: value for key, value in vars(row).items() if value is not None}
    text = json.dumps(known, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:12]


@dataclass(frozen=True)
class MeasuredModel:
    """A model of a measuring call."""

    name: str
    spec: str
    """The word of the command line that named it."""
    path: str | None = None
    """Where the folder or file lay, absolute; None of a factory's model."""
    sha256: str | None = None
    """Of the weights, or of the images of a folder of ready ones."""
    parameters: dict[str, int] = field(default_factory=dict)
    run_id: str | None = None
    """Of the training run, where one is known."""
    config_sha256: str | None = None
    """Of the training run's configuration."""
    images: int | None = None
    """How many there are, of ready images; a number may be of fewer."""


@dataclass(frozen=True)
class MeasuredTask:
    """The task of a measuring call."""

    identity: str
    """``glyphs@2/quick``."""
    sha256: str
    """Of all that the task says, so that two task files of one name and version can be told apart."""
    data: str
    """What the call took images from: a data set's name, or a folder or zip."""
    dataset: str | None = None
    """name@version@sha256 of the pixels; None where the call told it in its rows alone."""
    extractors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What a measuring call was given and what it ran on: ``manifests/<id>.json`` beside its rows."""

    id: str
    started: str
    command: tuple[str, ...]
    """As one would type it, ``lsgm eval glyphs --model runs/a``."""
    directory: str
    """Where it was typed."""
    environment: dict[str, str]
    git_revision: str | None
    """``+dirty`` at its end where files differed from it."""
    code_version: str
    """Hash of the sources that the numbers depend on."""
    versions: dict[str, str | None]
    hardware: dict[str, Any]
    device: str
    models: tuple[MeasuredModel, ...]
    task: MeasuredTask

    def __post_init__(self) -> None:
        for name in ("processes", "threads"):
            found = self.hardware.get(name)
            known = found is None or (type(found) is int and 1 <= found <= MOST)
            require(known, f"hardware.{name} is {found!r:.40}; it must be a whole number of 1 to {MOST}")
        for name, words, most in (("versions", self.versions, MOST), ("models", self.models, MODELS)):
            require(len(words) <= most, f"{name} are {len(words)}; at most {most} are read")

    @property
    def processes(self) -> int:
        """Processes that shared the work."""
        return int(self.hardware.get("processes") or 1)

    @property
    def threads(self) -> int | None:
        """Threads of a process, on which the rounding of sums depends."""
        found = self.hardware.get("threads")
        return None if found is None else int(found)

    @property
    def typed(self) -> Copied:
        """The command for a shell, of several processes as `torchrun` starts them, or why there is none."""
        return copied(self.command, self.directory, self.processes)


def manifest_of(row: Row, folder: Path) -> Manifest | None:
    """Return the manifest of the call that measured a row of ``folder``.

    Where the call wrote it before its images were loaded, the row says which these were. None where the row
    names no manifest or its file is gone. Raises DataError as `read_manifest`.
    """
    if not row.manifest or file_name(row.manifest) != row.manifest:
        return None
    path = folder / "manifests" / f"{row.manifest}.json"
    if not os.path.exists(path):
        return None
    found = read_manifest(path)
    return replace(found, task=replace(found.task, dataset=found.task.dataset or row.dataset))


def read_manifest(path: Path) -> Manifest:
    """Return a manifest. Raises DataError for a damaged file, an unknown key, or a newer format."""
    where = shown(str(path))
    content = read_table(path, DataError, REPAIR)
    version = content.pop("format", None)
    if type(version) is int and version > FORMAT:
        raise DataError(
            f"{where} has format {version} and this version reads up to {FORMAT}; "
            "update lsgm-bench to read it"
        )
    if type(version) is not int or version != FORMAT:
        raise DataError(f"{where} is no manifest of a measuring call; {REPAIR}")
    try:
        return from_dict(Manifest, content, where, null=True)
    except ConfigError as error:
        raise DataError(f"{error}; {REPAIR}") from None


def find_row(
    place: str, *, model: str | None = None, metric: str | None = None, sampler: str | None = None
) -> tuple[Row, Path]:
    """Return the one row that a place and the selectors name, and the folder that it lies in.

    Raises DataError as `rows_at`, and where several rows fit, naming some of them.
    """
    found = rows_at(place, model=model, metric=metric, sampler=sampler)
    if len(found) > 1:
        some = ", ".join(f"#{row_id(each.row)} ({each.row.model} {each.row.metric})" for each in found[:3])
        raise DataError(
            f"{len(found)} rows of {place} fit, {some}{' ...' * (len(found) > 3)}; name one by PLACE#ID, or "
            "narrow them by --model, --metric and --sampler"
        )
    return found[0].row, found[0].file.parent


def rows_at(
    place: str, *, model: str | None = None, metric: str | None = None, sampler: str | None = None
) -> list[Placed]:
    """Return the rows that ``PLACE#ID``, ``PLACE:LINE`` or ``PLACE`` name, each once.

    PLACE is a file of rows or a folder that holds some, ID the beginning of a row's id, LINE a line's number
    in one file; the selectors are whole words of the row's keys. Raises DataError where there is no such
    place and where no row fits.
    """
    path, by_id, by_line = _split(place)
    files = results_of(path)
    if by_line is not None and len(files) > 1:
        raise DataError(f"{path} holds {len(files)} files of rows; give FILE:{by_line}, such as {files[0]}")
    wanted = {"model": model, "metric": metric, "sampler": sampler}
    found = {
        (each.file.parent, row_id(each.row)): each
        for each in read_placed(files).placed
        if (by_line is None or each.line == by_line)
        and (by_id is None or row_id(each.row).startswith(by_id))
        and all(word is None or getattr(each.row, key) == word for key, word in wanted.items())
    }
    if not found:
        said = [f"{key} {word}" for key, word in wanted.items() if word is not None]
        said += [f"id {by_id}"] if by_id is not None else []
        said += [f"line {by_line}"] if by_line is not None else []
        with_ = f" with {' and '.join(said)}" if said else ""
        raise DataError(f"{path} has no row{with_}; `lsgm reproduce {path}` lists its rows")
    return list(found.values())


def _split(place: str) -> tuple[Path, str | None, int | None]:
    """Return the path of a place, and the id or the line behind it, unless a file has that very name."""
    if os.path.exists(place):
        return Path(place), None, None
    if found := re.fullmatch(r"(.+)#([0-9a-f]{1,12})", place):
        return Path(found[1]), found[2], None
    if found := re.fullmatch(r"(.+):([1-9][0-9]*)", place):
        return Path(found[1]), None, int(found[2])
    if "#" in place:
        raise DataError(f"'{place}' has no row's id behind '#'; an id is of the digits 0-9 and a-f, up to 12")
    return Path(place), None, None
