"""Which channels of z_0 a training run had dropped: no file of the authors' says it, and their weights tell.

A dropped channel starts with a mixing logit of -15 and enters the network as zeros, so that the weights which
meet it there never see a gradient of the data. What moves either of them is weight decay alone:

- apex's Adam, which decouples it, leaves the second moments of these weights at exactly zero and the logit
  near -15;
- torch's, which their code takes without apex, adds it to the gradient. Adam makes steps of nearly its whole
  rate of that, so that the logit climbs above -10 in 5 / rate steps (17,000 at 3e-4), while the weights fade.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lsgm.errors import CheckpointError
from lsgm.interop.nvlabs.read import STEM, Official
from lsgm.models.config import LSGMRecipe

__all__ = ["INACTIVE_BELOW", "Channels", "channels_in_use"]

INACTIVE_BELOW = -10.0
"""Where moments tell nothing, logits below this mark dropped channels: the published starts are -3 and -6."""

FADED = 0.1
"""Weights this small beside another channel's have faded. When the logit passes -10 under torch's Adam, e^-15
is left of the last weights and, at the published rates, 8 % of averages over 1e4 steps; weights that the data
moves do not fade."""

CONTRAST = 10.0
"""How far the data's gradients must stand above the others for moments to tell who has seen the data."""


class Channels(NamedTuple):
    """What became of the channels of z_0."""

    active: Tensor
    """Which of them the network saw at the end of training, bool [C]."""
    seen_again: int
    """How many were dropped and later seen: a run that the authors' code resumes has forgotten its mask."""


def channels_in_use(official: Official, recipe: LSGMRecipe) -> Channels:
    """Return the channels that the network of a checkpoint saw at the end of its training.

    Raises CheckpointError where neither moments nor logits can tell.
    """
    assert official.prior is not None
    logit = official.prior["mixing_logit"].float().flatten()
    active = torch.ones_like(logit, dtype=torch.bool)
    if not recipe.stage2.drop_inactive:
        return Channels(active, 0)
    start = recipe.prior.mixing_init
    assert start is not None, "the mixing logits have a start"
    seen = _seen_the_data(official, recipe)
    if seen is not None:
        return Channels(seen | (logit >= start), int((seen & (logit < min(start, INACTIVE_BELOW))).sum()))
    if start < INACTIVE_BELOW:
        raise CheckpointError(
            f"the checkpoint's argument 'mixing_logit_init' is {start}, so that dropped channels cannot be "
            "told by their logits; `--reference-compat` imports the model with none dropped"
        )
    faded = _faded(official.prior[STEM]) & (logit < start)
    return Channels(~(faded | (logit < INACTIVE_BELOW)), 0)


def _seen_the_data(official: Official, recipe: LSGMRecipe) -> Tensor | None:
    """Return which channels' first weights have had a gradient of the data, bool [C]; None where unknown.

    Adam's second moment averages squared gradients over a thousand steps. Without the data these are at most
    those of the decay, wd |w|, and of the penalty of the spectral norm, lambda |u| |v| with unit vectors.
    """
    moment, prior = official.second_moment, official.prior
    if moment is None or prior is None:
        return None
    weight = prior[STEM].float()
    gradient = _size(moment.float().clamp(min=0).sqrt())
    width, channels, *kernel = weight.shape
    start = math.sqrt(2 / (math.prod(kernel) * (width + channels)))
    penalty = recipe.stage2.prior_penalty.spectral / math.sqrt(weight[:, 0].numel())
    decay = recipe.stage2.prior.weight_decay if official.rule == "adam" else 0.0
    without_data = decay * _size(weight).clamp(min=start) + penalty
    # Twice, since weights that were larger a thousand steps ago are still in the moments.
    seen = gradient > 2 * without_data
    telling = float(gradient.max()) > CONTRAST * float(without_data.max())
    return seen if telling else None


def _faded(weight: Tensor) -> Tensor:
    """Return which channels' first weights are next to nothing beside another channel's, bool [C]."""
    size = _size(weight.float())
    return size < FADED * size.max()


def _size(values: Tensor) -> Tensor:
    """Return the root mean square of what each incoming channel meets, [C_out, C, h, w] -> [C]."""
    return values.square().mean(dim=(0, 2, 3)).sqrt()
