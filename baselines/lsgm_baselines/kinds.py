"""The kinds ``sgm`` and ``vae``: from recipes to networks, stages and measurable models. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lsgm.config import require
from lsgm.kinds import Kind
from lsgm_baselines.recipe import SGMRecipe, VAERecipe

if TYPE_CHECKING:
    from torch import nn

    from lsgm.generative import GenerativeModel, Pixels
    from lsgm.train.stage import StageSpec


def _build_sgm(recipe: SGMRecipe, pixels: Pixels) -> nn.Module:
    from lsgm_baselines.sgm import SGM

    return SGM(recipe.prior, pixels)


def _sgm_stages(recipe: SGMRecipe, networks: Any) -> list[StageSpec]:
    from lsgm.train.stage import StageSpec
    from lsgm.train.stages import make_objective
    from lsgm_baselines.sgm import ScoreStep

    # What does not exist is refused before anything is written.
    require(
        recipe.prior.sde.sigma2_max != "data",
        'sigma2-max = "data" is found from the latents of an LSGM; give a number to a model of pixels',
    )
    make_objective(recipe.prior.objective, networks.prior)

    def stage() -> ScoreStep:
        return ScoreStep(networks, recipe.prior.objective, recipe.stage, dequantise=recipe.dequantise)

    return [StageSpec("score", recipe.stage, stage)]


def _measure_sgm(recipe: SGMRecipe, networks: Any, state: Mapping[str, Any]) -> GenerativeModel:
    from lsgm_baselines.sgm import measure_sgm

    return measure_sgm(recipe, networks, state)


def _build_vae(recipe: VAERecipe, pixels: Pixels) -> nn.Module:
    from torch import nn

    from lsgm.model.lsgm import build_vae

    return nn.ModuleDict({"vae": build_vae(recipe.vae, pixels, pad=recipe.data.pad)})


def _vae_stages(recipe: VAERecipe, networks: Any) -> list[StageSpec]:
    from lsgm.train.stage import StageSpec
    from lsgm.train.stages import NormalPriorStep

    def stage() -> NormalPriorStep:
        return NormalPriorStep(networks["vae"], recipe.stage1)

    return [StageSpec("stage1", recipe.stage1, stage)]


def _measure_vae(recipe: VAERecipe, networks: Any, state: Mapping[str, Any]) -> GenerativeModel:
    from lsgm.model.diffusion import measure_vae

    return measure_vae(networks, state)


SGM_KIND = Kind("sgm", SGMRecipe, _build_sgm, _sgm_stages, _measure_sgm)
VAE_KIND = Kind("vae", VAERecipe, _build_vae, _vae_stages, _measure_vae)
