"""Pixels as Normal variables on [-1, 1]: a density, kept for its parity with the authors' code."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lsgm.pixels.logistic import on_interval
from lsgm.precision import at_least_float32

__all__ = ["NormalPixels"]


class NormalPixels:
    """N(x; mu, sigma^2) per sub-pixel, x on [-1, 1], both mu and log sigma bounded by 5 tanh(. / 5).

    ``parameters`` [B, 2 C, H, W] holds mu and log sigma. `log_prob` is the log-density of x, which may be
    above 0 and grows without limit as sigma shrinks onto the levels: it is not the log-probability of a
    level and no bits per dimension may be made of it (``is_mass`` is False).
    """

    is_mass = False

    def __init__(self, parameters: Tensor, levels: int) -> None:
        mu, log_sigma = at_least_float32(parameters).chunk(2, dim=1)
        self.mu = 5 * torch.tanh(mu / 5)
        self.log_sigma = 5 * torch.tanh(log_sigma / 5)
        self.levels = levels

    def log_prob(self, levels: Tensor) -> Tensor:
        """Return log N(x; mu, sigma^2) per sub-pixel, in nats per unit of [-1, 1]."""
        x = on_interval(levels, self.levels, self.mu)
        scaled = (x - self.mu) * torch.exp(-self.log_sigma)
        return -0.5 * scaled**2 - self.log_sigma - 0.5 * math.log(2 * math.pi)

    def mean(self) -> Tensor:
        """Return mu, clipped to [0, 1]."""
        return (self.mu.clamp(-1, 1) + 1) / 2

    def sample(self, uniform: Tensor) -> Tensor:
        """Return mu + sigma Phi^-1(uniform), clipped to [0, 1] but not rounded to a level."""
        u = uniform.to(self.mu).clamp(1e-6, 1 - 1e-6)
        n: Tensor = torch.special.ndtri(u)
        return ((self.mu + torch.exp(self.log_sigma) * n).clamp(-1, 1) + 1) / 2
