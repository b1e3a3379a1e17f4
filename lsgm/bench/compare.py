"""Times the ways of `lsgm.bench.passes` in turn on one model and batch, after a check that they agree."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lsgm.bench.passes import PASSES, Backward, joint_loss, largest_difference
from lsgm.bench.spread import spread_of
from lsgm.bench.turns import time_in_turn
from lsgm.data import ImageSet, PixelPipeline, batch_indices
from lsgm.models.latent import LSGM
from lsgm.models.load import fresh_networks
from lsgm.rng import StepNoise
from lsgm.training import pixels_of

__all__ = ["CHECKED", "TOLERANCE", "compare_passes"]

CHECKED = 4
"""Images on which the gradients are compared, in float64."""
TOLERANCE = 1e-10
"""Both ways sum the same products in another order: a few hundred roundings of 1e-16 each."""


def compare_passes(
    recipe: Any, images: ImageSet, *, rounds: int, device: torch.device, label: str
) -> dict[str, Any] | None:
    """Return the row of a recipe, None for a model without two objectives: no LSGM, or its VAE frozen.

    Ratios are taken within a round. Raises ArithmeticError where the gradients differ.
    """
    pixels = pixels_of(images, recipe.data.bits)
    networks = fresh_networks(recipe, pixels)
    if not isinstance(networks, LSGM) or not recipe.stage2.train_vae:
        return None
    objective, config = recipe.prior.objective, recipe.stage2
    # With the likelihood weighting and k = 1 the two losses are one, and nobody needs a second pass.
    weighting = objective.weighting if objective.weighting != "ll" else "re"
    levels = _levels(recipe, images, config.batch_size, device)
    difference = largest_difference(
        copy.deepcopy(networks).double().eval(),
        weighting,
        levels[:CHECKED].cpu(),
        time_eps=objective.time_eps,
        seed=recipe.seed,
    )
    if not difference <= TOLERANCE:
        raise ArithmeticError(
            f"{label}: one backward pass and two differ by {difference:.1e} of the gradient"
        )
    loss = joint_loss(networks.to(device).train(), weighting, time_eps=objective.time_eps)
    dtype = torch.bfloat16 if config.precision == "bfloat16" else None
    backward = Backward(loss, levels, recipe.seed, dtype)
    seconds = time_in_turn(
        {name: partial(way, backward) for name, way in PASSES.items()},
        rounds,
        device,
        desc=f"{label} one pass or two",
        before=loss.zero_grad,
    )
    row: dict[str, Any] = {
        "what": "backward",
        "recipe": label,
        "weighting": weighting,
        "batch_size": config.batch_size,
        "precision": config.precision,
        "rounds": rounds,
        "largest_difference": difference,
    }
    for name, times in seconds.items():
        row |= spread_of([1e3 * value for value in times]).as_row(f"{name}_ms")
        if name != "one":
            ratios = [value / one for value, one in zip(times, seconds["one"], strict=True)]
            row |= spread_of(ratios).as_row(f"{name}_over_one")
    return row


def _levels(recipe: Any, images: ImageSet, size: int, device: torch.device) -> Tensor:
    """Return the batch that training would begin with."""
    train = images.split("train")
    raw = train[batch_indices(len(train), size, recipe.seed, 0)].to(device)
    pipeline = PixelPipeline.of(images, bits=recipe.data.bits, flip=recipe.data.flip)
    return pipeline.levels(raw, StepNoise(recipe.seed, 0, global_batch=size, device=device))
