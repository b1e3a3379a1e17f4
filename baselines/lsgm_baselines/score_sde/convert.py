"""From a checkpoint of score_sde_pytorch and its settings to our recipe and state dicts, and their parity.

These files are pickles, and nothing in them is executed: `lsgm.pickled.foreign` finds tensors, containers and
numbers in them and nothing else but `argparse.Namespace`, by which a checkpoint of LSGM's authors is told
apart.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lsgm.conformance.folder import EXPECTED, Averages, GoldenFolder, read_values
from lsgm.conformance.stage import Family, Result, Tolerances, examine
from lsgm.errors import CheckpointError, ConfigError, DataError
from lsgm.files.names import shown
from lsgm.generative import Pixels
from lsgm.interop.nvlabs.tables import Assembly, Table, drawn_frequencies, layers_in_order, numbered_rows
from lsgm.interop.taken import Native, count_of, named, plain_tensor, refuse_larger, weights_of
from lsgm.model.lsgm import sketch
from lsgm.nets.ncsnpp import NCSNpp
from lsgm.pickled.foreign import read_pickle
from lsgm.score import per_sample
from lsgm_baselines.recipe import SGMRecipe
from lsgm_baselines.score_sde.settings import (
    TIME_SCALE,
    ScoreSDEConfig,
    find_config,
    pixels_of,
    recipe_of,
    unit_of,
)
from lsgm_baselines.sgm import SGM

FREQUENCIES = "all_modules.0.W"
"""The one tensor that is a parameter and not trained, so that no average of it is kept."""

LEVELS = "sigmas"
"""The one tensor that is no parameter: sigma from the largest to the smallest, with every kind of SDE."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds, on the CPU and under score_sde's names, without what all of them begin with."""

    raw: dict[str, Tensor]
    """The last weights, random frequencies included."""
    ema: dict[str, Tensor]
    """The averaged weights under the same names."""
    sigmas: Tensor | None
    """Noise levels, falling; None in files that do not have them."""
    step: int
    decay: float | None
    """Decay of the averages, where the file says it."""


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Return what a file holds.

    Raises CheckpointError, one sentence, where the file cannot be read, is no such checkpoint, has averages
    that do not fit its weights, or names any class but `argparse.Namespace`; that class is then never
    imported, let alone called.
    """
    path = Path(path)

    def other(what: str) -> CheckpointError:
        return CheckpointError(
            f"{shown(str(path))} is not a checkpoint of score_sde_pytorch: {what}; give one with optimizer, "
            "model, ema and step"
        )

    content = read_pickle(path, "score_sde_pytorch", argparse.Namespace)
    if isinstance(content, Mapping) and {"args", "vae_state_dict"} <= content.keys():
        raise CheckpointError(
            f"{shown(str(path))} is a checkpoint of LSGM's authors; `lsgm import nvlabs` takes it"
        )
    held = content.keys() if isinstance(content, Mapping) else ()
    if missing := [f"'{key}'" for key in ("model", "ema", "step") if key not in held]:
        *others, last = missing
        raise other(f"it has no {', '.join(others)}{' and ' if others else ''}{last}")
    step = count_of(content["step"])
    if step is None:
        raise other("its 'step' is not a count")
    raw = weights_of(content["model"] or {}, "model", other)
    sigmas, ema = raw.pop(LEVELS, None), content["ema"]
    if not isinstance(ema, Mapping) or not isinstance(ema.get("shadow_params"), (list, tuple)):
        raise other("its 'ema' has no list 'shadow_params'")
    decay = ema.get("decay")
    known = decay if isinstance(decay, float) and 0 <= decay <= 1 else None
    return Checkpoint(raw, _averages(ema["shadow_params"], raw, other), sigmas, step, known)


def _averages(
    shadow: Any, raw: Mapping[str, Tensor], other: Callable[[str], CheckpointError]
) -> dict[str, Tensor]:
    """Return the averages by name: they have none, and stand in the order of the trained parameters.

    A state dict lists the parameters in that very order. Untrained frequencies are their own average.
    """
    names = list(raw)
    if len(shadow) == len(names) - 1 and FREQUENCIES in raw:
        names.remove(FREQUENCIES)
    if len(shadow) != len(names):
        raise other(f"its 'ema' averages {len(shadow)} tensors and its 'model' has {len(names)}")
    ema = {FREQUENCIES: raw[FREQUENCIES]} if FREQUENCIES in raw else {}
    for name, average in zip(names, shadow, strict=True):
        average = plain_tensor(average, f"the average of '{named(name)}'", other)
        if average.shape != raw[name].shape:
            found, wanted = list(average.shape), list(raw[name].shape)
            raise other(f"the average of '{named(name)}' is {found} and the tensor {wanted}")
        ema[name] = average.detach()
    return ema


# With its settings, from their names to this package's recipe and state dicts


def convert(checkpoint: Checkpoint, config: ScoreSDEConfig) -> Native[SGMRecipe]:
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
    # A preconditioned network lies one level deeper.
    place = "prior.network" if recipe.prior.preconditioning == "none" else "prior.network.network"
    table = network_table(networks.get_submodule(place))
    _same_names(checkpoint.raw, table, config)
    own = networks.state_dict()

    def state(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        out = {
            f"{place}.{name}": _assembled(row, theirs, own[f"{place}.{name}"]) for name, row in table.items()
        }
        if "prior.sigma2_max" in own:
            out["prior.sigma2_max"] = torch.tensor(recipe.prior.sde.sigma2_max, dtype=torch.float64)
        return out

    return Native(recipe, pixels, state(checkpoint.raw), state(checkpoint.ema))


def network_table(network: nn.Module) -> Table:
    """Return what every tensor of an `NCSNpp` is made of, by score_sde's names; of it shapes are enough.

    They number the layers in the order of execution, those without parameters left out, the frequencies of a
    Fourier embedding first.
    """
    assert isinstance(network, NCSNpp)
    layers = [layer for layer in layers_in_order(network) if any(True for _ in layer.parameters())]
    if not drawn_frequencies(network):
        return numbered_rows(network, layers)
    return {
        **numbered_rows(network, layers, first=1),
        "embed.frequencies": Assembly([FREQUENCIES], lambda tensors: tensors[0]),
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


def _assembled(row: Assembly, theirs: Mapping[str, Tensor], own: Tensor) -> Tensor:
    whole = row.made(theirs, own)
    if whole is None:
        shapes = ", ".join(f"'{name}' {list(theirs[name].shape)}" for name in row.names[:3])
        more = " and so on" if len(row.names) > 3 else ""
        raise CheckpointError(
            f"the checkpoint's {shapes}{more} do not make up {list(own.shape)} of a model of its "
            "configuration; name the configuration that it was trained with"
        )
    return whole


def _same_names(theirs: Mapping[str, Tensor], table: Table, config: ScoreSDEConfig) -> None:
    wanted = {name for row in table.values() for name in row.names}
    if config.sde == "vesde" and FREQUENCIES not in theirs:
        raise CheckpointError(
            f"the checkpoint has no random frequencies '{FREQUENCIES}', as only models with sde = 'vesde' "
            "trained at discrete times have none; give one of a configuration that ends in _continuous"
        )
    missing, surplus = sorted(wanted - theirs.keys()), sorted(theirs.keys() - wanted)
    if missing or surplus:
        said = (
            f"lacks '{missing[0]}', which a model of its configuration has"
            if missing
            else f"has '{named(surplus[0])}', which a model of its configuration has not"
        )
        raise CheckpointError(f"the checkpoint {said}; name the configuration that it was trained with")


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
    near = max(1e-5, torch.finfo(sigmas.dtype).eps)
    ends = ((high, config.sigma_max), (low, config.sigma_min))
    if not all(math.isclose(found, wanted, rel_tol=near) for found, wanted in ends):
        raise CheckpointError(
            f"the checkpoint's noise levels go from {low:g} to {high:g}, and its configuration says "
            f"{config.sigma_min:g} to {config.sigma_max:g}; name the configuration that it was trained with"
        )


# Parity with files that score_sde_pytorch wrote
#
# A folder holds `config.toml`, as for the import, and `expected.safetensors` in float64: pixels ``x`` in the
# model's own range and times ``t``; of these ``std``, the standard deviation of x at t, ``labels``, what the
# network is told of t, and ``raw/output`` and ``ema/output``, what the model returns with either weights.

SETTINGS = "config.toml"


def conform(folder: Path, tolerances: Tolerances) -> list[Result]:
    """Return the result of every stage that the folder has values for.

    Raises UserError, one sentence, where the folder is incomplete or damaged, or its parts do not belong
    together.
    """
    for name in (SETTINGS, EXPECTED):
        if not os.path.lexists(folder / name):
            raise DataError(
                f"{folder} has no {name}; the folder of a checkpoint of score_sde_pytorch holds "
                f"checkpoint.pth, {SETTINGS} and {EXPECTED}"
            )
    config = find_config(str(folder / SETTINGS))
    native = convert(read_checkpoint(folder / "checkpoint.pth"), config)
    priors = {}
    for weights, state in (("raw", native.raw), ("ema", native.ema)):
        networks = SGM(native.recipe.prior, native.pixels)
        networks.load_state_dict(state)
        priors[weights] = networks.double().eval().prior

    def run(golden: GoldenFolder, model: None, names: Sequence[str]) -> Mapping[str, Tensor]:
        """Return ours in their terms, in units of their pixels; theirs on [0, 1] are ours on [-1, 1]."""
        x = golden.take_shaped("x", names[0], native.pixels.shape)
        t = golden.take_shaped("t", names[0], ())
        unit, exploding = unit_of(config), config.sde == "vesde"
        z = unit * x - (unit - 1)
        std = priors["ema"].sde.sigma(t) / unit
        values = {"std": std, "labels": std if exploding else TIME_SCALE * t}
        with torch.no_grad():
            for weights, prior in priors.items():
                score = unit * prior.score(z, t)
                values[f"{weights}/output"] = score if exploding else -score * per_sample(std, score)
        return values

    golden = GoldenFolder(folder, {}, Averages(), read_values(folder / EXPECTED), EXPECTED)
    stages = Family[None](lambda name: True, run)
    return examine(golden, None, (stages,), tolerances, given=lambda name: name in ("x", "t"))
