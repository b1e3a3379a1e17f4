"""A data-space score model as a latent one: its coder adds the smallest noise and rounds it away.

With x the levels on [-1, 1], q(z | x) = N(z; m_e x, var_e I) at the smallest time e, and p(x | z) is
proportional to N(z; m_e x, var_e) over the levels (Kingma et al., arXiv:2107.00630, section 3.3). The same
bound as an LSGM's then holds for the discrete images, so that the two stand in one table, in the same nats.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from lsgm.generative import Pixels
from lsgm.models.latent import Encoded
from lsgm.objective import diffuse
from lsgm.pixels import PixelDistribution, network_input
from lsgm.sde import SDE
from lsgm.vae import LOG_2PI, Noise, repeated, sum_per_sample

__all__ = ["NoisyPixels", "RoundedPixels"]

CHUNK = 1 << 24
"""Largest number of (sub-pixel, level) pairs held at once."""


class RoundedPixels:
    """p(x | z) of levels x given noisy pixels z [B, C, H, W]: softmax of -(z - m x)^2 / (2 var) over x."""

    is_mass = True

    def __init__(self, z: Tensor, mean: float, var: float, levels: int) -> None:
        self.z = z
        self.mean_coef = mean
        self.var = var
        self.values = torch.linspace(-1, 1, levels, device=z.device)

    def _logits(self, z: Tensor) -> Tensor:
        return -((z[..., None] - self.mean_coef * self.values) ** 2) / (2 * self.var)

    def _pieces(self) -> list[Tensor]:
        rows = max(1, CHUNK // (self.z[0].numel() * len(self.values)))
        return list(torch.split(self.z, rows))

    def log_prob(self, levels: Tensor) -> Tensor:
        """Return log p of the given levels per sub-pixel, in nats."""
        chosen, start = [], 0
        for z in self._pieces():
            index = levels[start : start + len(z)].long()[..., None]
            chosen.append(torch.log_softmax(self._logits(z), dim=-1).gather(-1, index)[..., 0])
            start += len(z)
        return torch.cat(chosen)

    def mean(self) -> Tensor:
        """Return the expected image in [0, 1]."""
        means = [(torch.softmax(self._logits(z), dim=-1) * self.values).sum(dim=-1) for z in self._pieces()]
        return (torch.cat(means) + 1) / 2

    def sample(self, uniform: Tensor) -> Tensor:
        """Return a draw in [0, 1] by inverting the distribution function."""
        draws, start = [], 0
        for z in self._pieces():
            cumulative = torch.softmax(self._logits(z), dim=-1).cumsum(dim=-1)
            below = (cumulative < uniform[start : start + len(z)][..., None]).sum(dim=-1)
            draws.append(below.clamp(max=len(self.values) - 1) / (len(self.values) - 1))
            start += len(z)
        return torch.cat(draws)


class NoisyPixels:
    """The coder of a data-space score model, at the smallest time it was trained at."""

    step_control: Literal["state", "density"] = "density"

    def __init__(self, sde: SDE, pixels: Pixels, time_eps: float) -> None:
        self.sde = sde
        self.pixels = pixels
        self.latent_shape = pixels.shape
        self.ode_start = time_eps
        t = torch.tensor([time_eps], dtype=torch.float64)
        self._mean, self._var = float(sde.mean(t)), float(sde.var(t))

    def encode(self, levels: Tensor, noise: Noise, draws: int = 1) -> Encoded:
        """Draw z_e = m_e x + sigma_e n for images given as levels, uint8 [B, C, H, W], ``draws`` for each."""
        levels = repeated(levels, draws)
        x = network_input(levels, self.pixels)
        n = noise(*self.pixels.shape)
        t = torch.full((len(x),), self.ode_start, dtype=torch.float64, device=x.device)
        z_e = diffuse(self.sde, x, t, n).z_t
        log_sigma = 0.5 * math.log(self._var)
        log_q = sum_per_sample(-0.5 * n**2 - log_sigma - 0.5 * LOG_2PI)
        log_q_mean = torch.full_like(log_q, -self.pixels.dims * self.sde.entropy_const(self.ode_start))
        reconstruction = -sum_per_sample(self.decode(z_e).log_prob(levels))
        return Encoded(x, z_e, log_q, log_q_mean, reconstruction)

    def decode(self, z: Tensor, noise: Noise | None = None) -> PixelDistribution:
        """Return p(x | z_e), for which no noise is needed."""
        return RoundedPixels(z, self._mean, self._var, self.pixels.levels)
