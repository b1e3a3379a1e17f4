"""Ways to make a joint step, whole steps with their optimisers, side by side on one model and batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.amp import GradScaler

from lsgm.bench.cost import counted, step_flops
from lsgm.bench.measuring import Columns, quartiles, spread, time_in_turn
from lsgm.bench.passes import Backward, joint_loss, weighting_of
from lsgm.bench.targets import towards
from lsgm.config import require
from lsgm.devices import clock, computes_bfloat16, computes_float16, peak_bytes, reset_peak, round_to_tf32
from lsgm.errors import ConfigError, did_you_mean
from lsgm.generative import Pixels
from lsgm.model.lsgm import LSGM
from lsgm.nets.compiled import compile_blocks, new_step, release, require_compiler
from lsgm.nets.layers import in_micro_batches
from lsgm.options import between_commas
from lsgm.rng import StepNoise
from lsgm.runs.load import fresh_networks
from lsgm.train.computing import lay_out, parts_of
from lsgm.train.optim import WeightAverage, build_optimizer, clip_gradients
from lsgm.train.stages import second_step

PARTS = 4
"""Parts of a batch, in the way that cuts it."""
STILL = 1e-7
"""The learning rate: weights that hardly move keep every round the same."""


@dataclass(frozen=True)
class Way:
    """How a step is made."""

    says: str
    dtype: torch.dtype | None = None
    two: bool = False
    """Whether by the two backward passes of algorithm 3, as they are written."""
    last: bool = False
    """Whether kernels stand in the order channels_last."""
    compiled: bool = False
    graphs: bool = False
    parts: int = 1
    tf32: bool = False
    """Whether a GPU may round float32 to TF32 in convolutions and products."""


WAYS: Mapping[str, Way] = {
    "two": Way("float32, two backward passes", two=True),
    "two-tf32": Way("TF32, two backward passes", two=True, tf32=True),
    "one": Way("float32, one backward pass"),
    "parts": Way(f"float32, in {PARTS} parts", parts=PARTS),
    "channels-last": Way("float32, channels_last", last=True),
    "bfloat16": Way("bfloat16", torch.bfloat16),
    "float16": Way("float16, loss scaled", torch.float16),
    "compiled": Way("float32, compiled", compiled=True),
    "bfloat16-compiled": Way("bfloat16, compiled", torch.bfloat16, compiled=True),
    "graphs": Way("bfloat16, compiled, CUDA graphs", torch.bfloat16, compiled=True, graphs=True),
}
"""All ways by name."""
PLAIN = ("two", "two-tf32", "one", "parts")
"""Those that keep torch's order of kernels on a GPU; others take channels_last, as training does there."""


def chosen(names: str, device: torch.device, batch: int) -> dict[str, Way]:
    """Return the ways between commas; ``auto`` takes what a device is for, ``none`` none.

    On a CPU ``auto`` leaves out what is compiled, which takes minutes, and TF32, which it has not. Raises
    ConfigError for a way that there is not, or that the device cannot go.
    """
    on_gpu = device.type == "cuda"
    if names == "none":
        return {}
    asked = between_commas(names)
    for name in asked:
        hint = did_you_mean(name, WAYS) or f"; there is {', '.join(WAYS)}"
        require(name in WAYS or names == "auto", f"ways has no '{name}'{hint}")
    if names == "auto":
        usual = ("two", "one", "parts", "channels-last", "bfloat16")
        asked = [name for name in WAYS if (on_gpu and name != "compiled") or name in usual]
        able = {torch.bfloat16: computes_bfloat16(device), torch.float16: computes_float16(device)}
        asked = [name for name in asked if (dtype := WAYS[name].dtype) is None or able[dtype]]
        asked = [name for name in asked if batch % WAYS[name].parts == 0]
    found = {}
    for name in asked:
        way = WAYS[name]
        if way.compiled:
            require_compiler(device, cuda_graphs=way.graphs)
        found[name] = dataclasses.replace(way, last=way.last or (on_gpu and name not in PLAIN))
    return found


