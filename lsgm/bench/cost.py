"""Parameters of a recipe's networks and the floating-point operations of its training, without running it.

The networks are built and run on the meta device, which has shapes and no contents: the largest recipe takes
a second and no memory. Convolutions, matrix products and attention count, at two operations for each
multiplication and addition; elementwise work does not. The forward pass of each part is counted on one image,
and a step follows from the passes that its mode makes, a backward pass being two forward ones: one for the
gradients of the inputs and one for those of the weights.

    VAE, trained                  3 F_vae           forward, and backward through inputs and weights
    VAE, K importance samples     + 3 (K - 1) F_z   the same of what each draw of z passes through
    VAE, left as it is            F_encode          forward, as far as the latents; 0 on cached latents
    prior, its own objective      3 F_prior
    prior, in the VAE's objective + 2 F_prior       with times of the VAE's own: forward, and backward to the
                                                    latents alone; with shared times it is the same pass
    recomputed activations        + 1 forward pass for each backward one through the part

The joint step takes one backward pass for both objectives (`lsgm.objective.bound`); the two of algorithm 3 of
arXiv:2106.05931 would cost 2 F_prior more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lsgm.bench.measuring import Columns, columns, publish
from lsgm.bench.options import CostBench
from lsgm.config import StageConfig, require
from lsgm.data.registry import DATASETS
from lsgm.generative import Pixels
from lsgm.kinds import recipe_from
from lsgm.model.lsgm import ShapesAlone, operations, parameter_counts, sketch
from lsgm.recipes import (
    TrainingCost,
    find_recipes,
    load_recipe,
    shown_flops,
    shown_hours,
    shown_parameters,
    write_costs,
)
from lsgm.structure import to_dict

PARTS = frozenset({"vae", "prior"})
"""Parts of networks whose passes are known here."""


@dataclass(frozen=True)
class Forward:
    """Operations of one image's forward pass through each part; 0 for a part that a model lacks."""

    encode: int
    """As far as the latents."""
    vae: int
    """As far as the pixels' distribution."""
    prior: int
    another_draw: int = 0
    """Of the VAE, for each draw of an image's latents after the first."""


def recipe_pixels(recipe: Any) -> Pixels:
    """Return the pixels of a recipe's dataset without reading it; a folder's images count as coloured."""
    known, size = DATASETS.get(recipe.data.dataset), recipe.data.size
    require(known is not None or size is not None, "the cost of images at their own size is not known")
    channels, height, width = known.image_shape if known else (3, *(size or (0, 0)))
    if known is not None and known.pixels == "binary":
        return Pixels(channels, height, width, "binary", 1)
    return Pixels(channels, height, width, "discrete", recipe.data.bits)


def cost_of(recipe: Any) -> TrainingCost:
    """Return what training a recipe costs, of any kind whose networks are a VAE, a score model or both."""
    return cost_from(recipe, *counted(recipe))


def counted(recipe: Any) -> tuple[Forward, dict[str, int]]:
    """Return the operations of a recipe's networks on one image, and the numbers of their parameters."""
    pixels = recipe_pixels(recipe)
    networks = sketch(recipe, pixels)
    with torch.device("meta"), ShapesAlone(), torch.no_grad():
        parameters = parameter_counts(networks)
        unknown = sorted(parameters.keys() - PARTS)
        require(not unknown, f"the cost of a part '{unknown and unknown[0]}' of a model is not known")
        # A second draw of an image's latents is counted where some stage takes one.
        several = any(
            getattr(stage, "importance_samples", 1) > 1 for stage in training_stages(recipe).values()
        )
        return forward_flops(networks, pixels, several=several), parameters


def cost_from(recipe: Any, forward: Forward, parameters: dict[str, int]) -> TrainingCost:
    """Return what training a recipe costs whose networks have been counted."""
    stages = training_stages(recipe)
    per_step = {name: step_flops(stage, forward, _recomputed(recipe)) for name, stage in stages.items()}
    total: float | None = float(sum(stages[name].steps * flops for name, flops in per_step.items()))
    if any(stage.seconds is not None for stage in stages.values()):
        total = None
    return TrainingCost(parameters, per_step, total)


