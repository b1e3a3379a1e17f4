"""Manifests: what a measuring call was given and what it ran on, so that it can be made again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lsgm.data.store import file_sha256
from lsgm.files.write import atomic_path
from lsgm.generative import GenerativeModel
from lsgm.revision import git_revision
from lsgm.structure import to_dict
from lsgm.train.provenance import hardware, versions
from lsgm_eval.cells import cell_key
from lsgm_eval.code_version import code_version
from lsgm_eval.model_specs import packages_of
from lsgm_eval.tasks import Images, Task

__all__ = ["FOLDER", "FORMAT", "describe_call", "write_manifest"]

FORMAT = 1
"""Version of the layout; a reader refuses a newer one."""

FOLDER = "manifests"
"""Beside ``results.jsonl``."""

ENVIRONMENT = ("LSGM_DATA", "OMP_NUM_THREADS")
"""Variables by which a call finds its data and divides its sums among threads."""

PACKAGES = ("torch-fidelity", "clean-fid")
"""What measures, beside what `lsgm.train.provenance.versions` names."""


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
    """Write ``out/manifests/<id>.json`` atomically and return the id.

    The id is the first 12 hexadecimal digits of the SHA-256 of the content as canonical JSON, without the
    time: the same call on the same machine, begun again, has the same manifest, which stays as the first of
    them wrote it. ``command`` is the line as one would type it, ``models`` the models by the words that named
    them there, ``dataset`` is ``name@version@sha256`` where the images are loaded already; every row names it
    in any case. Raises DataError where the file cannot be written.
    """
    content = describe_call(command, models, task, tier, dataset, device, images)
    name = cell_key(content)[:12]
    path = out / FOLDER / f"{name}.json"
    if path.exists():
        return name
    record = {"format": FORMAT, "id": name, "started": _now(), **content}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="ascii")
    return name


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
        "command": list(command),
        "directory": str(Path.cwd()),
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        "git_revision": git_revision(),
        "code_version": code_version("lsgm", "lsgm_eval", *packages),
        "versions": {**versions(), **{name: _version(name) for name in PACKAGES}},
        "hardware": hardware(),
        "device": str(device),
        "models": [_described(spec, model) for spec, model in models.items()],
        "task": {
            "identity": task.identity(tier, images=images),
            "sha256": cell_key(to_dict(task)),
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
        "spec": spec,
        "path": None if path is None else str(path),
        "sha256": model.sha256,
        "parameters": dict(model.parameters),
        # Of ready images how many there are, of which a number may be of fewer.
        **({} if (images := getattr(model, "available", None)) is None else {"images": images}),
        **_training(path),
    }


def _path_of(spec: str) -> Path | None:
    """Return the folder or file of ``PATH`` or ``NAME=PATH``, absolute; None for a factory's word."""
    name, found, rest = spec.partition("=")
    named = found and "/" not in name and not Path(spec).exists()
    path = Path(rest if named else spec).expanduser()
    return path.absolute() if path.exists() else None


def _training(path: Path | None) -> dict[str, Any]:
    """Return id and configuration's sha256 of the run in a folder; None where there is no run to ask.

    A checkpoint that was exported says itself which run it is from.
    """
    found: dict[str, Any] = {"run_id": None, "config_sha256": None}
    if path is None or not path.is_dir():
        return found
    run = path.parent.parent if path.parent.name == "checkpoints" else path
    manifest, state = _json(run / "manifest.json"), _json(path / "state.json")
    found["run_id"] = manifest.get("run_id") or (state.get("exported") or {}).get("run_id")
    if (config := run / "config.toml").is_file():
        found["config_sha256"] = file_sha256(config)
    return found


def _json(path: Path) -> dict[str, Any]:
    """Return a JSON object, an empty one where the file is absent or damaged: what it says is a courtesy."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
