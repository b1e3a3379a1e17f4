"""Peak memory of a joint step with activations kept, and recomputed, each in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lsgm.bench.cost import recipe_pixels
from lsgm.bench.measuring import Columns, Row, columns, labelled, measured, read_recipes
from lsgm.bench.options import MemoryBench
from lsgm.config import require
from lsgm.devices import clock, peak_bytes, reset_peak
from lsgm.errors import ConfigError
from lsgm.kinds import recipe_from
from lsgm.recipes.recipe import JointStage, LSGMRecipe
from lsgm.rng import StepNoise
from lsgm.runs.load import fresh_networks
from lsgm.structure import to_dict
from lsgm.train.computing import lay_out, low_precision
from lsgm.train.stages import second_step


def measure(recipe: Any, *, device: str, label: str) -> list[dict[str, Any]]:
    """Return a row with activations kept and one with them recomputed, peaks in bytes.

    Raises ConfigError for a model without a joint step, and where a step does not end, for want of memory
    for one.
    """
    require(
        isinstance(recipe, LSGMRecipe) and isinstance(recipe.stage2, JointStage),
        f"recipe '{label}' has no joint step; give one of kind lsgm",
    )
    return [_alone(with_recompute(recipe, on), device, label) | {"recompute": on} for on in (False, True)]


def with_recompute(recipe: LSGMRecipe, on: bool) -> LSGMRecipe:
    """Return the recipe with activations recomputed, or kept, wherever its networks can."""
    vae: Any = recipe.vae
    if hasattr(vae, "recompute"):
        vae = dataclasses.replace(vae, recompute=on)
    network = dataclasses.replace(recipe.prior.network, recompute=on)
    return dataclasses.replace(recipe, vae=vae, prior=dataclasses.replace(recipe.prior, network=network))


def _alone(recipe: LSGMRecipe, device: str, label: str) -> dict[str, Any]:
    job = json.dumps({"recipe": to_dict(recipe), "device": device, "threads": torch.get_num_threads()})
    command = [sys.executable, "-m", "lsgm.bench.memory"]
    # Tensors of 64 KiB and more are given back when they are freed, so that resident memory is what is held.
    quiet = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, input=job, capture_output=True, text=True, check=False, env=quiet)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise ConfigError(f"a step of recipe '{label}' failed ({last}); give a smaller --batch or --width")
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def _work(job: dict[str, Any]) -> dict[str, Any]:
    """Run a step; return its row."""
    recipe: LSGMRecipe = recipe_from(job["recipe"], "the recipe")
    device = torch.device(job["device"])
    torch.set_num_threads(job["threads"])
    pixels, batch = recipe_pixels(recipe), recipe.stage2.batch_size
    networks: Any = fresh_networks(recipe, pixels).to(device)
    config = dataclasses.replace(recipe.stage2, steps=1)
    loss = second_step(networks.vae, networks.prior, recipe.prior.objective, config).module.train()
    levels = torch.randint(pixels.levels, (batch, *pixels.shape), dtype=torch.uint8, device=device)
    lay_out(loss, config.memory_format, device)
    dtype = low_precision(config.precision, device)
    # A small step first: libraries load and gradients come into being, which are not what is asked about.
    _step(loss, levels[:2], recipe.seed, dtype)
    before = reset_peak(device) or 0
    started = clock(device)
    _step(loss, levels, recipe.seed, dtype)
    seconds = clock(device) - started
    peak = peak_bytes(device) or 0
    return {
        "batch_size": batch,
        "precision": config.precision,
        "before_bytes": before,
        "peak_bytes": peak,
        "rise_bytes": peak - before,
        "seconds": seconds,
    }


def _step(loss: Any, levels: Tensor, seed: int, dtype: torch.dtype | None) -> None:
    noise = StepNoise(seed, 0, global_batch=len(levels), device=levels.device)
    with torch.autocast(levels.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        total = loss(levels, noise, 1.0).total
    total.backward()


_COLUMNS: Columns = {
    "recipe": labelled,
    "activations": lambda row: "recomputed" if row["recompute"] else "kept",
    "batch": "{batch_size}",
    "before, MiB": lambda row: f"{row['before_bytes'] / 2**20:.0f}",
    "peak, MiB": lambda row: f"{row['peak_bytes'] / 2**20:.0f}",
    "rise, MiB": lambda row: f"{row['rise_bytes'] / 2**20:.0f}",
    "step, s": "{seconds:.2f}",
}


def page(rows: Sequence[Row], *, about: str) -> str:
    """Return the rows as a Markdown page."""
    note = (
        "Forward and backward of a joint step, no optimiser, each way in a process of its own. *Before* is "
        "what is held when the step begins, weights and gradients included; *rise* is the peak without it."
    )
    return "\n\n".join(["# What activations cost in memory", about, columns(_COLUMNS, rows), note])


def run(options: MemoryBench) -> int:
    """Measure, then print; the exit status is 0."""
    recipes = read_recipes(options.recipes, width=options.width, batch=options.batch)

    def rows(device: torch.device) -> list[dict[str, Any]]:
        found = ((name, measure(recipe, device=str(device), label=name)) for name, recipe in recipes.items())
        return [{"what": "memory", "recipe": name, **row} for name, pair in found for row in pair]

    return measured("memory", options, rows, page)


if __name__ == "__main__":
    print(json.dumps(_work(json.loads(sys.stdin.read()))))
