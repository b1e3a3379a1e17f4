"""The kind ``lsgm``: from its recipe to networks, stages and a measurable model. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lsgm.kinds import Kind
from lsgm.recipes.recipe import LSGMRecipe

if TYPE_CHECKING:
    from torch import nn

    from lsgm.generative import GenerativeModel, Pixels
    from lsgm.train.stage import StageSpec


def _build(recipe: LSGMRecipe, pixels: Pixels) -> nn.Module:
    from lsgm.model.lsgm import build_lsgm

    return build_lsgm(recipe, pixels)


def _stages(recipe: LSGMRecipe, networks: Any) -> list[StageSpec]:
    from lsgm.train.stage import StageSpec
    from lsgm.train.stages import NormalPriorStep, PriorStep, make_objective, make_vae_objective, second_step

    # An objective that does not exist is refused now, not when stage 1 is done.
    make_objective(recipe.prior.objective, networks.prior)
    make_vae_objective(recipe.prior.objective, recipe.stage2, networks.prior)
    from_data = recipe.prior.sde.sigma2_max == "data"

    def stage1() -> NormalPriorStep:
        return NormalPriorStep(networks.vae, recipe.stage1)

    def prior_stage() -> PriorStep:
        return PriorStep(networks.vae, networks.prior, recipe.prior.objective, recipe.prior_stage, from_data)

    def stage2() -> PriorStep:
        # The largest variance is found once, by the first stage that has a prior.
        find = from_data and recipe.prior_stage.steps == 0
        return second_step(networks.vae, networks.prior, recipe.prior.objective, recipe.stage2, find)

    return [
        StageSpec("stage1", recipe.stage1, stage1),
        StageSpec("prior_stage", recipe.prior_stage, prior_stage),
        StageSpec("stage2", recipe.stage2, stage2),
    ]


def _measurable(recipe: LSGMRecipe, networks: Any, state: Mapping[str, Any]) -> GenerativeModel:
    from lsgm.model.diffusion import measure_lsgm, measure_vae

    # A checkpoint of stage 1 holds no prior: it is the VAE with its Normal prior.
    if state.get("stage") == "stage1":
        return measure_vae(networks, state)
    return measure_lsgm(recipe.prior.objective, networks, state)


def _used(state: Mapping[str, Any]) -> tuple[str, ...]:
    return ("vae",) if state.get("stage") == "stage1" else ("vae", "prior")


LSGM_KIND = Kind("lsgm", LSGMRecipe, _build, _stages, _measurable, _used)
