"""What `state.json` of a checkpoint says, as typed records that the file is held against when it is read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lsgm.config import require

__all__ = ["CheckpointState", "ExportedState", "Meta", "SavedFile"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST = 200
"""Characters of a name."""


@dataclass(frozen=True)
class SavedFile:
    """A file beside `state.json`."""

    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        require(self.bytes >= 0, f"bytes is {self.bytes}; it cannot be negative")
        require(_SHA256.fullmatch(self.sha256) is not None, "sha256 is not 64 hexadecimal digits")


@dataclass(frozen=True)
class Logged:
    """Sums over the steps since the last row of metrics.jsonl."""

    count: int
    sums: tuple[float, ...]

    def __post_init__(self) -> None:
        require(self.count >= 0, f"count is {self.count}; it cannot be negative")


@dataclass(frozen=True)
class Meta:
    """What the model is made of and from; further keys are the caller's own."""

    recipe: dict[str, Any] | None = None
    pixels: dict[str, Any] | None = None
    dataset: str | None = None
    """NAME@VERSION@SHA256 of the training images."""
    recalibrated: dict[str, Any] | None = None
    imported: dict[str, Any] | None = None
    moments: dict[str, Any] | None = None


@dataclass(frozen=True)
class StageBudget:
    """What a stage was trained for; None where the run no longer tells."""

    name: str
    steps: int | None = None
    images: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        _refuse_negative(self)


@dataclass(frozen=True)
class EarlierRun:
    """A run that another was begun from."""

    run: str
    git_revisions: tuple[str, ...]
    stages: tuple[StageBudget, ...]


@dataclass(frozen=True)
class ExportedState:
    """What an exported checkpoint says of its training; the model card prints it."""

    dtype: str = ""
    has_prior: bool = False
    run: str = ""
    checkpoint: str = ""
    sha256: str = ""
    stages: tuple[StageBudget, ...] = ()
    run_id: str | None = None
    started: str | None = None
    git_revisions: tuple[str, ...] = ()
    hardware: tuple[str, ...] = ()
    versions: dict[str, str | None] = field(default_factory=dict)
    initialised_from: str | None = None
    earlier: tuple[EarlierRun, ...] = ()
    validation: dict[str, float | None] | None = None
    limits: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckpointState:
    """`state.json`; what a checkpoint of some sort need not have has a default."""

    format: int
    files: dict[str, SavedFile] = field(default_factory=dict)
    step: int = 0
    stage: str = ""
    stage_step: int = 0
    seconds: float = 0.0
    images: int = 0
    stage_done: bool = False
    finished: bool = False
    seconds_by_stage: dict[str, float] | None = None
    seed: int | None = None
    ema_updates: int = 0
    log: Logged | None = None
    shapes: dict[str, tuple[int, ...]] | None = None
    name: str | None = None
    parameters: dict[str, int] | None = None
    meta: Meta | None = None
    exported: ExportedState | None = None

    def __post_init__(self) -> None:
        require(self.format >= 1, f"format is {self.format}; it must be at least 1")
        _refuse_negative(self)
        for stage, seconds in (self.seconds_by_stage or {}).items():
            require(_counts(seconds), f"seconds-by-stage of '{stage}' is {seconds}")
        for part, count in (self.parameters or {}).items():
            require(_counts(count), f"parameters of '{part}' is {count}")
        require(len(self.name or "") <= _LONGEST, f"name has more than {_LONGEST} characters")


def _counts(value: Any) -> bool:
    return math.isfinite(value) and value >= 0


def _refuse_negative(record: Any) -> None:
    """Raise ConfigError for a count or a duration that is negative, infinite or no number."""
    own: Mapping[str, Any] = vars(record)
    for name, value in own.items():
        if isinstance(value, int | float) and name != "seed":
            require(_counts(value), f"{name.replace('_', '-')} is {value}; it must be a number of at least 0")
