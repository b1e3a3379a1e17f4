"""``lsgm eval`` of a model that stops at a bound: a process of its own, for tests that end it from outside.

It measures in a world of bars; where it ``stalls`` the model named ``slow`` sleeps, once it has printed
``asleep``. Processes are forked from one that has imported everything.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from bernoulli import BernoulliModel, ink
from eval.cost_curve.curve_models import CurveModel, Ink
from torch import Tensor

from lsgm.cli import main
from lsgm.config import DensityConfig, SamplerConfig
from lsgm.data import ImageSet, sha256_of
from lsgm.generative import Density, Samples
from lsgm_eval import models
from lsgm_eval.run import plan

__all__ = ["TASK", "started"]

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [__name__, "lsgm_eval.commands.eval", "lsgm_eval.commands.nfe", "lsgm_reports.commands.report", "pytest"]
)

TASK = """
name = "bars"
version = 1
summary = "bars"
dataset = "bars"
spaces = [{ extractor = "ink" }]
[tiers.quick]
n_samples = 40
nelbo_images = 20
ode_images = 10
curve_samples = 40
sampler = { name = "heun", steps = 3 }
"""


@dataclass
class Sleeper(CurveModel):
    """Sleeps at its second drawing for a sweep, and at every likelihood."""

    stalls: bool = False

    def _sleep(self) -> None:
        if self.stalls:
            print("asleep", flush=True)
            time.sleep(60)

    def sample(self, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        if sampler.steps == 2:
            self._sleep()
        return super().sample(seeds, sampler)

    def density(self, levels: Tensor, seeds: Sequence[int], config: DensityConfig) -> Density:
        if config.method == "ode":
            self._sleep()
        return super().density(levels, seeds, config)


def patched(stalls: bool) -> None:
    """Let the task's data be bars, its extractor ink, and every word the model of that name."""
    splits = {"train": ink(100, 1), "val": ink(20, 2), "test": ink(60, 3)}
    bars = ImageSet("bars", "1", sha256_of(*splits.values()), "binary", splits)

    def opened(word: str, device: Any = "cpu") -> BernoulliModel:
        model = Sleeper(name=word, sha256=word * 8, p=0.16)
        return replace(model, stalls=stalls) if word == "slow" else model

    plan.load = lambda name, **options: bars  # type: ignore[assignment]
    plan.load_extractor = lambda spec, shape, device=None: Ink()  # type: ignore[assignment,misc]
    models.open_model = opened  # type: ignore[assignment]


def started(words: Sequence[str], folder: Path, *, stalls: bool) -> BaseProcess:
    """Return the running command ``lsgm WORDS``; it prints into ``stdout`` and ``stderr`` of ``folder``."""
    process = FORKS.Process(target=_work, args=(list(words), folder, stalls))
    process.start()
    return process


def _work(words: list[str], folder: Path, stalls: bool) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
    os.environ.pop("LSGM_PROGRESS", None)
    # A job in the background of a shell is born with SIGINT ignored, and so are its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    patched(stalls)
    sys.exit(main(words))
