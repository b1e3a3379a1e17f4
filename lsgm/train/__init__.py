"""The training engine: stages, budgets, checkpoints, processes, signals. It knows no model."""

from __future__ import annotations

from lsgm.distributed import World, join
from lsgm.runs.checkpoint import find_checkpoint, load_weights, read_state
from lsgm.runs.directory import Run
from lsgm.runs.metrics import read_metrics
from lsgm.train.loop import train
from lsgm.train.signals import StepTimer, TrainingError
from lsgm.train.stage import Losses, Outcome, ParamGroup, Pipeline, Source, Stage, StageSpec

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
