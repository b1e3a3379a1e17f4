"""A toy to train: two linear maps on four pixels with noise and dropout; what other processes do with it."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from lsgm.cli import main
from lsgm.config import OptimConfig, StageConfig
from lsgm.errors import UserError
from lsgm.rng import StepNoise
from lsgm.runs.checkpoint import find_checkpoint
from lsgm.runs.directory import Run, read_metrics
from lsgm.train.loop import train
from lsgm.train.optim import ParamGroup
from lsgm.train.stage import Losses, Outcome, Stage, StageSpec

IMAGES = 24
CONFIG = StageConfig(
    steps=12, batch_size=8, warmup=0.1, ema=0.9, log_every=5, val_every=4, checkpoint_every=1e9
)

OPTIM = OptimConfig(lr=0.05)


class Images:
    """24 images of one 2x2 channel."""

    def __init__(self) -> None:
        self.announced: list[list[int]] = []
        self.served: list[list[int]] = []

    def __len__(self) -> int:
        return IMAGES

    def prefetch(self, indices: Tensor, /) -> None:
        self.announced.append(indices.tolist())

    def batch(self, indices: Tensor, /) -> Tensor:
        self.served.append(indices.tolist())
        pixels = torch.arange(IMAGES * 4) * 37 % 256
        return pixels.to(torch.uint8).reshape(IMAGES, 1, 2, 2)[indices]


class Binarise:
    """Dynamic binarisation."""

    def levels(self, raw: Tensor, noise: StepNoise, /) -> Tensor:
        return (noise.uniform(1, 2, 2) < raw / 255).to(torch.uint8)


class Module(nn.Module):
    """Predicts clean pixels from noisy ones; `hook(step-th call)` may spoil or slow a step."""

    def __init__(self, parts: dict[str, nn.Module], dropout: float, hook: Callable[[int], float]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.dropout = nn.Dropout(dropout)
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.hook = hook

    def forward(self, levels: Tensor, noise: StepNoise, progress: float) -> Losses:
        x = levels.flatten(1).float()
        y = x + 0.3 * noise.normal(4)
        for part in self.parts.values():
            y = self.dropout(part(y))
        self.calls.add_(1)
        error = (y - x).square().mean() * self.hook(int(self.calls))
        size = torch.stack([p.square().sum() for p in self.parameters()]).sum()
        return Losses(error + 1e-3 * (1 + progress) * size, {"size": size, "error": error})


@dataclass(frozen=True)
class Toy(Stage):
    """A stage that trains the last of the module's parts and averages all of them."""

    name: str
    config: StageConfig
    parts: Module
    ema_of: tuple[str, ...] = ("parts",)
    optim: OptimConfig = OPTIM

    @property
    def module(self) -> Module:
        return self.parts

    def groups(self) -> list[ParamGroup]:
        return [
            ParamGroup(name, list(part.parameters()), self.optim) for name, part in self.module.parts.items()
        ]

    def validate(self, levels: Tensor, seed: int) -> dict[str, float]:
        assert not self.module.training
        x = levels.flatten(1).float()
        y = x
        for part in self.module.parts.values():
            y = part(y)
        return {"error": float((y - x).square().mean())}


def two_stages(
    config: StageConfig = CONFIG, *, dropout: float = 0.2, hook: Callable[[int], float] = lambda call: 1.0
) -> list[StageSpec]:
    """Return a first stage that trains `vae` and a second that trains `vae` and `prior`, sharing `vae`."""
    torch.manual_seed(0)
    vae = nn.Linear(4, 4)

    def first() -> Toy:
        return Toy("vae", config, Module({"vae": vae}, dropout, hook))

    def second() -> Toy:
        return Toy("joint", second_config, Module({"vae": vae, "prior": nn.Linear(4, 4)}, dropout, hook))

    second_config = replace(config, batch_size=12) if config.batch_size == 8 else config
    return [StageSpec("vae", config, first), StageSpec("joint", second_config, second)]


