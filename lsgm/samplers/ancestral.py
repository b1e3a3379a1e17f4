r"""Ancestral sampling of the discretised diffusion (Ho et al., arXiv:2006.11239) on any grid of times.

With k > j two neighbouring times of the grid, the forward transition of a linear SDE is

.. math:: q(z_k | z_j) = N(r z_j, v I), \quad r = m_k / m_j, \; v = \sigma_k^2 - r^2 \sigma_j^2,

(r = sqrt(1 - beta) and v = beta under a VP-like SDE) and the model's step back, with eps_theta at (z_k, t_k),

.. math:: z_j = (z_k - v \epsilon_\theta / \sigma_k) / r + s \, n, \quad n \sim N(0, I)

with s^2 either the variance that is exact for latents of unit variance, v Var(z_j) / Var(z_k) ("ancestral"; v
itself under a VP-like SDE), or that of q(z_j | z_k, z_0), v sigma_j^2 / sigma_k^2 ("ancestral-posterior",
exact for a constant z_0). The last step is the denoised z_0 = (z_k - sigma_k eps_theta) / m_k, without noise
and without clamping.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from lsgm.samplers.registry import register
from lsgm.samplers.transition import posterior_var, transition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from lsgm.config import SamplerConfig
    from lsgm.rng import SeededNoise
    from lsgm.samplers.base import CountedScore
    from lsgm.samplers.nodes import Nodes

__all__ = ["ancestral", "ancestral_posterior"]

_PAPER = "arXiv:2006.11239"


@register("ancestral", paper=_PAPER, order=1, nfe_per_step=1, stochastic=True, denoises=True)
def ancestral(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> Tensor:
    """Discretised reverse diffusion, noise variance that of unit-variance data (beta)."""
    from lsgm.samplers.nodes import Nodes

    nodes = Nodes.of(score, times)
    grown = [float(late / early) for late, early in pairwise(score.sde.marginal_var(times))]
    spread = [transition(nodes, k)[1] / grown[k] for k in range(nodes.steps)]
    return _walk_back(nodes, z, spread, noise, config.temperature)


@register("ancestral-posterior", paper=_PAPER, order=1, nfe_per_step=1, stochastic=True, denoises=True)
def ancestral_posterior(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> Tensor:
    """Discretised reverse diffusion, noise variance of q(z_j | z_k, z_0)."""
    from lsgm.samplers.nodes import Nodes

    nodes = Nodes.of(score, times)
    spread = [posterior_var(nodes, k) for k in range(nodes.steps)]
    return _walk_back(nodes, z, spread, noise, config.temperature)


def _walk_back(
    nodes: Nodes, z: Tensor, spread: Sequence[float], noise: SeededNoise, temperature: float
) -> Tensor:
    last = nodes.steps - 1
    for k in range(last):
        ratio, var = transition(nodes, k)
        z = (z - (var / nodes.sigma[k]) * nodes.eps(z, k)) / ratio
        z = z + (temperature * math.sqrt(spread[k])) * noise.normal(*z.shape[1:], dtype=z.dtype)
    return nodes.clean(z, last, nodes.eps(z, last))