class Stepper:
    """An LSGM with its optimisers, clipping and average, stepped on one batch as the engine steps them."""

    def __init__(self, recipe: Any, pixels: Pixels, levels: Tensor, *, last: bool) -> None:
        networks = fresh_networks(recipe, pixels)
        if not isinstance(networks, LSGM):
            raise ConfigError("a joint step is an LSGM's; name a recipe of kind lsgm")
        self.levels, self._seed, self._config = levels, recipe.seed, recipe.stage2
        lay_out(networks.to(levels.device), "channels_last" if last else "contiguous", levels.device)
        self.loss = joint_loss(
            networks, weighting_of(recipe), time_eps=recipe.prior.objective.time_eps
        ).train()
        step = second_step(networks.vae, networks.prior, recipe.prior.objective, recipe.stage2)
        self._networks = [self.loss.get_submodule(name) for name in step.compile_of]
        self._groups = step.groups()
        self.optimizers = [build_optimizer(group) for group in self._groups]
        for optimizer in self.optimizers:
            for settings in optimizer.param_groups:
                settings["lr"] = STILL
        self._average = WeightAverage(self.loss, ("vae", "prior"), recipe.stage2.ema)
        self._compiled: dict[Way, dict[Any, Any]] = {}

    @cached_property
    def _scaler(self) -> GradScaler:
        return GradScaler(self.levels.device.type)

    def become(self, way: Way) -> None:
        """Have the networks as a way wants them: compiled, or as they are."""
        round_to_tf32(way.tf32)
        release(self.loss)
        in_micro_batches(self.loss, way.parts)
        if not way.compiled:
            return
        if way not in self._compiled:
            for network in self._networks:
                compile_blocks(network, cuda_graphs=way.graphs)
            calls = ((part, part._compiled_call_impl) for part in self.loss.modules())
            self._compiled[way] = {part: call for part, call in calls if call is not None}
        for part, call in self._compiled[way].items():
            part._compiled_call_impl = call

    def step(self, way: Way) -> None:
        """Make a step."""
        scaler = self._scaler if way.dtype is torch.float16 else None
        if way.two:
            Backward(self.loss, self.levels, self._seed, way.dtype).two()
        else:
            self._one(way, scaler)
        for group, optimizer in zip(self._groups, self.optimizers, strict=True):
            if scaler is not None:
                scaler.unscale_(optimizer)
            clip_gradients(group.params, self._config.clip)
        for optimizer in self.optimizers:
            optimizer.step() if scaler is None else scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        if scaler is not None:
            scaler.update()
        self._average.update()

    def _one(self, way: Way, scaler: GradScaler | None) -> None:
        size, device = len(self.levels), self.levels.device
        for rows in parts_of(slice(0, size), way.parts):
            noise = StepNoise(self._seed, 0, global_batch=size, rows=rows, device=device)
            if way.graphs:
                new_step()
            with torch.autocast(device.type, way.dtype or torch.bfloat16, enabled=way.dtype is not None):
                total = self.loss(self.levels[rows], noise, 1.0).total / way.parts
            total = total if scaler is None else scaler.scale(total)
            total.backward()


def compare_ways(
    recipe: Any, pixels: Pixels, levels: Tensor, ways: Mapping[str, Way], *, rounds: int, label: str
) -> list[dict[str, Any]]:
    """Return a row for each way that goes; one that fails, for want of memory for one, says why."""
    device = levels.device
    steppers: dict[bool, Stepper] = {}
    first: dict[str, float] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name, way in ways.items():
        common = {"what": "way", "recipe": label, "way": way.says, "batch_size": len(levels)}
        rows[name] = {**common, "rounds": rounds, "flops": flops_of(recipe, len(levels))}
        try:
            if way.last not in steppers:
                steppers[way.last] = Stepper(recipe, pixels, levels, last=way.last)
            steppers[way.last].become(way)
            started = clock(device)
            steppers[way.last].step(way)
            first[name] = clock(device) - started
            steppers[way.last].step(way)  # what the first one leaves behind is in place
            reset_peak(device)
            steppers[way.last].step(way)
            rows[name]["peak_bytes"] = peak_bytes(device) if device.type == "cuda" else None
        except Exception as error:  # of a compiler, a library or the memory: the other ways go on
            first.pop(name, None)
            rows[name]["note"] = f"fails: {str(error).strip().splitlines()[0][:200]}"
            for stepper in steppers.values():
                stepper.loss.zero_grad()
    calls: dict[str, Callable[[], object]] = {
        name: partial(steppers[ways[name].last].step, ways[name]) for name in first
    }
    if not calls:
        return list(rows.values())
    seconds = time_in_turn(
        calls,
        rounds,
        device,
        desc=f"{label} ways",
        switch=lambda name: steppers[ways[name].last].become(ways[name]),
    )
    round_to_tf32(False)
    slowest = next(iter(seconds))
    for name, times in seconds.items():
        rows[name] |= quartiles("step_ms", 1e3 * times) | {"first_seconds": first[name]}
        rows[name] |= quartiles("over", seconds[slowest] / times)
    if device.type == "cuda" and {"two", "bfloat16-compiled"} <= seconds.keys():
        fast = rows["bfloat16-compiled"]
        of = f"{label}, batch {len(levels)}"
        rows["bfloat16-compiled"] |= towards("gpu-step", fast["over"], of)
        if "two-tf32" in seconds:
            # torch's own setting rounds convolutions: the harder one to beat.
            ratio = float(np.median(seconds["two-tf32"] / seconds["bfloat16-compiled"]))
            rows["two-tf32"] |= towards("gpu-step", ratio, f"{of}, over TF32")
    return list(rows.values())


def flops_of(recipe: Any, batch: int) -> int:
    """Return the operations of a joint step by one backward pass (`lsgm bench cost`)."""
    config = dataclasses.replace(recipe.stage2, batch_size=batch, accumulate=1)
    return step_flops(config, counted(recipe)[0])


COLUMNS: Columns = {
    "recipe": "{recipe}",
    "way": "{way}",
    "batch": "{batch_size}",
    "step, ms": lambda row: row.get("note") or spread(row, "step_ms", ".0f"),
    "times as fast": lambda row: spread(row, "over", ".2f") if "over" in row else "–",
    "GFLOP/s": lambda row: f"{row['flops'] / row['step_ms'] / 1e6:.0f}" if "step_ms" in row else "–",
    "first step, s": lambda row: f"{row['first_seconds']:.1f}" if "first_seconds" in row else "–",
    "peak, MiB": lambda row: f"{row['peak_bytes'] / 2**20:.0f}" if row.get("peak_bytes") else "–",
}
