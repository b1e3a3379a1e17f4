"""The training engine: stages, budgets, checkpoints, processes, signals. It knows no model."""

from __future__ import annotations

from lsgm.distributed import World, join
from lsgm.train.checkpoint import find_checkpoint, load_weights, read_state
from lsgm.train.guard import TrainingError
from lsgm.train.loop import train
from lsgm.train.metrics import read_metrics
from lsgm.train.rundir import Run
from lsgm.train.stage import Losses, Outcome, ParamGroup, Pipeline, Source, Stage, StageSpec
from lsgm.train.timing import StepTimer

__all__ = [
    "Losses",
    "Outcome",
    "ParamGroup",
    "Pipeline",
    "Run",
    "Source",
    "Stage",
    "StageSpec",
    "StepTimer",
    "TrainingError",
    "World",
    "find_checkpoint",
    "join",
    "load_weights",
    "read_metrics",
    "read_state",
    "train",
]
