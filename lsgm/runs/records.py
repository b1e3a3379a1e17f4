"""What `state.json` of a checkpoint and `manifest.json` of a run say; files are held against it when read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from copy import copy
from dataclasses import asdict, dataclass, field
from typing import Any

from lsgm.config import StageConfig, require
from lsgm.errors import CheckpointError


@dataclass
class Position:
    """The counters of a run: `step` and `images` go on over the stages, the others start anew.

    ``cpu_seconds`` are those of the training steps, of all threads and processes together; None where a part
    of the stage was trained by a version that did not count them.
    """

    step: int = 0
    stage: str = ""
    stage_step: int = 0
    seconds: float = 0.0
    images: int = 0
    stage_done: bool = False
    finished: bool = False
    seconds_by_stage: dict[str, float] = field(default_factory=dict)
    cpu_seconds: float | None = 0.0
    cpu_seconds_by_stage: dict[str, float | None] = field(default_factory=dict)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Position:
        """Return the position in a checkpoint's `state.json`; CheckpointError where it is incomplete."""
        later: dict[str, Any] = {"cpu_seconds": None, "cpu_seconds_by_stage": {}}
        known = {**later, **{name: value for name, value in state.items() if value is not None}}
        absent = [name for name in cls.__dataclass_fields__ if name not in known]
        if absent:
            raise CheckpointError(
                f"the checkpoint's state.json does not say '{absent[0]}', without which nothing goes on from "
                "it; restore it from a copy"
            )
        return cls(**{name: copy(known[name]) for name in cls.__dataclass_fields__})

    def as_dict(self) -> dict[str, Any]:
        """Return the counters as JSON values."""
        return asdict(self)

    def enter(self, stage: str) -> None:
        """Begin a stage."""
        self.stage, self.stage_step, self.seconds, self.stage_done = stage, 0, 0.0, False
        self.cpu_seconds = 0.0

    def progress(self, config: StageConfig) -> float:
        """Return the share of the stage's schedules that is done, in [0, 1]."""
        return min(self._used(config) / config.schedule, 1.0)

    def is_over(self, config: StageConfig) -> bool:
        """Return whether the stage's budget is used up."""
        return self._used(config) >= config.budget

    def _used(self, config: StageConfig) -> float:
        return self.stage_step if config.seconds is None else self.seconds

    def advance(self, images: int, seconds: float, config: StageConfig) -> None:
        """Count one step, and see whether it was the stage's last."""
        self.step += 1
        self.stage_step += 1
        self.images += images
        self.seconds = seconds
        self.seconds_by_stage[self.stage] = seconds
        self.stage_done = self.is_over(config)

    def count_cpu(self, seconds: float | None) -> None:
        """Take note of the processor's seconds of the stage up to now."""
        self.cpu_seconds = self.cpu_seconds_by_stage[self.stage] = seconds


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
class LossScale:
    """The factor on the loss of a stage in float16, and the steps since it last overflowed or grew."""

    scale: float
    steps: int

    def __post_init__(self) -> None:
        require(_counts(self.scale) and self.scale > 0, f"scale is {self.scale}; it must be above 0")
        require(self.steps >= 0, f"steps is {self.steps}; it cannot be negative")


@dataclass(frozen=True)
class ModelMeta:
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
    cpu_seconds: float | None = None

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
    license: str = ""


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
    cpu_seconds: float | None = None
    cpu_seconds_by_stage: dict[str, float | None] | None = None
    seed: int | None = None
    ema_updates: int = 0
    log: Logged | None = None
    scaler: LossScale | None = None
    shapes: dict[str, tuple[int, ...]] | None = None
    name: str | None = None
    parameters: dict[str, int] | None = None
    meta: ModelMeta | None = None
    exported: ExportedState | None = None

    def __post_init__(self) -> None:
        require(self.format >= 1, f"format is {self.format}; it must be at least 1")
        _refuse_negative(self)
        for stage, seconds in (self.seconds_by_stage or {}).items():
            require(_counts(seconds), f"seconds-by-stage of '{stage}' is {seconds}")
        for stage, cpu in (self.cpu_seconds_by_stage or {}).items():
            require(cpu is None or _counts(cpu), f"cpu-seconds-by-stage of '{stage}' is {cpu}")
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


@dataclass(frozen=True)
class Hardware:
    """The machine of a call."""

    processor: str
    cores: int | None
    threads: int
    processes: int
    gpus: tuple[str, ...] = ()
    system: str = ""


@dataclass(frozen=True)
class Call:
    """A call of `lsgm train` that went on with the run."""

    time: str | None = None
    argv: tuple[str, ...] = ()
    git_revision: str | None = None
    versions: dict[str, str | None] = field(default_factory=dict)
    hardware: Hardware | None = None
    changed: dict[str, tuple[Any, Any]] | None = None
    """Key -> what it was and what it is from this call on."""


@dataclass(frozen=True)
class TrainedOn:
    """The training images."""

    name: str | None = None
    version: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class OriginSaid:
    """Whose weights a run was begun from."""

    option: str
    path: str
    sha256: str | None = None


@dataclass(frozen=True)
class RunManifest(Call):
    """`manifest.json`: the first call, what it trained on, and every call after it."""

    run_id: str | None = None
    seed: int | None = None
    dataset: TrainedOn | None = None
    origin: OriginSaid | None = None
    resumed: tuple[Call, ...] | None = None
