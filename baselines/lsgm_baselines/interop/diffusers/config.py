"""The recipe of a DDPM of the diffusers library: its U-Net, its betas and what it predicts. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lsgm.config import DataConfig, require
from lsgm_baselines.nets.unet2d_config import UNet2DConfig

__all__ = ["BetaConfig", "DDPMRecipe", "Prediction"]

Prediction = Literal["epsilon", "v_prediction", "sample"]
"""The noise; v = m eps - sigma x_0 (arXiv:2202.00512); the clean image."""


MOST_STEPS = 10**6
"""Training times of a schedule: it is kept as a table of numbers."""


@dataclass(frozen=True)
class BetaConfig:
    """The betas of the training process, by the name of their schedule or one by one."""

    schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2", "trained"] = "linear"
    """Even in beta, even in its root, a cosine, or the numbers in ``betas``."""
    steps: int = 1000
    """Number N of training times."""
    start: float = 1e-4
    """First beta of linear and scaled_linear."""
    end: float = 0.02
    """Last beta of linear and scaled_linear."""
    betas: tuple[float, ...] = ()
    """The betas themselves, with the schedule trained."""

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"steps is {self.steps}; a schedule needs at least 1 training time")
        require(
            self.steps <= MOST_STEPS,
            f"steps is {self.steps}; a schedule has at most {MOST_STEPS} training times",
        )
        require(
            bool(self.betas) == (self.schedule == "trained"),
            "betas are given with the schedule trained, and with no other",
        )
        require(
            not self.betas or len(self.betas) == self.steps,
            f"there are {len(self.betas)} betas for {self.steps} training times; give as many as steps",
        )


@dataclass(frozen=True)
class DDPMRecipe:
    """A DDPM that was trained by the diffusers library: it is sampled and measured here, never trained."""

    kind: Literal["ddpm"] = "ddpm"
    """The model's kind."""
    seed: int = 1
    """Seed of an initialisation that the imported weights replace."""
    data: DataConfig = field(default_factory=DataConfig)
    network: UNet2DConfig = field(default_factory=UNet2DConfig)
    betas: BetaConfig = field(default_factory=BetaConfig)
    prediction: Prediction = "epsilon"
    """What the network returns: the noise, v = m eps - sigma x_0, or the clean image."""
    clip: float | None = None
    """Clamp every predicted clean image to [-clip, clip], as clip_sample of a scheduler does (None: not)."""
    remark: str = ""
    """What must be said beside the model's numbers."""

    def __post_init__(self) -> None:
        require(self.clip is None or self.clip > 0, f"clip is {self.clip}; it must be above 0")

    @property
    def first_timestep(self) -> int:
        """The smallest timestep that the network is asked for: a logarithm of the timestep has none at 0."""
        return 1 if self.network.time_embedding_type == "fourier" else 0

    @property
    def time_end(self) -> float:
        """The time t = (n + 1) / N of that timestep n, where sampling ends and the levels' noise stands."""
        return (self.first_timestep + 1) / self.betas.steps
