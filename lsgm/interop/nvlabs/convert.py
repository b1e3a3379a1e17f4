"""From one of the authors' checkpoints to this package's recipe and state dicts, by tables of names."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lsgm.errors import CheckpointError, ConfigError
from lsgm.files.shown import shown
from lsgm.generative import Pixels
from lsgm.interop.nvlabs.arguments import pixels_of_args, recipe_of
from lsgm.interop.nvlabs.dropped import INACTIVE_BELOW, channels_in_use
from lsgm.interop.nvlabs.prior_table import Source, prior_table
from lsgm.interop.nvlabs.read import Official
from lsgm.interop.nvlabs.vae_table import vae_derived, vae_table
from lsgm.interop.taken import fitting, named, real, refuse_larger
from lsgm.models.config import LSGMRecipe
from lsgm.models.latent import LSGM
from lsgm.models.sketch import sketch
from lsgm.nets.config import NVAEConfig
from lsgm.train.checkpoint import with_later_buffers

__all__ = ["INACTIVE_BELOW", "Native", "convert", "empty_networks"]


class Native(NamedTuple):
    """A model in this package's terms."""

    recipe: LSGMRecipe
    pixels: Pixels
    raw: dict[str, Tensor]
    """State dict of the last weights; where the file has the averaged ones alone, these."""
    ema: dict[str, Tensor]
    """State dict with the prior's averaged weights."""


def convert(official: Official, *, reference_compat: bool = False, ignore: tuple[str, ...] = ()) -> Native:
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


def empty_networks(recipe: LSGMRecipe, pixels: Pixels) -> LSGM:
    """Return the recipe's networks as shapes alone. Raises CheckpointError where there are none such."""
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
    channels, resolution, _ = networks.vae.groups.z_0
    table = dict(prior_table(recipe.prior.network, channels, resolution))
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


def _assembled(row: Source, theirs: Mapping[str, Tensor], own: Tensor) -> Tensor:
    """Return what a row of the table makes of the authors' tensors. Raises CheckpointError naming one."""
    parts, shape = [real(theirs[name], name) for name in row.names], own.shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on transposing what should have been a matrix
            whole = row.assemble(parts)
    except (RuntimeError, IndexError):
        whole = torch.empty(0)
    if whole.shape != shape:
        name = _odd_one(row.names, theirs)
        raise _misshapen(name, theirs[name].shape, shape)
    return fitting(whole, own, row.names[0]).contiguous()


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
