"""The kind ``ddpm``: an imported DDPM, sampled and measured like any other model. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lsgm.errors import ConfigError
from lsgm.kinds import Kind
from lsgm_baselines.diffusers.recipe import DDPMRecipe

if TYPE_CHECKING:
    from torch import nn

    from lsgm.generative import GenerativeModel, Pixels
    from lsgm.train.stage import StageSpec


def _build(recipe: DDPMRecipe, pixels: Pixels) -> nn.Module:
    from lsgm_baselines.diffusers.model import DDPM

    return DDPM(recipe, pixels)


def _stages(recipe: DDPMRecipe, networks: Any) -> list[StageSpec]:
    raise ConfigError(
        "a DDPM from diffusers is sampled and measured here, never trained; train a recipe of kind sgm"
    )


def _measure(recipe: DDPMRecipe, networks: Any, state: Mapping[str, Any]) -> GenerativeModel:
    from lsgm_baselines.diffusers.model import measure_ddpm

    return measure_ddpm(recipe, networks, state)


DDPM_KIND = Kind("ddpm", DDPMRecipe, _build, _stages, _measure)
