r"""Ancestral sampling of the discretised diffusion (Ho et al., arXiv:2006.11239) on any grid of times.

With k > j two neighbouring times of the grid, the forward transition of a VP-like SDE is

.. math:: q(z_k | z_j) = N(\sqrt{1 - \beta} z_j, \beta I), \quad 1 - \beta = m_k^2 / m_j^2,

and the model's step back, with eps_theta at (z_k, t_k), is

.. math:: z_j = (z_k - \beta \epsilon_\theta / \sigma_k) / \sqrt{1 - \beta} + s \, n, \quad n \sim N(0, I)

with s^2 either beta ("ancestral", exact for latents of unit variance) or the variance of q(z_j | z_k, z_0),
beta sigma_j^2 / sigma_k^2 ("ancestral-posterior", exact for a constant z_0). The last step is the denoised
z_0 = (z_k - sigma_k eps_theta) / m_k, without noise and without clamping.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsgm.samplers.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from lsgm.config import SamplerConfig
    from lsgm.rng import SeededNoise
    from lsgm.samplers.base import CountedScore

__all__ = ["ancestral", "ancestral_posterior"]

_PAPER = "arXiv:2006.11239"


@register("ancestral", paper=_PAPER, order=1, nfe_per_step=1, stochastic=True, vp_only=True, denoises=True)
def ancestral(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> Tensor:
    """Discretised reverse diffusion, noise variance beta."""
    return _walk_back(score, z, times, noise, config.temperature, posterior=False)


@register(
    "ancestral-posterior", paper=_PAPER, order=1, nfe_per_step=1, stochastic=True, vp_only=True, denoises=True
)
def ancestral_posterior(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> Tensor:
    """Discretised reverse diffusion, noise variance of q(z_j | z_k, z_0)."""
    return _walk_back(score, z, times, noise, config.temperature, posterior=True)


def _walk_back(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, temperature: float, *, posterior: bool
) -> Tensor:
    mean, var = score.sde.mean(times), score.sde.var(times)
    ratio = mean[:-1] / mean[1:]  # sqrt(1 - beta) of each step
    beta = 1.0 - ratio.square()
    spread = beta * var[1:] / var[:-1] if posterior else beta
    for k in range(len(times) - 2):
        eps = score.eps(z, times[k].expand(len(z)))
        z = (z - (beta[k] / var[k].sqrt()) * eps) / ratio[k]
        z = z + temperature * spread[k].sqrt() * noise.normal(*z.shape[1:], dtype=z.dtype)
    eps = score.eps(z, times[-2].expand(len(z)))
    return (z - var[-2].sqrt() * eps) / mean[-2]
