"""What the engine trains: a stage is a module that returns its losses, and the groups its optimisers step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from lsgm.config import StageConfig
from lsgm.devices import device_of
from lsgm.distributed import World
from lsgm.rng import StepNoise
from lsgm.train.optim import ParamGroup, WeightAverage

VALIDATION_BATCH = 256
"""Held-out images that are looked at together."""


class Losses(NamedTuple):
    """What a stage's forward returns: means over the local rows, so that processes average exactly."""

    total: Tensor
    """The scalar that `backward` is called on."""
    terms: dict[str, Tensor]
    """Scalars to log, in an order that blames the cause first when one of them is not finite."""


class Stage:
    """One training stage.

    `module(levels, noise, progress) -> Losses` takes uint8 levels [b, C, H, W], the step's noise and the
    share of the stage that is done, in [0, 1]. Parameters of `module` that are in no group are frozen.
    """

    name: str
    """The stage's name in logs, checkpoints and messages."""
    config: StageConfig
    """Budget and mechanics."""
    ema_of: tuple[str, ...] = ("",)
    """Names of the child modules whose weights are averaged; ``""`` is the whole module."""
    compile_of: tuple[str, ...] = ("",)
    """Names of the child modules that `StageConfig.compile` compiles."""

    @property
    def module(self) -> nn.Module:
        """Everything that is saved; its forward returns `Losses`."""
        raise NotImplementedError

    def groups(self) -> list[ParamGroup]:
        """Return the parameters to train, each in one group."""
        raise NotImplementedError

    def attach(self, average: WeightAverage) -> None:
        """Take the average of the stage's weights, if it has a use for it; called once."""

    def prepare(self, images: TrainingSet, *, fresh: bool) -> TrainingSet | None:
        """Look through the images before the first step that this call makes, when the weights are in place.

        On every process; ``fresh`` says that the stage begins: a resumed one has what it then found in its
        weights and buffers. Batches come from what is returned, if that is anything.
        """
        return None

    def validate(self, levels: Tensor, seed: int) -> dict[str, float]:
        """Return scores on held-out levels: every term's mean, with noise that is the same at every call.

        Called in eval mode with the averaged weights in place.
        """
        sums: dict[str, float] = {}
        device = device_of(self.module)
        for index, batch in enumerate(torch.split(levels, VALIDATION_BATCH)):
            noise = StepNoise(f"validation/{seed}", index, global_batch=len(batch), device=device)
            for name, value in self.module(batch.to(device), noise, 1.0).terms.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(batch)
        return {name: total / len(levels) for name, total in sums.items()}


@dataclass(frozen=True)
class StageSpec:
    """A stage to come: built only when its turn is reached, from the averaged weights of the stage before."""

    name: str
    config: StageConfig
    build: Callable[[], Stage]


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
    """Where the batches of a stage come from: the training images, or what it has made of them."""

    source: BatchSource
    pipeline: Pipeline
    seed: int
    world: World


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
    exit_status: int = 0
    """What the process should exit with: 0, 130 after Ctrl-C, 143 after SIGTERM."""
    checkpoint: Path | None = None
    """The newest checkpoint."""
