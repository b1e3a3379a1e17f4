"""A score known in closed form, in the shape of latents, for benchmarks of solvers that need no files."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from lsgm.score import per_sample
from lsgm.sde import SDE

__all__ = ["MixtureScore", "mixture_score"]


@dataclass(frozen=True)
class MixtureScore:
    """The exact score model of z_0 ~ sum_k w_k N(mu_k, s2_k I), mu [K, C, H, W], s2 and w [K], float64.

    Diffused, a mixture stays one: p_t = sum_k w_k N(m_t mu_k, (m_t^2 s2_k + sigma_t^2) I). Results have the
    dtype of z_t, as a network's.
    """

    sde: SDE
    mu: Tensor
    s2: Tensor
    weights: Tensor

    def eps(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return -sigma_t times the score."""
        score, _ = self._score_and_trace(z_t, t)
        return -per_sample(self.sde.sigma(t), z_t) * score.to(z_t.dtype)

    def drift(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the velocity f z - g^2 score / 2 of the probability flow."""
        score, _ = self._score_and_trace(z_t, t)
        f, half_g2 = self.sde.f(t), 0.5 * self.sde.g2(t)
        return per_sample(f, z_t) * z_t - per_sample(half_g2, z_t) * score.to(z_t.dtype)

    def trace(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the exact divergence of ``drift``, float64 [B]."""
        size = z_t[0].numel()
        return size * self.sde.f(t) - 0.5 * self.sde.g2(t) * self._score_and_trace(z_t, t)[1]

    def draw(self, count: int, seed: int) -> Tensor:
        """Return ``count`` samples z_0, float64."""
        generator = Generator().manual_seed(seed)
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, *self.mu.shape[1:], generator=generator, dtype=torch.float64)
        return self.mu[which] + per_sample(self.s2[which].sqrt(), noise) * noise

    def _score_and_trace(self, z_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return grad log p_t and its divergence: with shares r_k and a_k = -(z - m mu_k) / v_k,

        sum_k r_k a_k and sum_k r_k (|a_k|^2 - D / v_k) - |sum_k r_k a_k|^2.
        """
        z = z_t.double().flatten(1)
        size = z.shape[1]
        mean, v = (
            self.sde.mean(t)[:, None],
            self.sde.mean(t)[:, None] ** 2 * self.s2 + self.sde.var(t)[:, None],
        )
        a = -(z[:, None] - mean[..., None] * self.mu.flatten(1)) / v[..., None]
        squares = a.square().sum(dim=2)
        share = (self.weights.log() - 0.5 * (squares * v + size * v.log())).softmax(dim=1)
        score = (share[..., None] * a).sum(dim=1)
        trace = (share * (squares - size / v)).sum(dim=1) - score.square().sum(dim=1)
        return score.reshape(z_t.shape), trace


def mixture_score(sde: SDE, shape: tuple[int, ...], *, components: int = 4, seed: int = 0) -> MixtureScore:
    """Return a mixture whose means and widths come from a seed, its components a few widths apart.

    Along the line between two means, apart sqrt(2) times 3 of about 0.77, components overlap whatever the
    dimension, so that their shares, and with them the Jacobian, change along the way.
    """
    generator = Generator().manual_seed(seed)
    size = math.prod(shape)
    s2 = torch.linspace(0.4, 0.8, components, dtype=torch.float64)
    mu = torch.randn(components, *shape, generator=generator, dtype=torch.float64)
    mu = mu * (3.0 * 0.6**0.5 / size**0.5)
    weights = torch.arange(components, 0, -1, dtype=torch.float64)
    return MixtureScore(sde, mu, s2, weights / weights.sum())
