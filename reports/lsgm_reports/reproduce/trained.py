"""Trained models: where the very weights of a number lie, and the command that trains a run again.

Both are told by checksums and files, without torch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from lsgm.config import require
from lsgm.errors import DataError, UserError
from lsgm.files.limits import WEIGHTS
from lsgm.files.names import shown
from lsgm.files.regular import open_regular
from lsgm.files.text import read_record, read_toml
from lsgm.recipes import ORIGINS
from lsgm.results.manifest import MOST, MeasuredModel
from lsgm.runs.provenance import git_revision
from lsgm_reports.reproduce.apart import no_option
from lsgm_reports.reproduce.checks import Again, Check, check_code, check_versions, thread_setting

__all__ = [
    "Located",
    "find_weights",
    "is_training_run",
    "locate",
    "newest_checkpoint",
    "read_training_run",
    "same_weights",
    "weights_sha256",
]

PATTERNS = ("", "*/", "*/*/")
"""How deep checkpoints and runs are looked for below a folder."""


@dataclass(frozen=True)
class Located:
    """What to write for a model on a command line, and how sure it is that it is the same one."""

    word: str | None
    """None where the weights are not found."""
    state: Literal["ok", "missing", "unknown"]
    """``unknown`` where only measuring can tell."""
    text: str


@dataclass(frozen=True)
class _ListedFile:
    """What a checkpoint's ``state.json`` says of one of its files."""

    sha256: str = ""


@dataclass(frozen=True)
class _Recorded:
    """What is read of a checkpoint's ``state.json``."""

    files: dict[str, _ListedFile] = field(default_factory=dict)


def locate(model: MeasuredModel, directory: Path, places: Sequence[Path]) -> Located:
    """Return where a model is, looking at where it was, then below ``places`` for weights of its checksum.

    The word that named it is kept where it leads there from ``directory``; another may name something else.
    A run that was trained further still holds what it was measured with as one of its checkpoints, unless
    that was removed. Ready images and factories are named as they were: their checksum is seen when measured.
    """
    was = Path(model.path) if model.path is not None else None
    if was is None and ":" in model.spec:
        return Located(model.spec, "unknown", f"{model.name} is made by {model.spec.rpartition('=')[2]}")
    if was is not None and os.path.exists(was) and not _checkpoints(was):
        word = _word(model, was, directory)
        return Located(word, "unknown", f"{model.name} is {was}: its images are checked when measured")
    if model.sha256 is None:
        return Located(None, "missing", f"nothing says which weights {model.name} had")
    if was is not None and (found := find_weights(model.sha256, [was])) is not None:
        newest = found == _checkpoints(was)[-1]
        word = _word(model, was, directory) if newest else _named(model.name, found)
        return Located(word, "ok", f"{model.name} is {was if newest else found}, sha256 {model.sha256[:12]}")
    found = find_weights(model.sha256, [_place_of(model.spec, directory), *places])
    if found is not None:
        said = f"{model.name} is {found} now, sha256 {model.sha256[:12]}"
        return Located(_named(model.name, found), "ok", said)
    there = f"{was} has others" if was and os.path.exists(was) else f"not at {was}" if was else "nowhere"
    return Located(None, "missing", f"{model.name} with weights of sha256 {model.sha256[:12]}: {there}")


def _word(model: MeasuredModel, place: Path, directory: Path) -> str:
    """Return the word of a model at a place: as it was, where that means this place in ``directory``."""
    same = os.path.realpath(_place_of(model.spec, directory)) == os.path.realpath(place)
    return model.spec if same else _named(model.name, place)


def _place_of(spec: str, directory: Path) -> Path:
    """Return the place of ``PLACE`` or ``NAME=PLACE``, as `lsgm_eval.models` reads it."""
    name, equals, rest = spec.partition("=")
    named = equals and "/" not in name and not os.path.exists(directory / spec)
    return directory / os.path.expanduser(rest if named else spec)


def find_weights(sha256: str, places: Sequence[Path]) -> Path | None:
    """Return the first checkpoint, at or below ``places``, whose averaged weights have this checksum.

    The file itself is hashed, not only what lies beside it asked.
    """
    for place in places:
        for checkpoint in reversed(_checkpoints(place)):
            if _recorded(checkpoint) == sha256 and weights_sha256(checkpoint) == sha256:
                return checkpoint
    return None


def newest_checkpoint(run: Path) -> Path | None:
    """Return the newest checkpoint of a run, or the checkpoint that a folder is; None where there is none."""
    found = _checkpoints(run)
    return found[-1] if found else None


def _checkpoints(place: Path) -> list[Path]:
    """Return the checkpoints at a folder or a little below it, in the order of their paths."""
    return sorted(set(_found(place))) if os.path.isdir(place) else []


def _found(place: Path) -> Iterator[Path]:
    if os.path.isfile(place / "state.json"):
        yield place
        return
    try:
        for depth in PATTERNS:
            for file in place.glob(f"{depth}state.json"):
                yield file.parent
            for file in place.glob(f"{depth}checkpoints/*/state.json"):
                yield file.parent
    except OSError as error:
        raise DataError(
            f"{shown(str(place))} cannot be looked through ({error.strerror}); make it readable"
        ) from error


def _recorded(checkpoint: Path) -> str | None:
    try:
        listed = read_record(_Recorded, checkpoint / "state.json").files
    except UserError:
        return None
    return listed.get("ema.safetensors", _ListedFile()).sha256 or None


