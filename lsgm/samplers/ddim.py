"""Denoising diffusion implicit models (Song, Meng & Ermon, arXiv:2010.02502)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lsgm.samplers.registry import register
from lsgm.samplers.transition import posterior_var

if TYPE_CHECKING:
    from torch import Tensor

    from lsgm.config import SamplerConfig
    from lsgm.rng import SeededNoise
    from lsgm.samplers.base import CountedScore

__all__ = ["ddim"]


@register("ddim", paper="arXiv:2010.02502", order=1, nfe_per_step=1, options=("eta",))
def ddim(score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig) -> Tensor:
    r"""Euler steps in (u, s), where the probability flow is straight; noise for eta above 0.

    Equation 12, with x the prediction (z_k - sigma_k eps_theta) / m_k of z_0 and w the variance of
    q(z_j | z_k, z_0),

    .. math:: z_j = m_j x + \sqrt{\sigma_j^2 - \eta^2 w} \, \epsilon_\theta + \eta \sqrt{w} \, n

    eta = 0 is the flow, eta = 1 the sampler ancestral-posterior before its last step. Of order 1 in steps of
    s = sigma_t / m_t, and so on any grid that is smooth in s.
    """
    from lsgm.samplers.nodes import Nodes

    nodes, eta = Nodes.of(score, times), config.eta
    for k in range(nodes.steps):
        eps = nodes.eps(z, k)
        z = nodes.step(z, k, k + 1, eps)
        if eta > 0:
            sigma, var = nodes.sigma[k + 1], eta**2 * posterior_var(nodes, k)
            z = z + (math.sqrt(sigma**2 - var) - sigma) * eps
            z = z + (config.temperature * math.sqrt(var)) * noise.normal(*z.shape[1:], dtype=z.dtype)
    return z
