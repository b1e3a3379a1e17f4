"""From score_sde_pytorch's settings to a recipe and the images that it models."""

from __future__ import annotations

from typing import Literal

from lsgm.config import DataConfig, OptimConfig, SDEConfig
from lsgm.generative import Pixels
from lsgm.models.config import ObjectiveConfig, PriorConfig
from lsgm.nets.config import ScoreNetConfig
from lsgm_baselines.config import ScoreStage, SGMRecipe
from lsgm_baselines.interop.score_sde.config import ScoreSDEConfig

__all__ = ["TIME_SCALE", "pixels_of", "recipe_of", "unit_of"]

TIME_EPS = 1e-5
"""Smallest time of their training, and of their likelihoods."""

TIME_SCALE = 999.0
"""What their networks are told of t = 1 where they are told the time."""


def recipe_of(config: ScoreSDEConfig) -> SGMRecipe:
    """Return the recipe of a model with these settings, its training as far as it can be said here.

    Their pixels are levels / 255, on [0, 1]; ours lie on [-1, 1], twice as far from each other. A variance
    exploding SDE that runs on theirs is the same on ours with twice the sigma, but for its prior at t = 1,
    which is centred on black there and on grey here: a hundredth of its standard deviation.
    """
    warmup = min(config.warmup / config.n_iters, 0.99)
    return SGMRecipe(
        seed=42,
        dequantise="uniform" if config.uniform_dequantization else "none",
        data=DataConfig(config.dataset, flip=config.random_flip, image_size=max(config.image_size, 8)),
        prior=_prior(config),
        stage=ScoreStage(
            steps=config.n_iters,
            batch_size=config.batch_size,
            warmup=warmup,
            ema=config.ema_rate,
            prior=OptimConfig(lr=config.lr, lr_min=config.lr),
        ),
    )


def pixels_of(config: ScoreSDEConfig) -> Pixels:
    """Return the images that a model with these settings draws."""
    side = config.image_size
    return Pixels(config.num_channels, side, side, *(("binary", 1) if config.binary else ("discrete", 8)))


def _prior(config: ScoreSDEConfig) -> PriorConfig:
    weighting: Literal["ll", "un"] = "ll" if config.likelihood_weighting else "un"
    objective = ObjectiveConfig(weighting, importance_sampling=False, time_eps=TIME_EPS)
    if config.sde == "vesde":
        unit = unit_of(config)
        return PriorConfig(
            sde=SDEConfig(
                "ve",
                sigma2_min=(unit * config.sigma_min) ** 2,
                sigma2_max=(unit * config.sigma_max) ** 2,
            ),
            network=_network(config),
            objective=objective,
            mixing_init=None,
            preconditioning="scaled-score",
            sigma_unit=unit,
        )
    kind: Literal["vp", "subvp"] = "vp" if config.sde == "vpsde" else "subvp"
    sde = SDEConfig(kind, config.beta_min, config.beta_max)
    return PriorConfig(sde=sde, network=_network(config), objective=objective, mixing_init=None)


def unit_of(config: ScoreSDEConfig) -> float:
    """Return the length of their pixels' unit on ours."""
    return 1.0 if config.centered else 2.0


def _network(config: ScoreSDEConfig) -> ScoreNetConfig:
    fourier = config.embedding_type == "fourier"
    return ScoreNetConfig(
        width=config.nf,
        multipliers=config.ch_mult,
        blocks=config.num_res_blocks,
        attention=config.attn_resolutions,
        dropout=config.dropout,
        # Of nf random frequencies they take sine and cosine, and of nf / 2 geometric ones.
        embedding=2 * config.nf if fourier else config.nf,
        embedding_hidden=4 * config.nf,
        embedding_scale=config.fourier_scale if fourier else TIME_SCALE,
        embedding_kind=config.embedding_type,
        fir=config.fir,
        progressive=config.progressive,
        progressive_input=config.progressive_input,
        progressive_combine=config.progressive_combine,
    )