def run_toy(directory: Path, stages: list[StageSpec] | None = None, **options: Any) -> Outcome:
    """Train the toy in a directory."""
    run = Run(directory)
    run.start({"kind": "toy"}, seed=1, dataset={"name": "toy", "version": "1", "sha256": "0"}, argv=["toy"])
    settings: dict[str, Any] = {"seed": 1, "device": "cpu", **options}
    source = settings.pop("source", None) or Images()
    return train(run, stages or two_stages(), source, Binarise(), **settings)


def weights(directory: Path) -> tuple[bytes, bytes]:
    """Return the bytes of the newest checkpoint's raw and averaged weights."""
    newest = find_checkpoint(directory)
    return (newest / "model.safetensors").read_bytes(), (newest / "ema.safetensors").read_bytes()


def timeless(directory: Path) -> list[dict[str, object]]:
    """Return the rows of the log without the clock's readings."""
    clock = ("seconds", "cpu_seconds", "images_per_second")
    return [
        {k: v for k, v in row.items() if k not in clock} for row in read_metrics(directory / "metrics.jsonl")
    ]


def patient(pause: float) -> Callable[[int], float]:
    """Return a hook that makes every step take `pause` seconds and changes nothing."""

    def wait(call: int) -> float:
        time.sleep(pause)
        return 1.0

    return wait


LONG = replace(CONFIG, steps=60)


def long(folder: Path, pause: float, every: float) -> int:
    """Train two stages of 60 steps with a checkpoint every `every` seconds; return the exit status."""
    stages = two_stages(replace(LONG, checkpoint_every=every), hook=patient(pause))
    return run_toy(folder, stages).exit_status


def exact(folder: Path, pause: float, every: float) -> int:
    """Train as `long` does, without what differs between numbers of processes: dropout's stream."""
    stages = two_stages(replace(LONG, checkpoint_every=every), dropout=0.0, hook=patient(pause))
    return run_toy(folder, stages).exit_status


def fails_alone(folder: Path) -> int:
    """Train until the second process runs into an error that no other has."""

    def hook(call: int) -> float:
        if call == 3 and os.environ["RANK"] == "1":
            raise MemoryError("no room for the images")
        return 1.0

    def command(argv: list[str]) -> int:
        return run_toy(folder, two_stages(LONG, hook=hook)).exit_status

    with mock.patch("lsgm.cli._dispatch", command):
        return main([])


def stuck(folder: Path) -> int:
    """Train with a checkpoint at every step; the 25th takes minutes."""

    def hook(call: int) -> float:
        time.sleep(300 if call == 25 else 0)
        return 1.0

    return run_toy(folder, two_stages(replace(LONG, checkpoint_every=1e-6, keep=99), hook=hook)).exit_status


def hold(folder: Path) -> None:
    """Lock a run directory, say so, and wait to be killed."""
    with Run(folder).locked():
        (folder / "in").touch()
        time.sleep(300)


CURVE = replace(CONFIG, log_every=1)


def share(folder: Path) -> None:
    """What each of two processes does: train, run into errors, be interrupted by the clock."""
    said: dict[str, str] = {}
    levels = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    rank = int(os.environ["RANK"])
    # Dropout draws from each process's own stream, so it is off where curves are compared.
    for _ in range(2):
        run_toy(folder / "curve", two_stages(CURVE, dropout=0.0), val_levels=levels, max_steps=14)
    for name, stages in {
        "odd": two_stages(replace(CURVE, batch_size=9)),
        "nan": two_stages(hook=lambda call: math.nan if call == 3 and rank == 1 else 1.0),
    }.items():
        try:
            run_toy(folder / name, stages)
        except UserError as error:
            said[name] = str(error)
    clocked = two_stages(replace(CONFIG, seconds=0.2), hook=patient(0.01 * (1 + rank)))[:1]
    said["steps"] = str(run_toy(folder / "clock", clocked).step)
    (folder / f"said-{rank}.json").write_text(json.dumps(said))
