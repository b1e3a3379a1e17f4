"""Manifests: what a measuring call was given and what it ran on, so that it can be made again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lsgm.data.places import file_sha256
from lsgm.errors import DataError
from lsgm.files.names import file_name, spelt
from lsgm.files.text import read_record
from lsgm.files.write import atomic_path
from lsgm.generative import GenerativeModel
from lsgm.results.manifest import FOLDER, FORMAT, digest_of
from lsgm.runs.provenance import git_revision, hardware, versions
from lsgm.structure import to_dict
from lsgm_eval.cache import code_version
from lsgm_eval.models import packages_of
from lsgm_eval.task import Images, Task

__all__ = [
    "Call",
    "MadeCall",
    "describe_call",
    "read_call",
    "words_of",
    "write_manifest",
]

ENVIRONMENT = ("LSGM_DATA", "OMP_NUM_THREADS")
"""Variables by which a call finds its data and divides its sums among threads."""

PACKAGES = ("torch-fidelity", "clean-fid")
"""What measures, beside what `lsgm.runs.provenance.versions` names."""


def write_manifest(
    out: Path,
    command: Sequence[str],
    models: Mapping[str, GenerativeModel],
    task: Task,
    tier: str,
    dataset: str | None = None,
    *,
    device: torch.device | str = "cpu",
    images: Images | None = None,
) -> str:
    """Write the manifest of a whole call (`Call.write`) and return its id.

    ``command`` is the line as one would type it, ``models`` the models by the words that named them there,
    ``dataset`` is ``name@version@sha256`` where the images are loaded already; every row names it in any
    case. Raises DataError where the file cannot be written.
    """
    return Call(out, describe_call(command, models, task, tier, dataset, device, images)).write()


@dataclass(frozen=True)
class Call:
    """A call that measures, whose rows each name a manifest with the command that makes just them again."""

    out: Path
    content: Mapping[str, Any]
    """Of `describe_call`."""
    line: Callable[[Sequence[str], Mapping[str, Any]], Sequence[str]] = lambda words, changes: ()
    """From models, by the words that named them, and options that are others to the command line for them."""

    def again(self, names: Sequence[str], changes: Mapping[str, Any]) -> str:
        """Write the manifest of some rows and return its id.

        They are of the models ``names``, and the call with ``changes`` of its options makes them again.
        """
        models = [model for model in self.content["models"] if model["name"] in names]
        return self.write(models, self.line([model["spec"] for model in models], changes))

    def write(self, models: Sequence[Mapping[str, Any]] | None = None, again: Sequence[str] = ()) -> str:
        """Write ``out/manifests/<id>.json`` atomically and return the id.

        The id is the first 12 hexadecimal digits of the SHA-256 of the content as canonical JSON, without the
        time: the same call on the same machine, begun again, has the same manifest, which stays as the first
        of them wrote it. Raises DataError where the file cannot be written.
        """
        content = dict(self.content)
        if models is not None:
            content["models"] = list(models)
        if again:
            content["again"] = [spelt(word) for word in again]
        name = digest_of(content)[:12]
        path = self.out / FOLDER / f"{name}.json"
        if path.exists():
            return name
        record = {"format": FORMAT, "id": name, "started": _now(), **content}
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="ascii")
        return name


def words_of(options: Any, positional: str = "") -> list[str]:
    """Return the words from which `lsgm.options.parse` makes these options; defaults are left out.

    ``positional`` is the field that stands without a name, if there is one.
    """
    first, words = getattr(options, positional, ()), list[str]()
    for field_ in fields(options):
        value = getattr(options, field_.name)
        if field_.name == positional or value == field_.default:
            continue
        name = field_.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            for each in value if isinstance(value, tuple) else (value,):
                text = str(each)
                # A value that begins with a dash would be read as an option.
                words += [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]
    return [*([first] if isinstance(first, str) else first), *words]


def describe_call(
    command: Sequence[str],
    models: Mapping[str, GenerativeModel],
    task: Task,
    tier: str,
    dataset: str | None,
    device: torch.device | str,
    images: Images | None = None,
) -> dict[str, Any]:
    """Return all of a manifest that does not depend on the time, as JSON values.

    ``code_version`` is the hash of the sources that the numbers depend on, which tells two states of a
    checkout with local changes apart where ``git_revision`` cannot.
    """
    packages = set().union(*(packages_of(model) for model in models.values()))
    return {
        "command": [spelt(word) for word in command],
        "directory": spelt(_directory()),
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        "git_revision": git_revision(),
        "code_version": code_version("lsgm", "lsgm_eval", *packages),
        "versions": {**versions(), **{name: _version(name) for name in PACKAGES}},
        "hardware": hardware(),
        "device": str(device),
        "models": [_described(spec, model) for spec, model in models.items()],
        "task": {
            "identity": task.identity(tier, images=images),
            "sha256": digest_of(to_dict(task)),
            "data": task.dataset,
            "dataset": dataset,
            "extractors": [space.extractor for space in task.spaces],
        },
    }


def _described(spec: str, model: GenerativeModel) -> dict[str, Any]:
    """Return which model a word of the command line was: weights, place, size, and its training run."""
    path = _path_of(spec)
    return {
        "name": model.name,
        "spec": spelt(spec),
        "path": None if path is None else spelt(str(path)),
        "sha256": model.sha256,
        "parameters": dict(model.parameters),
        # Of ready images how many there are, of which a number may be of fewer.
        **({} if (images := getattr(model, "available", None)) is None else {"images": images}),
        **_training(path),
    }


def _path_of(spec: str) -> Path | None:
    """Return the folder or file of ``PATH`` or ``NAME=PATH``, absolute; None for a factory's word."""
    name, found, rest = spec.partition("=")
    named = found and "/" not in name and not os.path.exists(spec)
    path = Path(os.path.expanduser(rest if named else spec))
    return Path(os.path.abspath(path)) if os.path.exists(path) else None


