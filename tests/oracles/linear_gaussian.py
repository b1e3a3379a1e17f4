"""A VAE whose every expectation is known: z ~ N(0, I), x | z ~ N(W z + b, s^2 I), q(z | x) Gaussian."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lsgm.generative import Pixels
from lsgm.vae.base import LOG_2PI, VAE, LatentDraw, LatentGroups, Noise, repeated

__all__ = ["GaussianPixels", "LinearGaussianVAE"]

D, SCALE = 5, 24.0
"""Pixels, and levels per unit of x, so fine that rounding to levels is no part of any test."""


@dataclass(frozen=True)
class GaussianPixels:
    """N(x; mean, s2) with mean [B, 1, 1, D]: its density passes for a mass, as the levels are so fine."""

    centre: Tensor
    s2: float
    is_mass = True

    def log_prob(self, levels: Tensor) -> Tensor:
        squares = (values(levels) - self.centre).square()
        return -0.5 * (squares / self.s2 + math.log(2 * math.pi * self.s2))

    def mean(self) -> Tensor:
        return (self.centre * SCALE + 127.5) / 255

    def sample(self, uniform: Tensor) -> Tensor:
        return self.mean() + self.s2**0.5 * SCALE / 255 * torch.special.ndtri(uniform)


def values(levels: Tensor) -> Tensor:
    """x of levels 0..255."""
    return (levels.double() - 127.5) / SCALE


class LinearGaussianVAE(VAE):
    """Three groups of one latent, two in the top scale; q is the exact posterior, or a shifted, wider one.

    q(z | x) = N(mu(x), L L^T) with L triangular is a product of q(z_l | x, z_<l), as a VAE's must be.
    """

    def __init__(self, *, shift: float = 0.0, widen: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.pixels = Pixels(1, 1, D, "discrete", 8)
        self.groups = LatentGroups(((1, 1, 1),) * 3, top=2)
        self.w = 0.5 * torch.randn(D, 3, generator=generator, dtype=torch.float64)
        self.b = 0.3 * torch.randn(D, generator=generator, dtype=torch.float64)
        self.s2 = 0.4
        precision = torch.eye(3, dtype=torch.float64) + self.w.T @ self.w / self.s2
        self.gain = torch.linalg.solve(precision, self.w.T / self.s2)
        self.shift = shift
        self.scale = widen * torch.linalg.cholesky(torch.linalg.inv(precision))
        self.rows: list[int] = []
        """How many rows were decoded together, call by call."""

    def draw_levels(self, count: int, seed: int = 0) -> Tensor:
        """Images of the model, [count, 1, 1, D] uint8."""
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(count, 3, generator=generator, dtype=torch.float64)
        x = z @ self.w.T + self.b
        x += self.s2**0.5 * torch.randn(count, D, generator=generator, dtype=torch.float64)
        return (x * SCALE + 127.5).round().clamp(0, 255).to(torch.uint8)[:, None, None]

    def centre(self, levels: Tensor) -> Tensor:
        """mu(x) [B, 3]."""
        return (values(levels).flatten(1) - self.b) @ self.gain.T + self.shift

    def encode(self, levels: Tensor, noise: Noise, draws: int = 1) -> tuple[LatentDraw, ...]:
        n = torch.cat([noise(*shape) for shape in self.groups.shapes], dim=1).flatten(1).double()
        z = repeated(self.centre(levels), draws) + n @ self.scale.T
        log_q = -0.5 * n.square() - self.scale.diagonal().log() - 0.5 * LOG_2PI
        columns = zip(z.unbind(1), log_q.unbind(1), strict=True)
        return tuple(LatentDraw(a[:, None, None, None], b[:, None, None, None]) for a, b in columns)

    def likelihood(self, z: tuple[Tensor, ...]) -> GaussianPixels:
        self.rows.append(len(z[0]))
        return GaussianPixels((torch.cat(z, dim=1).flatten(1) @ self.w.T + self.b)[:, None, None], self.s2)

    def nll(self, levels: Tensor) -> Tensor:
        """-log p(x) = -log N(x; b, W W^T + s^2 I), [B]."""
        covariance = self.w @ self.w.T + self.s2 * torch.eye(D, dtype=torch.float64)
        law = torch.distributions.MultivariateNormal(self.b, covariance)
        return -law.log_prob(values(levels).flatten(1))

    def nelbo(self, levels: Tensor) -> dict[str, Tensor]:
        """E_q of the bound's terms, each [B]."""
        mu, covariance = self.centre(levels), self.scale @ self.scale.T
        residual = values(levels).flatten(1) - self.b - mu @ self.w.T
        spread = (self.w @ covariance @ self.w.T).trace()
        return {
            "reconstruction": 0.5 * (residual.square().sum(1) + spread) / self.s2
            + 0.5 * D * math.log(2 * math.pi * self.s2),
            "negative_entropy": (-0.5 * (2 * math.pi * math.e * covariance).logdet()).expand(len(mu)),
            "cross_entropy": 0.5 * (mu.square().sum(1) + covariance.trace()) + 1.5 * LOG_2PI,
        }
