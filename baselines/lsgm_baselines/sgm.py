"""Data-space score models: the score network on pixels, its training stage and its measurement."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lsgm.generative import Pixels
from lsgm.model.diffusion import ScoreBasedModel, likelihood_bound, training_remark
from lsgm.model.lsgm import make_prior, parameter_counts
from lsgm.objective.bound import Objective
from lsgm.pixels import network_input
from lsgm.recipes.recipe import ObjectiveConfig, PriorConfig
from lsgm.rng import StepNoise
from lsgm.score import ScoreModel
from lsgm.train.stage import Losses, ParamGroup, Stage
from lsgm.train.stages import make_objective
from lsgm_baselines.coders import DequantisedPixels, NoisyCells, NoisyPixels, dequantised
from lsgm_baselines.recipe import ScoreStage, SGMRecipe

__all__ = ["SGM", "ScoreLoss", "ScoreStep", "measure_sgm"]


class SGM(nn.Module):
    """A score model of pixels on [-1, 1]."""

    def __init__(self, config: PriorConfig, pixels: Pixels) -> None:
        super().__init__()
        self.pixels = pixels
        self.prior = make_prior(config, pixels.shape)


class ScoreLoss(nn.Module):
    """Denoising score matching on the pixels, E_t [lambda(t) || eps - eps_theta(x_t, t) ||^2].

    x are the levels' own points or, with ``dequantise`` uniform, new points of their cells at every step.
    """

    def __init__(
        self,
        prior: ScoreModel,
        pixels: Pixels,
        objective: Objective,
        *,
        dequantise: Literal["none", "uniform"] = "none",
    ) -> None:
        super().__init__()
        self.prior = prior
        self.pixels = pixels
        self.objective = objective
        self.dequantise = dequantise

    def forward(self, levels: Tensor, noise: StepNoise, progress: float) -> Losses:
        """Return the mean loss over uint8 levels [B, C, H, W]; every term is in nats per image.

        Of the levels' own points ``kl`` is the bound on -log P(x) without the cost of rounding z_e to levels;
        of dequantised levels ``nelbo`` is at most looser than that bound by the noise beyond the outer cells.
        """
        x = self._points(levels, noise)
        eps = noise.normal(*self.pixels.shape)
        ce = self.objective.cross_entropy(self.prior, x, noise.stratified(), eps)
        terms = {"score_loss": ce.score_loss, **self._bound(ce.value)}
        return Losses(ce.surrogate.mean(), {name: x.mean() for name, x in terms.items()})

    def _points(self, levels: Tensor, noise: StepNoise) -> Tensor:
        if self.dequantise == "none":
            return network_input(levels, self.pixels)
        return dequantised(levels, noise.uniform(*self.pixels.shape), self.pixels.levels)

    def _bound(self, cross_entropy: Tensor) -> dict[str, Tensor]:
        sde, e, dims = self.objective.sde, self.objective.time_eps, self.pixels.dims
        if self.dequantise == "none":
            return {"kl": cross_entropy - dims * sde.entropy_const(e)}
        cell = 2 * float(sde.mean(torch.tensor(e, dtype=torch.float64))) / self.pixels.levels
        return {"nelbo": cross_entropy - dims * math.log(cell)}


@dataclass(frozen=True)
class ScoreStep(Stage):
    """The only stage: the score model on the images."""

    networks: SGM
    objective: ObjectiveConfig
    config: ScoreStage
    dequantise: Literal["none", "uniform"] = "none"
    name: str = "score"
    compile_of: tuple[str, ...] = ("prior.network",)

    @cached_property
    def module(self) -> ScoreLoss:
        """The loss, with the score model inside."""
        prior = self.networks.prior
        objective = make_objective(self.objective, prior)
        return ScoreLoss(prior, self.networks.pixels, objective, dequantise=self.dequantise)

    def groups(self) -> list[ParamGroup]:
        """Return the score model's parameters."""
        return [ParamGroup("prior", list(self.networks.prior.parameters()), self.config.prior)]


def measure_sgm(recipe: SGMRecipe, networks: SGM, state: Mapping[str, Any]) -> ScoreBasedModel:
    """Return a trained data-space score model as the harness sees it; its flow ends where training did.

    Its own coder is that of the points it was trained on: the levels' own, or those of their cells.
    """
    prior, pixels, config = networks.prior, networks.pixels, recipe.prior.objective
    uniform = recipe.dequantise == "uniform"
    coder = NoisyCells if uniform else NoisyPixels
    remarks = (training_remark(state, pixels), "trained on dequantised levels" if uniform else "")
    return ScoreBasedModel(
        coder=coder(prior.sde, pixels, config.time_eps),
        prior=prior,
        bound=likelihood_bound(prior, config),
        name=state["name"],
        sha256=state["sha256"],
        parameters=parameter_counts(networks),
        remark="; ".join(filter(None, remarks)),
        dequantised=DequantisedPixels(pixels, config.time_eps),
    )
