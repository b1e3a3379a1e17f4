r"""Predictor-corrector sampling (arXiv:2011.13456, section 4.2 and algorithms 2 to 5).

Langevin steps at the time t_k, of the length epsilon that gives noise and score a ratio ``snr`` of norms,

.. math:: z \leftarrow z + \epsilon \nabla \log p_k(z) + \sqrt{2 \epsilon} \, n, \quad
          \epsilon = 2 \alpha_k (\text{snr} \, \|n\| / \|\nabla \log p_k(z)\|)^2, \quad
          \alpha_k = (m_k / m_{k+1})^2,

then one step of reverse diffusion to t_{k+1}. alpha_k is 1 - beta_k under the VP SDE (algorithm 5) and 1
under the VE SDE (algorithm 4).

The norms are those that d dimensions have on average, sqrt(d) of the noise and sqrt(d) / sigma_k of the score
of q(z_k | z_0), so that epsilon = 2 alpha_k snr^2 sigma_k^2. The paper takes the batch's, by which a sample
would depend on the others that are drawn beside it. Those of each sample make the length depend on z, and
Langevin steps of such a length have another stationary law: about d / (d - 2) times the variance of a Normal
one. The score of p_k is on average no longer than that of q(z_k | z_0), and the steps no longer than the
paper's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lsgm.samplers.registry import register
from lsgm.samplers.stochastic import reverse_step
from lsgm.samplers.transition import transition

if TYPE_CHECKING:
    from torch import Tensor

    from lsgm.config import SamplerConfig
    from lsgm.rng import SeededNoise
    from lsgm.samplers.base import CountedScore
    from lsgm.samplers.nodes import Nodes

__all__ = ["predictor_corrector"]


@register(
    "predictor-corrector",
    paper="arXiv:2011.13456",
    order=None,
    nfe_per_step=1,
    stochastic=True,
    corrects=True,
    options=("corrector_steps", "snr"),
)
def predictor_corrector(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> Tensor:
    """Langevin steps at every time, then reverse diffusion to the next.

    Without an order: the length of the Langevin steps does not shrink with the grid's. A variance V at t_k
    tends to V / (1 - alpha_k snr^2 sigma_k^2 / V), at most 1 / (1 - snr^2) of the right one, 2.6 % too much
    at snr = 0.16, however many steps and dimensions there are.
    """
    from lsgm.samplers.nodes import Nodes

    nodes = Nodes.of(score, times)
    for k in range(nodes.steps):
        for _ in range(config.corrector_steps):
            z = _langevin(nodes, z, k, noise, config)
        z = reverse_step(nodes, z, k, noise, config.temperature)
    return z


def _langevin(nodes: Nodes, z: Tensor, k: int, noise: SeededNoise, config: SamplerConfig) -> Tensor:
    """Return z after a Langevin step at node k. With the score -eps / sigma, epsilon holds a sigma^2."""
    eps = nodes.eps(z, k)
    fresh = config.temperature * noise.normal(*z.shape[1:], dtype=z.dtype)
    root = math.sqrt(2) * transition(nodes, k)[0] * config.snr  # sqrt(epsilon) / sigma_k
    return z - (nodes.sigma[k] * root**2) * eps + (math.sqrt(2) * nodes.sigma[k] * root) * fresh