def weights_sha256(checkpoint: Path) -> str | None:
    """Return the sha256 of a checkpoint's averaged weights, None where they cannot be read."""
    path = checkpoint / "ema.safetensors"
    try:
        about = os.stat(path)
        return _sha256(path, about.st_size, about.st_mtime_ns)
    except (UserError, OSError):
        return None


@lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, modified: int) -> str:
    """Return a file's sha256, found once while it stays as it is: many models may name one file."""
    WEIGHTS.hold(path, size)
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _named(name: str, path: Path) -> str:
    """Return ``NAME=PATH``, with a path that holds in every working directory."""
    return str(path.absolute()) if "/" in name or "=" in name else f"{name}={path.absolute()}"


@dataclass(frozen=True)
class _Images:
    """What a run's manifest says of its images."""

    name: str = "unknown"
    version: int | str | None = None
    sha256: str = ""


@dataclass(frozen=True)
class _Hardware:
    """What is read of the machine that a run was trained on."""

    cores: int | None = None
    threads: int | None = None
    processes: int | None = None

    def __post_init__(self) -> None:
        for name, count in vars(self).items():
            require(count is None or 1 <= count <= MOST, f"{name} are {count}; there are 1 to {MOST}")


@dataclass(frozen=True)
class _Run:
    """What is read of a training run's ``manifest.json``."""

    versions: dict[str, str | None]
    dataset: _Images
    hardware: _Hardware
    git_revision: str | None = None
    resumed: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        require(len(self.versions) <= MOST, f"versions are {len(self.versions)}; at most {MOST} are read")


def is_training_run(place: Path) -> bool:
    """Say whether a folder is one of a training run."""
    return all(os.path.exists(place / name) for name in ("config.toml", "manifest.json"))


def read_training_run(folder: Path, out: Path, device: str = "") -> Again:
    """Return how to train a run again, into ``out``. Raises DataError where its files cannot be read.

    Of its configuration nothing is run and nowhere is written by it: it names images and weights that are
    read, kinds of models that are installed, and numbers.
    """
    config = read_toml(folder / "config.toml", DataError)
    run = read_record(_Run, folder / "manifest.json", DataError)
    origins = {key: _text(config, key, folder) for key in ORIGINS if config.get(key)}
    remarks = [f"it was resumed {len(run.resumed)} times, which changes no weight"] if run.resumed else []
    if by_time := [
        name for name, stage in config.items() if isinstance(stage, dict) and stage.get("seconds")
    ]:
        remarks.append(
            f"{' and '.join(by_time)} ends after seconds of training: other machines take other steps"
        )
    images = f"{run.dataset.name}@{run.dataset.version}, sha256 {run.dataset.sha256[:12]}"
    machine = ", ".join(f"{count} {name}" for name, count in vars(run.hardware).items())
    options = ["--device", device] if device else []
    return Again(
        ("lsgm", "train", no_option(str(folder / "config.toml")), "--out", str(out), *options),
        Path.cwd(),
        thread_setting(run.hardware.threads) if run.hardware.threads is not None else {},
        1,
        [
            check_code(run.git_revision, git_revision()),
            check_versions(run.versions),
            *(_origin(origin) for origin in origins.values()),
            Check("data", "unknown", f"{images}, read from {_dataset(config)}: compare with `lsgm data ls`"),
            Check("hardware", "unknown", f"trained with {machine}"),
        ],
        remarks,
    )


def _text(config: Mapping[str, Any], key: str, folder: Path) -> str:
    value = config[key]
    if not isinstance(value, str):
        raise DataError(
            f"{folder / 'config.toml'}: '{key}' is {value!r:.60}, not a path; restore it from a copy"
        )
    return value


def _dataset(config: Mapping[str, Any]) -> str:
    """Return what the configuration reads images from."""
    data = config.get("data")
    named = data.get("dataset") if isinstance(data, dict) else None
    return named if isinstance(named, str) else "what its recipe says"


def _origin(name: str) -> Check:
    """Say whether the run is still there that another one was begun from."""
    place = Path(os.path.expanduser(os.path.expandvars(name)))
    found = newest_checkpoint(place)
    if found is None:
        return Check("weights", "missing", f"it was begun from {place}, which holds no checkpoint here")
    said = f"it was begun from {place}, now at {found.name}, whose checksum was not recorded"
    return Check("weights", "unknown", said)


def same_weights(folder: Path, out: Path) -> tuple[bool, str]:
    """Return whether the newest averaged weights of two runs are the same, and a sentence."""
    ends = [newest_checkpoint(place) for place in (folder, out)]
    if ends[0] is None or ends[1] is None:
        return False, f"{folder if ends[0] is None else out} holds no checkpoint to compare"
    if ends[0].name != ends[1].name:
        return False, f"trained to {ends[1].name}, and the run went to {ends[0].name}"
    first, second = (weights_sha256(end) for end in ends if end is not None)
    if first is None or second is None:
        unread = ends[0] if first is None else ends[1]
        return False, f"the weights of {unread} cannot be read, and so not compared"
    if first == second:
        return True, f"equal to the last bit: {ends[0].name} has weights of sha256 {first[:12]} in both"
    return False, (
        f"the weights of {ends[0].name} differ: they are the same only on the same code, versions, processor "
        "and threads; `lsgm compare` tells whether what they measure does"
    )