@dataclass(frozen=True)
class _Exported:
    """What an exported checkpoint says of its training."""

    run_id: str | None = None


@dataclass(frozen=True)
class _Trained:
    """A run's manifest or a checkpoint's state, as far as it is asked here."""

    run_id: str | None = None
    exported: _Exported | None = None


def _training(path: Path | None) -> dict[str, Any]:
    """Return id and configuration's sha256 of the run in a folder; None where there is no run to ask.

    A checkpoint that was exported says itself which run it is from.
    """
    found: dict[str, Any] = {"run_id": None, "config_sha256": None}
    if path is None or not os.path.isdir(path):
        return found
    run = path.parent.parent if path.parent.name == "checkpoints" else path
    exported = _said(path / "state.json").exported or _Exported()
    found["run_id"] = _said(run / "manifest.json").run_id or exported.run_id
    if os.path.isfile(config := run / "config.toml"):
        found["config_sha256"] = file_sha256(config)
    return found


def _said(path: Path) -> _Trained:
    """Return what a file says; nothing where it is absent or damaged, since what it says is a courtesy."""
    try:
        return read_record(_Trained, path)
    except DataError:
        return _Trained()


@dataclass(frozen=True)
class AskedModel:
    """A model of a call, as far as a comparison asks."""

    path: str | None = None
    sha256: str | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class MadeCall:
    """A manifest of a call, as far as a comparison asks; what a version did not write yet is absent."""

    models: tuple[AskedModel, ...] = ()
    versions: dict[str, str | None] = field(default_factory=dict)
    hardware: dict[str, Any] | None = None


def read_call(folder: Path, name: str) -> MadeCall | None:
    """Return a manifest beside the rows in ``folder``, None where there is none of that id.

    Raises DataError for a damaged one.
    """
    path = folder / FOLDER / f"{file_name(name)}.json"
    return read_record(MadeCall, path) if os.path.lexists(path) else None


def _directory() -> str:
    """Return where the command was typed; empty where that folder was removed since."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