def training_stages(recipe: Any) -> dict[str, StageConfig]:
    """Return the stages that train at all, by the names of their tables."""
    tables = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
    return {k: table for k, table in tables.items() if isinstance(table, StageConfig) and table.steps > 0}


def forward_flops(networks: nn.Module, pixels: Pixels, *, several: bool = True) -> Forward:
    """Return the operations of one image's forward pass; to be called where tensors are shapes alone.

    Without ``several`` it is not asked what another draw of an image's latents takes.
    """
    parts: dict[str, Any] = dict(networks.named_children())
    encode = vae = prior = another_draw = 0
    shape = pixels.shape
    if "vae" in parts:
        shape = parts["vae"].groups.z_0
        levels = torch.zeros(1, *pixels.shape, dtype=torch.uint8)
        with FlopCounterMode(display=False) as counter:
            z = parts["vae"].posterior(levels, _zeros(1)).z
            encode = counter.get_total_flops()
            parts["vae"].likelihood(z)
            vae = counter.get_total_flops()
        if several:
            two = parts["vae"]
            both = operations(lambda: two.likelihood(two.posterior(levels, _zeros(2), draws=2).z))
            another_draw = both - vae
    if "prior" in parts:
        prior = operations(lambda: parts["prior"].eps(torch.zeros(1, *shape), torch.full((1,), 0.5).double()))
    return Forward(encode, vae, prior, another_draw)


def step_flops(config: StageConfig, forward: Forward, recomputed: frozenset[str] = frozenset()) -> int:
    """Return the operations of one step of a stage, which trains the parts that it has an optimiser for."""
    trains_vae = hasattr(config, "vae") and getattr(config, "train_vae", True)
    trains_prior = hasattr(config, "prior")
    flops = 0
    if trains_vae:
        draws = getattr(config, "importance_samples", 1)
        flops += (3 + ("vae" in recomputed)) * (forward.vae + (draws - 1) * forward.another_draw)
    elif trains_prior and getattr(config, "cached_draws", 0) == 0:
        flops += forward.encode
    if trains_prior:
        flops += (3 + ("prior" in recomputed)) * forward.prior
        if trains_vae and getattr(config, "vae_times", "shared") != "shared":
            flops += (2 + ("prior" in recomputed)) * forward.prior
    return int(flops * config.batch_size)


def _recomputed(recipe: Any) -> frozenset[str]:
    """Return the parts whose activations a recipe keeps no longer than it must."""
    tables = to_dict(recipe)
    found = {"vae": tables.get("vae", {}), "prior": tables.get("prior", {}).get("network", {})}
    return frozenset(part for part, table in found.items() if table.get("recompute"))


def _zeros(count: int) -> Callable[..., Tensor]:
    """Return noise of so many draws of one image."""
    return lambda *shape: torch.zeros(count, *shape)


def run(options: CostBench) -> int:
    """Count, then print or write; the exit status is 0."""
    installed = find_recipes()
    names = options.recipes or tuple(installed)
    recipes = {name: recipe_from(load_recipe(name), f"recipe '{name}'") for name in names}
    costs = {name: cost_of(recipe) for name, recipe in recipes.items()}
    if not options.write:
        rows = [{"recipe": name, **asdict(cost)} for name, cost in costs.items()]
        publish("cost", rows, columns(_COLUMNS, rows, left=5), as_json=options.json)
        return 0
    for folder in sorted({file.parent for file in installed.values()}):
        own = {name: cost for name, cost in costs.items() if installed[name].parent == folder}
        print(f"wrote {write_costs(folder, own)}")
    return 0


_COLUMNS: Columns = {
    "recipe": lambda row: Path(row["recipe"]).stem,
    "parameters": lambda row: shown_parameters(row["parameters"]),
    "per step": lambda row: ", ".join(f"{k} {shown_flops(flops)}" for k, flops in row["step_flops"].items()),
    "training": lambda row: shown_flops(row["flops"]),
    "time": lambda row: shown_hours(row["flops"]),
}
