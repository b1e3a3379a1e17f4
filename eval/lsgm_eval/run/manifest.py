"""Manifests: what a measuring call was given and what it ran on, so that it can be made again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lsgm.data.places import file_sha256
from lsgm.errors import DataError
from lsgm.files.names import spelt
from lsgm.files.text import read_table
from lsgm.files.write import atomic_path
from lsgm.generative import GenerativeModel
from lsgm.results.manifest import FOLDER, FORMAT, Manifest, MeasuredModel, MeasuredTask, digest_of
from lsgm.runs.checkpoint import located
from lsgm.runs.provenance import git_revision, hardware, versions
from lsgm.structure import to_dict
from lsgm_eval.cache import code_version
from lsgm_eval.models import packages_of
from lsgm_eval.task import Images, Task

ENVIRONMENT = ("LSGM_DATA", "OMP_NUM_THREADS")
"""Variables by which a call finds its data and divides its sums among threads."""

PACKAGES = ("torch-fidelity", "clean-fid")
"""What measures, beside what `lsgm.runs.provenance.versions` names."""


@dataclass(frozen=True)
class MeasuringCall:
    """A call that measures, whose rows each name a manifest with the command that makes just them again."""

    out: Path
    about: Manifest
    """Of `describe_call`."""
    line: Callable[[Sequence[str], Mapping[str, Any]], Sequence[str]] = lambda words, changes: ()
    """From models, by the words that named them, and options that are others to the command line for them."""

    def again(self, names: Sequence[str], changes: Mapping[str, Any]) -> str:
        """Write the manifest of some rows and return its id.

        They are of the models ``names``, and the call with ``changes`` of its options makes them again.
        """
        models = tuple(model for model in self.about.models if model.name in names)
        again = self.line([model.spec for model in models], changes)
        return write_manifest(self.out, replace(self.about, models=models, again=tuple(map(spelt, again))))


def write_manifest(out: Path, about: Manifest) -> str:
    """Write ``out/manifests/<id>.json`` atomically and return the id.

    The id is the first 12 hexadecimal digits of the SHA-256 of the content as canonical JSON, without the
    time: the same call on the same machine, begun again, has the same manifest, which stays as the first of
    them wrote it. Raises DataError where the file cannot be written.
    """
    content = {key: value for key, value in asdict(about).items() if key not in ("id", "started")}
    name = digest_of(content)[:12]
    path = out / FOLDER / f"{name}.json"
    if not path.exists():
        record = {"format": FORMAT, "id": name, "started": _now(), **content}
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="ascii")
    return name


def words_of(options: Any, *positional: str, prefix: str = "") -> list[str]:
    """Return the words from which `lsgm.options.parse` makes these options; defaults are left out.

    ``positional`` are the fields that stand without a name, ``prefix`` is what names begin with.
    """
    first, words = list[str](), list[str]()
    for each in fields(options):
        value, name = getattr(options, each.name), f"--{prefix}{each.name.replace('_', '-')}"
        if each.name in positional:
            first += [value] if isinstance(value, str) else value
        elif is_dataclass(value):
            words += words_of(value, prefix=f"{name[2:]}.")
        elif value == each.default:
            continue
        elif isinstance(value, bool):
            words.append(name if value else f"--{prefix}no-{name[2 + len(prefix) :]}")
        elif isinstance(value, tuple) and prefix:  # several values of one option, not one each time
            words += [name, *map(str, value)]
        else:
            for text in map(str, value if isinstance(value, tuple) else (value,)):
                # A value that begins with a dash would be read as an option.
                words += [f"{name}={text}"] if text.startswith("-") else [name, text]
    return [*first, *words]


def describe_call(
    command: Sequence[str],
    models: Mapping[str, GenerativeModel],
    task: Task,
    tier: str,
    dataset: str | None = None,
    device: torch.device | str = "cpu",
    images: Images | None = None,
    seed: int | None = None,
) -> Manifest:
    """Return the manifest of a whole call, but for its id and the time.

    ``command`` is the line as one would type it, ``models`` the models by the words that named them there,
    ``dataset`` is ``name@version@sha256`` where the images are loaded already; every row names it in any
    case.
    """
    packages = set().union(*(packages_of(model) for model in models.values()))
    try:
        directory = os.getcwd()
    except OSError:  # that folder was removed since
        directory = ""
    return Manifest(
        id="",
        started="",
        command=tuple(map(spelt, command)),
        directory=spelt(directory),
        environment={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        git_revision=git_revision(),
        code_version=code_version("lsgm", "lsgm_eval", *packages),
        versions={**versions(), **{name: _version(name) for name in PACKAGES}},
        hardware=hardware(),
        device=str(device),
        models=tuple(_described(spec, model) for spec, model in models.items()),
        task=MeasuredTask(
            task.identity(tier, images=images, seed=seed),
            digest_of(to_dict(task)),
            task.dataset,
            dataset,
            tuple(space.extractor for space in task.spaces),
        ),
    )


def _described(spec: str, model: GenerativeModel) -> MeasuredModel:
    """Return which model a word of the command line was: weights, place, size, and its training run.

    A checkpoint that was exported says itself which run it is from.
    """
    name, found, rest = spec.partition("=")
    named = found and "/" not in name and not os.path.exists(spec)
    path = Path(os.path.abspath(located(os.path.expanduser(rest if named else spec))))
    there, run_id, config_sha256 = os.path.exists(path), None, None
    if os.path.isdir(path):
        run = path.parent.parent if path.parent.name == "checkpoints" else path
        run_id = _run_id(run / "manifest.json") or _run_id(path / "state.json")
        config_sha256 = file_sha256(config) if os.path.isfile(config := run / "config.toml") else None
    return MeasuredModel(
        model.name,
        spelt(spec),
        spelt(str(path)) if there else None,
        model.sha256,
        dict(model.parameters),
        getattr(model, "available", None),
        run_id,
        config_sha256,
    )


def _run_id(path: Path) -> str | None:
    """Return the training run of a run's manifest or an exported checkpoint's state.

    None where the file is absent or damaged, since what it says is a courtesy.
    """
    try:
        said = read_table(path)
    except DataError:
        return None
    exported = said.get("exported")
    found = said.get("run_id") or (exported.get("run_id") if isinstance(exported, dict) else None)
    return found if isinstance(found, str) else None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
