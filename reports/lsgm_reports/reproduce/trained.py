"""From a training run to the command that trains it again, and whether the weights came out the same."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lsgm.config import require
from lsgm.errors import DataError
from lsgm.files.text import read_record, read_toml
from lsgm.recipes import ORIGINS
from lsgm.results.manifest import MOST
from lsgm.runs.provenance import git_revision
from lsgm_reports.reproduce.apart import no_option
from lsgm_reports.reproduce.checks import Check, check_code, check_versions, thread_setting
from lsgm_reports.reproduce.weights import newest_checkpoint, weights_sha256

__all__ = ["TrainAgain", "is_training_run", "read_training_run", "same_weights"]


@dataclass(frozen=True)
class TrainAgain:
    """A training run and how to train it again."""

    folder: Path
    argv: tuple[str, ...]
    """``lsgm train RUN/config.toml --out OUT ...``."""
    environment: dict[str, str]
    checks: list[Check]
    remarks: list[str]

    @property
    def missing(self) -> list[str]:
        """What is not here and without which the command cannot run."""
        return [check.text for check in self.checks if check.state == "missing"]

    @property
    def shell(self) -> str:
        """The command for a shell."""
        words = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*words, shlex.join(self.argv)])


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


def read_training_run(folder: Path, out: Path, device: str = "") -> TrainAgain:
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
    return TrainAgain(
        folder,
        ("lsgm", "train", no_option(str(folder / "config.toml")), "--out", str(out), *options),
        thread_setting(run.hardware.threads) if run.hardware.threads is not None else {},
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
