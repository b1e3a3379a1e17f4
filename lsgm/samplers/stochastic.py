r"""Discretisations of the reverse SDE dz = (f z - g^2 \nabla log p_t) dt + g dw (arXiv:2011.13456, eq. 6).

Both end with noise at the last time, as the diffusion does: ``denoise`` takes that away.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lsgm.samplers.registry import register
from lsgm.samplers.transition import transition

if TYPE_CHECKING:
    from torch import Tensor

    from lsgm.config import SamplerConfig
    from lsgm.rng import SeededNoise
    from lsgm.samplers.base import CountedScore
    from lsgm.samplers.nodes import Nodes

__all__ = ["euler_maruyama", "reverse_diffusion", "reverse_step"]

_PAPER = "arXiv:2011.13456"


@register("euler-maruyama", paper=_PAPER, order=1, nfe_per_step=1, stochastic=True)
def euler_maruyama(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> Tensor:
    r"""Reverse SDE, Euler-Maruyama steps; the order is the weak one.

    .. math:: z_j = z_k - h (f z_k + g^2 \epsilon_\theta / \sigma_k) + g \sqrt{h} \, n, \quad h = t_k - t_j
    """
    sde, gaps = score.sde, (-times.diff()).tolist()
    f, g2, sigma = (values.tolist() for values in (sde.f(times), sde.g2(times), sde.sigma(times)))
    for k, h in enumerate(gaps):
        eps = score.eps(z, times[k].expand(len(z)))
        fresh = noise.normal(*z.shape[1:], dtype=z.dtype)
        z = (1.0 - h * f[k]) * z - (h * g2[k] / sigma[k]) * eps
        z = z + (config.temperature * math.sqrt(h * g2[k])) * fresh
    return z


@register("reverse-diffusion", paper=_PAPER, order=1, nfe_per_step=1, stochastic=True)
def reverse_diffusion(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> Tensor:
    r"""Reverse diffusion of appendix E: the forward transition, discretised and turned round.

    .. math:: z_j = (2 - r) z_k - v \epsilon_\theta / \sigma_k + \sqrt{v} \, n

    where q(z_k | z_j) = N(r z_j, v I) is the exact transition of the SDE, of which the appendix's f and G are
    (r - 1) z and sqrt(v) I under a VP-like and a variance exploding SDE.
    """
    from lsgm.samplers.nodes import Nodes

    nodes = Nodes.of(score, times)
    for k in range(nodes.steps):
        z = reverse_step(nodes, z, k, noise, config.temperature)
    return z


def reverse_step(nodes: Nodes, z: Tensor, k: int, noise: SeededNoise, temperature: float) -> Tensor:
    """Return z at node k + 1 from z at node k by one step of reverse diffusion: one evaluation, one draw."""
    ratio, var = transition(nodes, k)
    mean = (2.0 - ratio) * z - (var / nodes.sigma[k]) * nodes.eps(z, k)
    return mean + (temperature * math.sqrt(var)) * noise.normal(*z.shape[1:], dtype=z.dtype)
