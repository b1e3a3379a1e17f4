"""From a checkpoint of score_sde_pytorch and its settings to this package's recipe and state dicts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lsgm.errors import CheckpointError, ConfigError
from lsgm.files.shown import shown
from lsgm.generative import Pixels
from lsgm.interop.nvlabs.prior_table import Source, Table, layers_in_order, numbered_rows
from lsgm.interop.taken import fitting, named, real, refuse_larger
from lsgm.models.sketch import sketch
from lsgm.nets.config import ScoreNetConfig
from lsgm.nets.ncsnpp import NCSNpp
from lsgm_baselines.config import SGMRecipe
from lsgm_baselines.interop.score_sde.config import ScoreSDEConfig
from lsgm_baselines.interop.score_sde.read import FREQUENCIES, Checkpoint
from lsgm_baselines.interop.score_sde.recipe import pixels_of, recipe_of
from lsgm_baselines.sgm import SGM

__all__ = ["Native", "convert", "empty_networks", "network_table"]


class Native(NamedTuple):
    """A model in this package's terms."""

    recipe: SGMRecipe
    pixels: Pixels
    raw: dict[str, Tensor]
    """State dict of the last weights."""
    ema: dict[str, Tensor]
    """State dict of the averaged weights, the ones that are measured."""


def convert(checkpoint: Checkpoint, config: ScoreSDEConfig) -> Native:
    """Return the model of a checkpoint that was trained with these settings.

    Raises CheckpointError, one sentence that names the tensor, where one is missing, surplus or of a wrong
    shape, where the file's noise levels are not those of the settings, and where the model turns out to have
    been trained at discrete times; ConfigError where the settings describe no network.
    """
    recipe, pixels = recipe_of(config), pixels_of(config)
    blocks = config.num_res_blocks * len(config.ch_mult)
    refuse_larger("the settings", "network", blocks, len(checkpoint.raw))
    networks = empty_networks(recipe, pixels)
    _same_levels(checkpoint.sigmas, config)
    table = network_table(recipe.prior.network, pixels)
    _same_names(checkpoint.raw, table, config)
    return Native(
        recipe,
        pixels,
        _state(recipe, networks, table, checkpoint.raw),
        _state(recipe, networks, table, checkpoint.ema),
    )


def network_table(config: ScoreNetConfig, pixels: Pixels) -> Table:
    """Return what every tensor of an `NCSNpp` is made of, by score_sde's names.

    They number the layers in the order of execution, those without parameters left out, the frequencies of a
    Fourier embedding first.
    """
    with torch.device("meta"):
        network = NCSNpp(config, channels=pixels.channels, resolution=pixels.height)
    layers = [layer for layer in layers_in_order(network) if any(True for _ in layer.parameters())]
    if config.embedding_kind == "positional":
        return numbered_rows(network, layers)
    return {
        **numbered_rows(network, layers, first=1),
        "embed.frequencies": Source([FREQUENCIES], lambda tensors: tensors[0]),
    }


def empty_networks(recipe: SGMRecipe, pixels: Pixels) -> SGM:
    """Return the recipe's networks as shapes alone. Raises ConfigError where there are none such."""
    try:
        networks = sketch(recipe, pixels)
    except (ValueError, TypeError) as error:
        why = shown(str(error).split("\n")[0])[:300]
        raise ConfigError(
            f"the settings describe no network ({why}); give those of the checkpoint"
        ) from error
    assert isinstance(networks, SGM)
    return networks


def _state(recipe: SGMRecipe, networks: SGM, table: Table, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    own = networks.state_dict()
    # A preconditioned network lies one level deeper.
    prefix = "prior.network." if recipe.prior.preconditioning == "none" else "prior.network.network."
    out = {prefix + name: _assembled(row, theirs, own[prefix + name]) for name, row in table.items()}
    if "prior.sigma2_max" in own:
        out["prior.sigma2_max"] = torch.tensor(recipe.prior.sde.sigma2_max, dtype=torch.float64)
    return out


def _assembled(row: Source, theirs: Mapping[str, Tensor], own: Tensor) -> Tensor:
    parts, shape = [real(theirs[name], name) for name in row.names], own.shape
    try:
        whole = row.assemble(parts)
    except (RuntimeError, IndexError):
        whole = torch.empty(0)
    if whole.shape != shape:
        shapes = ", ".join(f"'{name}' {list(theirs[name].shape)}" for name in row.names[:3])
        more = " and so on" if len(row.names) > 3 else ""
        raise CheckpointError(
            f"the checkpoint's {shapes}{more} do not make up {list(shape)} of a model of its configuration; "
            "name the configuration that it was trained with"
        )
    return fitting(whole, own, row.names[0]).contiguous()


def _same_names(theirs: Mapping[str, Tensor], table: Table, config: ScoreSDEConfig) -> None:
    wanted = {name for row in table.values() for name in row.names}
    if config.sde == "vesde" and FREQUENCIES not in theirs:
        raise CheckpointError(
            f"the checkpoint has no random frequencies '{FREQUENCIES}', as only models with sde = 'vesde' "
            "trained at discrete times have none; give one of a configuration that ends in _continuous"
        )
    if missing := sorted(wanted - theirs.keys()):
        raise CheckpointError(
            f"the checkpoint lacks '{missing[0]}', which a model of its configuration has; name the "
            "configuration that it was trained with"
        )
    if surplus := sorted(theirs.keys() - wanted):
        raise CheckpointError(
            f"the checkpoint has '{named(surplus[0])}', which a model of its configuration has not; name the "
            "configuration that it was trained with"
        )


def _same_levels(sigmas: Tensor | None, config: ScoreSDEConfig) -> None:
    """Refuse a file whose noise levels are not the configuration's; their other SDEs never look at them."""
    if sigmas is None or config.sde != "vesde":
        return
    if sigmas.ndim != 1 or len(sigmas) < 2 or not sigmas.is_floating_point():
        raise CheckpointError(
            f"the checkpoint's noise levels 'sigmas' are {list(sigmas.shape)} of {sigmas.dtype}, not a list "
            "of numbers; get the file again"
        )
    high, low = float(sigmas[0]), float(sigmas[-1])
    # A file may hold everything in half precision.
    near = max(1e-5, torch.finfo(sigmas.dtype).eps) if sigmas.is_floating_point() else 1e-5
    ends = ((high, config.sigma_max), (low, config.sigma_min))
    if not all(math.isclose(found, wanted, rel_tol=near) for found, wanted in ends):
        raise CheckpointError(
            f"the checkpoint's noise levels go from {low:g} to {high:g}, and its configuration says "
            f"{config.sigma_min:g} to {config.sigma_max:g}; name the configuration that it was trained with"
        )
