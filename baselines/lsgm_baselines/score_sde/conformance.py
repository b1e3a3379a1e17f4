"""Parity with files that score_sde_pytorch wrote: `checkpoint.pth`, its settings, and what it computes.

A folder holds `config.toml`, as for the import, and `expected.safetensors` in float64: pixels ``x`` in the
model's own range and times ``t``; of these ``std``, the standard deviation of x at t, ``labels``, what the
network is told of t, and ``raw/output`` and ``ema/output``, what the model returns with either weights.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lsgm.conformance.folder import EXPECTED, Averages, Golden, read_values
from lsgm.conformance.stage import Family, Result, Tolerances, examine
from lsgm.errors import DataError
from lsgm.score import ScoreModel, per_sample
from lsgm_baselines.score_sde.convert import convert, read_checkpoint
from lsgm_baselines.score_sde.settings import TIME_SCALE, ScoreSDEConfig, find_config, unit_of
from lsgm_baselines.sgm import SGM

__all__ = ["conform"]

SETTINGS = "config.toml"


@dataclass(frozen=True)
class Model:
    """The model of a folder in float64, by the weights that it has."""

    config: ScoreSDEConfig
    priors: Mapping[str, ScoreModel]
    image: tuple[int, int, int]


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
    golden = Golden(folder, {}, Averages(), read_values(folder / EXPECTED), EXPECTED)
    return examine(golden, _load(folder), (STAGES,), tolerances, given=lambda name: name in ("x", "t"))


def _load(folder: Path) -> Model:
    config = find_config(str(folder / SETTINGS))
    native = convert(read_checkpoint(folder / "checkpoint.pth"), config)
    priors = {}
    for weights, state in (("raw", native.raw), ("ema", native.ema)):
        networks = SGM(native.recipe.prior, native.pixels)
        networks.load_state_dict(state)
        priors[weights] = networks.double().eval().prior
    return Model(config, priors, native.pixels.shape)


def _run(golden: Golden, model: Model, names: Sequence[str]) -> Mapping[str, Tensor]:
    """Return ours in their terms, in units of their pixels; theirs on [0, 1] are ours on [-1, 1]."""
    x = golden.take_shaped("x", names[0], model.image)
    t = golden.take_shaped("t", names[0], ())
    unit, exploding = unit_of(model.config), model.config.sde == "vesde"
    z = unit * x - (unit - 1)
    std = model.priors["ema"].sde.sigma(t) / unit
    values = {"std": std, "labels": std if exploding else TIME_SCALE * t}
    with torch.no_grad():
        for weights, prior in model.priors.items():
            score = unit * prior.score(z, t)
            values[f"{weights}/output"] = score if exploding else -score * per_sample(std, score)
    return values


STAGES = Family[Model](lambda name: True, _run)
