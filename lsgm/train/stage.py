"""What the engine trains: a stage is a module that returns its losses, and the groups its optimisers step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from torch import Tensor, nn

from lsgm.config import OptimConfig, StageConfig
from lsgm.distributed import World
from lsgm.rng import StepNoise

__all__ = [
    "BatchSource",
    "Feed",
    "Losses",
    "Outcome",
    "ParamGroup",
    "Pipeline",
    "Stage",
    "StageSpec",
    "TrainingSet",
]


class Losses(NamedTuple):
    """What a stage's forward returns: means over the local rows, so that processes average exactly."""

    total: Tensor
    """The scalar that `backward` is called on."""
    terms: dict[str, Tensor]
    """Scalars to log, in an order that blames the cause first when one of them is not finite."""


@dataclass(frozen=True)
class ParamGroup:
    """Parameters that share an optimiser, a schedule and a gradient norm."""

    name: str
    params: Sequence[nn.Parameter]
    config: OptimConfig


class Stage(Protocol):
    """One training stage.

    `module(levels, noise, progress) -> Losses` takes uint8 levels [b, C, H, W], the step's noise and the
    share of the stage that is done, in [0, 1]. Parameters of `module` that are in no group are frozen. It
    may also have

    - `compile_of`, a tuple of names of the child modules that `StageConfig.compile` compiles; without it that
      is the whole module;
    - `attach(average)`, called once with the `WeightAverage` of the stage's weights;
    - `prepare(images, *, fresh) -> Feed | None`, called once with the `TrainingSet`, on every process, before
      the first step that this call makes, when the weights are in place. `fresh` says that the stage begins;
      a resumed one has what it then found in its weights and buffers. With a `Feed`, batches come from there.
    """

    @property
    def name(self) -> str:
        """The stage's name in logs, checkpoints and messages."""

    @property
    def config(self) -> StageConfig:
        """Budget and mechanics."""

    @property
    def module(self) -> nn.Module:
        """Everything that is saved; its forward returns `Losses`."""

    @property
    def ema_of(self) -> tuple[str, ...]:
        """Names of the child modules whose weights are averaged; ``""`` is the whole module."""

    def groups(self) -> list[ParamGroup]:
        """Return the parameters to train, each in one group."""

    def validate(self, levels: Tensor, seed: int) -> dict[str, float]:
        """Return scores on held-out levels; called in eval mode with the averaged weights in place."""


@dataclass(frozen=True)
class StageSpec:
    """A stage to come: built only when its turn is reached, from the weights the stage before has left."""

    name: str
    config: StageConfig
    build: Callable[[], Stage]
    carry: Literal["weights", "ema"] = "ema"
    """Whether the stage after this one starts from this one's averaged weights or from the last raw ones."""


class BatchSource(Protocol):
    """Training images by index."""

    def __len__(self) -> int:
        """Return the number of images."""

    def batch(self, indices: Tensor, /) -> Tensor:
        """Return the uint8 images [b, C, H, W] of some indices, on the training device."""

    def prefetch(self, indices: Tensor, /) -> None:
        """Hear the indices of the next batch, to read it meanwhile."""


class Pipeline(Protocol):
    """From stored grey values to the levels a model is scored on (binarisation, flips, padding)."""

    def levels(self, raw: Tensor, noise: StepNoise, /) -> Tensor:
        """Return uint8 levels [b, C, H, W] of uint8 images [b, C, H, W]."""


@dataclass(frozen=True)
class TrainingSet:
    """The training images as a stage may look through them before its first step."""

    source: BatchSource
    pipeline: Pipeline
    seed: int
    world: World


class Feed(NamedTuple):
    """Where the batches of a stage come from that does not train on the images themselves."""

    source: BatchSource
    pipeline: Pipeline


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended."""

    finished: bool
    """All stages have used up their budgets."""
    stage: str
    """The stage it ended in."""
    step: int
    """Optimiser steps done, over all stages."""
    seconds_by_stage: dict[str, float]
    """Training seconds of each stage, without validation and checkpoints."""
    interrupted: bool = False
    """Ended by Ctrl-C or SIGTERM."""
    exit_status: int = 0
    """What the process should exit with: 0, 130 after Ctrl-C, 143 after SIGTERM."""
    checkpoint: Path | None = None
    """The newest checkpoint."""
