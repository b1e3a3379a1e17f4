"""From one of the authors' checkpoints to this package's recipe and state dicts, by tables of names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lsgm.errors import CheckpointError, ConfigError
from lsgm.files.names import shown
from lsgm.generative import Pixels
from lsgm.interop.nvlabs.arguments import pixels_of_args, recipe_of
from lsgm.interop.nvlabs.read import STEM, Official
from lsgm.interop.nvlabs.tables import Assembly, prior_table, vae_derived, vae_table
from lsgm.interop.taken import Native, fitting, named, refuse_larger
from lsgm.model.lsgm import LSGM, sketch
from lsgm.nets.config import NVAEConfig
from lsgm.recipes.recipe import LSGMRecipe
from lsgm.runs.checkpoint import with_later_buffers


def convert(
    official: Official, *, reference_compat: bool = False, ignore: tuple[str, ...] = ()
) -> Native[LSGMRecipe]:
    """Return the model of a checkpoint; a file of stage 1 gives state dicts of the VAE alone.

    The authors' files do not keep which channels of z_0 were dropped, so that their own evaluation feeds
    noise to weights that have never seen any. Here these channels are told by their weights, moments and
    mixing logits and masked again, unless ``reference_compat`` asks for what the authors' evaluation does.

    Raises CheckpointError, one sentence that names the tensor or the argument, where anything is missing,
    surplus, of a wrong shape, or not known.
    """
    recipe = recipe_of(
        official.args,
        vae_only=official.prior is None,
        reference_compat=reference_compat,
        ignore=ignore,
        rule=official.rule or "adamw",
    )
    pixels = pixels_of_args(official.args)
    _refuse_larger(recipe, official)
    networks = empty_networks(recipe, pixels)
    vae = _vae(recipe, networks, official.vae)
    if official.prior is None:
        return Native(recipe, pixels, vae, vae)
    raw, ema = (
        _prior(recipe, networks, weights) for weights in (official.prior, official.ema or official.prior)
    )
    if "prior.active" in raw and not reference_compat:
        active = channels_in_use(official, recipe).active.reshape(raw["prior.active"].shape)
        raw["prior.active"] = ema["prior.active"] = active
    return Native(recipe, pixels, vae | raw, vae | ema)


def _refuse_larger(recipe: LSGMRecipe, official: Official) -> None:
    """Raise CheckpointError where there are more cells than tensors, before any is built."""
    vae = recipe.vae
    assert isinstance(vae, NVAEConfig)
    of_groups = vae.groups * (vae.encoder_cells + vae.decoder_cells + vae.flows)
    cells = vae.blocks * (vae.pre_cells + vae.post_cells) + vae.scales * of_groups
    refuse_larger("the checkpoint's arguments", "VAE", cells, len(official.vae))
    if official.prior is not None:
        network = recipe.prior.network
        blocks = network.blocks * len(network.multipliers)
        refuse_larger("the checkpoint's arguments", "score network", blocks, len(official.prior))


@lru_cache(maxsize=8)
def empty_networks(recipe: LSGMRecipe, pixels: Pixels) -> LSGM:
    """Return the recipe's networks as shapes alone, which are only read: they are built once.

    Raises CheckpointError where there are none such.
    """
    try:
        networks = sketch(recipe, pixels)
    except (ConfigError, ValueError, TypeError) as error:
        why = shown(str(error).split("\n")[0])[:300]
        raise CheckpointError(f"the checkpoint's arguments describe no model: {why}") from error
    assert isinstance(networks, LSGM)
    return networks


def _vae(recipe: LSGMRecipe, networks: LSGM, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    assert isinstance(recipe.vae, NVAEConfig)
    table = vae_table(recipe.vae)
    _same_names("vae_state_dict", theirs, table, vae_derived(recipe.vae))
    own = networks.vae.state_dict()
    out = {}
    for name, ours in table.items():
        if theirs[name].shape != own[ours].shape:
            raise _misshapen(name, theirs[name].shape, own[ours].shape)
        out[f"vae.{ours}"] = fitting(theirs[name], own[ours], name)
    return out


def _prior(recipe: LSGMRecipe, networks: LSGM, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the prior's state dict, all channels in use."""
    table = dict(prior_table(networks.prior.network))
    if recipe.prior.mixing_init is None:
        del table["logit"]
    _same_names("dae_state_dict", theirs, [name for row in table.values() for name in row.names], ())
    own = networks.prior.state_dict()
    out = {f"prior.{ours}": _assembled(row, theirs, own[ours]) for ours, row in table.items()}
    if "active" in own:
        out["prior.active"] = torch.ones(own["active"].shape, dtype=torch.bool)
    if "sigma2_max" in own:
        out["prior.sigma2_max"] = torch.tensor(recipe.prior.sde.sigma2_max, dtype=own["sigma2_max"].dtype)
    # What the authors' code does not know of, as for a checkpoint older than it.
    return with_later_buffers(networks, out)


def _assembled(row: Assembly, theirs: Mapping[str, Tensor], own: Tensor) -> Tensor:
    """Return what a row of the table makes of the authors' tensors. Raises CheckpointError naming one."""
    whole = row.made(theirs, own)
    if whole is None:
        name = _odd_one(row.names, theirs)
        raise _misshapen(name, theirs[name].shape, own.shape)
    return whole


def _odd_one(names: Sequence[str], theirs: Mapping[str, Tensor]) -> str:
    """Return which of the tensors that are stacked does not fit the width of its own block."""
    shapes = [tuple(theirs[name].shape[1:]) for name in names]
    usual = max(set(shapes), key=shapes.count)
    for name, shape in zip(names, shapes, strict=True):
        block = name.rsplit(".", 2)[0]
        norm = theirs.get(f"{block}.Conv_0.bias", theirs.get(f"{block}.GroupNorm_0.weight"))
        if shape != usual or (norm is not None and theirs[name].shape[:1] != norm.shape):
            return name
    return names[0]


def _same_names(part: str, theirs: Mapping[str, Any], wanted: Iterable[str], derived: Iterable[str]) -> None:
    wanted = list(wanted)
    if missing := [name for name in wanted if name not in theirs]:
        raise CheckpointError(
            f"the checkpoint's {part} lacks '{missing[0]}'{_more(missing)}, which a model of its arguments "
            "has; get the file from its authors again"
        )
    if surplus := sorted(theirs.keys() - set(wanted) - set(derived)):
        raise CheckpointError(
            f"the checkpoint's {part} has '{named(surplus[0])}'{_more(surplus)}, which a model of its "
            "arguments has not; get the file from its authors again"
        )


def _more(names: Sequence[str]) -> str:
    return "" if len(names) == 1 else f" and {len(names) - 1} more"


def _misshapen(name: str, theirs: Sequence[int], ours: Sequence[int]) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint's tensor '{named(name)}' is {list(theirs)}, which does not fit {list(ours)} of a "
        "model of its arguments; get the file from its authors again"
    )


# Which channels of z_0 a training run had dropped: no file of the authors' says it, and their weights tell.
#
# A dropped channel starts with a mixing logit of -15 and enters the network as zeros, so that the weights
# which meet it there never see a gradient of the data. What moves either of them is weight decay alone:
#
# - apex's Adam, which decouples it, leaves the second moments of these weights at exactly zero and the logit
#   near -15;
# - torch's, which their code takes without apex, adds it to the gradient. Adam makes steps of nearly its
#   whole rate of that, so that the logit climbs above -10 in 5 / rate steps (17,000 at 3e-4), while the
#   weights fade.

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
