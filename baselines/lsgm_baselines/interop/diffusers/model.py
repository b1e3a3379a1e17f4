"""A DDPM of the diffusers library as a score model: what it predicts as the noise, its coder, its bound."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lsgm.errors import CheckpointError, ConfigError
from lsgm.files.shown import shown
from lsgm.generative import Pixels
from lsgm.models.latent import parameter_counts
from lsgm.models.measured import ScoreBasedModel
from lsgm.models.sketch import sketch
from lsgm.objective import Objective
from lsgm.proposal.vp import LogVariance
from lsgm.score import ScoreModel, per_sample
from lsgm.sde.tabulated import TabulatedVPSDE, ddpm_betas
from lsgm.weighting import Weighting
from lsgm_baselines.cells import DequantisedPixels
from lsgm_baselines.interop.diffusers.config import BetaConfig, DDPMRecipe
from lsgm_baselines.nets.unet2d import UNet2D
from lsgm_baselines.pixels import NoisyPixels

__all__ = ["DDPM", "NoiseNetwork", "empty_networks", "measure_ddpm", "sde_of"]


def sde_of(config: BetaConfig) -> TabulatedVPSDE:
    """Return the training process of a schedule. Raises ConfigError for a beta outside of (0, 1)."""
    if config.schedule == "trained":
        return TabulatedVPSDE(config.betas)
    return TabulatedVPSDE(ddpm_betas(config.schedule, config.steps, config.start, config.end))


class NoiseNetwork(nn.Module):
    r"""eps(z_t, t) of a network that is asked by timesteps n and may predict something else.

    Timestep n of N belongs to t = (n + 1) / N; below its first one the network is asked for that. With y the
    prediction, m and sigma those of t,

        epsilon: eps = y,    v_prediction: eps = m y + sigma z_t,    sample: eps = (z_t - m y) / sigma,

    (arXiv:2202.00512, appendix D). With ``clip`` the predicted z_0 = (z_t - sigma eps) / m is clamped, and
    eps is the one that belongs to it.
    """

    def __init__(self, unet: nn.Module, sde: TabulatedVPSDE, recipe: DDPMRecipe) -> None:
        super().__init__()
        self.unet = unet
        self.sde = sde
        self.prediction, self.clip, self.first = recipe.prediction, recipe.clip, recipe.first_timestep

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the noise in z_t [B, C, H, W] at times t [B]."""
        n = (t.double() * self.sde.steps - 1).clamp(min=self.first)
        y: Tensor = self.unet(z_t, n)
        if self.prediction == "epsilon" and self.clip is None:
            return y
        m, sigma = (per_sample(values, z_t) for values in (self.sde.mean(t), self.sde.sigma(t)))
        match self.prediction:
            case "sample":
                clean = y
            case "v_prediction":
                if self.clip is None:
                    return m * y + sigma * z_t
                clean = m * z_t - sigma * y
            case _:
                clean = (z_t - sigma * y) / m
        if self.clip is not None:
            clean = clean.clamp(-self.clip, self.clip)
        return (z_t - m * clean) / sigma


class DDPM(nn.Module):
    """The score model of pixels on [-1, 1] that a recipe describes."""

    def __init__(self, recipe: DDPMRecipe, pixels: Pixels) -> None:
        super().__init__()
        self.pixels = pixels
        sde = sde_of(recipe.betas)
        self.prior = ScoreModel(sde, NoiseNetwork(UNet2D(recipe.network), sde, recipe))


def empty_networks(recipe: DDPMRecipe, pixels: Pixels, file: Path) -> DDPM:
    """Return the recipe's networks as shapes alone. Raises CheckpointError, which names ``file``."""
    try:
        networks = sketch(recipe, pixels)
    except (ConfigError, ValueError, TypeError) as error:
        why = shown(str(error).split("\n")[0])[:300]
        raise CheckpointError(
            f"{shown(str(file))} describes a network that cannot be built: {why}; give that of the weights"
        ) from error
    assert isinstance(networks, DDPM)
    return networks


def measure_ddpm(recipe: DDPMRecipe, networks: DDPM, state: Mapping[str, Any]) -> ScoreBasedModel:
    """Return an imported DDPM as the harness sees it; its flow ends at the first time it was trained at."""
    prior, pixels, end = networks.prior, networks.pixels, recipe.time_end
    bound = Objective(prior.sde, Weighting.LL, LogVariance(prior.sde, end), end)
    return ScoreBasedModel(
        coder=NoisyPixels(prior.sde, pixels, end),
        prior=prior,
        bound=bound,
        name=state["name"],
        sha256=state["sha256"],
        parameters=parameter_counts(networks),
        remark=recipe.remark,
        dequantised=DequantisedPixels(pixels, end),
    )
