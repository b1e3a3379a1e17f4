"""Recipes of the baselines, as frozen dataclasses free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lsgm.config import DataConfig, OptimConfig, StageConfig, require
from lsgm.nets.config import ConvVAEConfig
from lsgm.recipes.recipe import ObjectiveConfig, PriorConfig, VAEConfig, VAEStage, refuse_compiled_recompute


@dataclass(frozen=True)
class ScoreStage(StageConfig):
    """The only stage of a data-space score model."""

    prior: OptimConfig = field(default_factory=OptimConfig)


@dataclass(frozen=True)
class SGMRecipe:
    """A data-space score model: the score network of an LSGM on the pixels themselves."""

    kind: Literal["sgm"] = "sgm"
    """The model's kind."""
    seed: int = 1
    """Seed of initialisation, data order and noise."""
    dequantise: Literal["none", "uniform"] = "none"
    """What the network sees of a level: its own point on [-1, 1], or one drawn uniformly from its cell."""
    data: DataConfig = field(default_factory=DataConfig)
    prior: PriorConfig = field(
        default_factory=lambda: PriorConfig(mixing_init=None, objective=ObjectiveConfig(weighting="un"))
    )
    stage: ScoreStage = field(default_factory=ScoreStage)

    def __post_init__(self) -> None:
        require(
            self.data.pad == 0, "data.pad must be 0 for a data-space score model: it would model the padding"
        )


@dataclass(frozen=True)
class VAERecipe:
    """The VAE of an LSGM with its Normal prior: stage 1 and nothing after it."""

    kind: Literal["vae"] = "vae"
    """The model's kind."""
    seed: int = 1
    """Seed of initialisation, data order and noise."""
    data: DataConfig = field(default_factory=DataConfig)
    vae: VAEConfig = field(default_factory=ConvVAEConfig)
    stage1: VAEStage = field(default_factory=VAEStage)

    def __post_init__(self) -> None:
        refuse_compiled_recompute(self.vae, self.stage1)
