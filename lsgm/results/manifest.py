"""Manifests: what a measuring call was given and what it ran on, so that it can be made again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lsgm.config import require
from lsgm.errors import ConfigError, DataError
from lsgm.files.names import file_name, shown
from lsgm.files.text import read_table
from lsgm.results.row import Row
from lsgm.structure import from_dict

FORMAT = 1
"""Version of the layout; a reader refuses a newer one."""
FOLDER = "manifests"
"""Beside ``results.jsonl``."""
MOST = 4096
"""Threads, processes and packages of a measuring call that are believed."""
_MODELS = 256
"""Models of one measuring call."""
_REPAIR = "restore it, or remove it to do without"


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
    images: int | None = None
    """How many there are, of ready images; a number may be of fewer."""
    run_id: str | None = None
    """Of the training run, where one is known."""
    config_sha256: str | None = None
    """Of the training run's configuration."""


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
    """Hash of the sources that the numbers depend on, which tells two states of a checkout with local changes
    apart where ``git_revision`` cannot."""
    versions: dict[str, str | None]
    hardware: dict[str, Any]
    device: str
    models: tuple[MeasuredModel, ...]
    task: MeasuredTask
    again: tuple[str, ...] = ()
    """The command that makes the rows of this manifest again and as little as possible beside them, as one
    would type it in ``directory``, without a folder to write into; empty where that is not told."""

    def __post_init__(self) -> None:
        for name in ("processes", "threads"):
            found = self.hardware.get(name)
            known = found is None or (type(found) is int and 1 <= found <= MOST)
            require(known, f"hardware.{name} is {found!r:.40}; it must be a whole number of 1 to {MOST}")
        for name, words, most in (("versions", self.versions, MOST), ("models", self.models, _MODELS)):
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

    def model(self, name: str) -> MeasuredModel | None:
        """Return the model that rows call by a name, None where the call measured none of it."""
        return next((model for model in self.models if model.name == name), None)


def digest_of(parts: Mapping[str, Any]) -> str:
    """Return the sha256 of plain values as canonical JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path) -> Manifest:
    """Return a manifest. Raises DataError for a damaged file, an unknown key, or a newer format."""
    where = shown(str(path))
    content = read_table(path, DataError, _REPAIR)
    version = content.pop("format", None)
    if type(version) is int and version > FORMAT:
        raise DataError(
            f"{where} has format {version} and this version reads up to {FORMAT}; "
            "update lsgm-bench to read it"
        )
    if type(version) is not int or version != FORMAT:
        raise DataError(f"{where} is no manifest of a measuring call; {_REPAIR}")
    try:
        return from_dict(Manifest, content, where, null=True)
    except ConfigError as error:
        raise DataError(f"{error}; {_REPAIR}") from None


def manifest_of(row: Row, folder: Path) -> Manifest | None:
    """Return the manifest of the call that measured a row of ``folder``.

    Where the call wrote it before its images were loaded, the row says which these were. None where the row
    names no manifest or its file is gone. Raises DataError as `read_manifest`.
    """
    if not row.manifest or file_name(row.manifest) != row.manifest:
        return None
    path = folder / FOLDER / f"{row.manifest}.json"
    if not os.path.exists(path):
        return None
    found = read_manifest(path)
    return replace(found, task=replace(found.task, dataset=found.task.dataset or row.dataset))
