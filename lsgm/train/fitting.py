"""How many images of a step fit into a device's memory, found by making steps: a batch, or the parts of one.

A GPU is tried with ever more images until its memory ends. Elsewhere memory has no end that a process may
try: the resident memory of steps on a few images tells how it grows, and half of what is free is taken. What
is found stands in the run's configuration, so that whoever goes on with the run has the same batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from lsgm.devices import free_bytes, peak_bytes, reset_peak
from lsgm.distributed import join
from lsgm.errors import ConfigError
from lsgm.files.limits import BATCH
from lsgm.generative import Pixels
from lsgm.kinds import find_kind
from lsgm.progress import say
from lsgm.runs.directory import Run
from lsgm.runs.load import fresh_networks
from lsgm.runs.records import Position
from lsgm.train.engine import StageContext, StageRunner
from lsgm.train.signals import Interrupt
from lsgm.train.stage import StageSpec, TrainingSet
from lsgm.workers import beside

AUTO = ("batch_size", "accumulate")
"""What can be found: the largest batch in one piece, or the fewest parts of the recipe's own."""
SHARES = {"cuda": 0.9, "cpu": 0.5}
"""Share of the free memory that a step may take; the rest is for fragments, validation and samples."""
NOISE = 2**25
"""Bytes below which resident memory says nothing about how it grows."""


def largest_that_fits(peak: Callable[[int], int | None], room: int, most: int, *, foresee: bool) -> int:
    """Return the largest power of two, at most ``most``, of images whose step takes at most ``room`` bytes.

    It is 0 where there is none. ``peak`` gives the bytes of a step, None where memory ran out. With
    ``foresee`` larger steps are not made once two of them tell how memory grows with their images.
    """
    best, before = 0, (0, 0)
    size = 1
    while size <= most:
        taken = peak(size)
        if taken is None or taken > room:
            break
        best, grown = size, taken - before[1]
        if foresee and before[0] and grown > NOISE:
            each = grown / (size - before[0])
            while 2 * best <= most and taken + each * (2 * best - size) <= room:
                best *= 2
            break
        best, before, size = size, (size, taken), 2 * size
    return best


def fewest_parts(share: int, fitting: int) -> int:
    """Return the fewest equal parts of a share of a batch that have at most so many images each."""
    return next(parts for parts in range(1, share + 1) if share % parts == 0 and share // parts <= fitting)


def settled(recipe: Any, auto: Collection[str], images: TrainingSet, pixels: Pixels) -> Any:
    """Return a recipe with what is ``auto`` found for each of its stages, the same on all processes.

    Each process looks at its own device, before it joins the others. Raises ConfigError where not even a step
    on one image fits, and where the processes have joined.
    """
    device = images.world.device
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        raise ConfigError("what is auto is found before processes join; give batch-size and accumulate")
    specs = find_kind(recipe.kind).stages(recipe, fresh_networks(recipe, pixels))
    trained = [spec for spec in specs if spec.config.steps > 0]
    own = [float(_fitting(recipe, spec, images, pixels)) for spec in trained]
    world = join(device)
    changes: dict[str, Any] = {}
    for spec, least in zip(trained, world.largest([-fitting for fitting in own]), strict=True):
        fitting = int(-least)
        if fitting == 0:
            raise ConfigError(
                f"a step of {spec.name} on one image takes more memory than is free; set recompute of its "
                "networks, or make them narrower"
            )
        found: Any = {"accumulate": 1}
        if "batch_size" in auto:
            found["batch_size"] = fitting * world.size
        else:
            rows = world.rows(spec.config.batch_size)
            found["accumulate"] = fewest_parts(rows.stop - rows.start, fitting)
        if world.main:
            say(f"{spec.name}: {', '.join(f'{name} = {value}' for name, value in found.items())}, by trying")
        changes[_field_of(recipe, spec)] = dataclasses.replace(spec.config, **found)
    return dataclasses.replace(recipe, **changes)


def _field_of(recipe: Any, spec: StageSpec) -> str:
    """Return the recipe's field that configures a stage."""
    return next(f.name for f in dataclasses.fields(recipe) if getattr(recipe, f.name) is spec.config)


def as_begun(recipe: Any, begun: Any, auto: Collection[str]) -> Any:
    """Return a recipe whose stages have what was found when the run was begun."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(recipe):
        now, then = getattr(recipe, field.name), getattr(begun, field.name, None)
        if hasattr(now, "batch_size") and hasattr(then, "batch_size"):
            names = AUTO if "batch_size" in auto else ("accumulate",)
            changes[field.name] = dataclasses.replace(now, **{name: getattr(then, name) for name in names})
    return dataclasses.replace(recipe, **changes)


def _fitting(recipe: Any, spec: StageSpec, images: TrainingSet, pixels: Pixels) -> int:
    """Return how many images of a stage's step this process's memory has room for, a power of two."""
    device, field = images.world.device, _field_of(recipe, spec)
    networks = fresh_networks(recipe, pixels)
    held = reset_peak(device) or 0
    free = free_bytes(device)
    if device.type != "cuda":  # which is one process's; what is free elsewhere is for all
        free //= beside()
    room = held + int(SHARES.get(device.type, 0.5) * free)

    def peak(size: int) -> int | None:
        # Alone and uncompiled: what is looked for is memory, and compiling takes longer than all steps.
        alone: Any = {"batch_size": size, "accumulate": 1, "compile": False, "cuda_graphs": False}
        smaller = dataclasses.replace(recipe, **{field: dataclasses.replace(spec.config, **alone)})
        stages = find_kind(recipe.kind).stages(smaller, networks)
        stage = next(other for other in stages if other.name == spec.name).build()
        run = Run(Path("nowhere"))  # nothing is written
        context = StageContext(run, images, Interrupt(), None, {}, None, None, None, None)
        position = Position()
        position.enter(spec.name)
        try:
            runner = StageRunner(stage, context, position, last=True)
            reset_peak(device)
            for _ in range(2):  # gradients and moments are there from the second on
                runner.step()
            return peak_bytes(device) or 0
        except torch.OutOfMemoryError:
            return None
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()

    return largest_that_fits(peak, room, min(len(images.source), BATCH.value), foresee=device.type != "cuda")
