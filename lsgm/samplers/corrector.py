r"""Predictor-corrector sampling (arXiv:2011.13456, section 4.2 and algorithms 2 to 5).

Langevin steps at the time t_k, of the length epsilon that gives noise and score a ratio ``snr`` of norms,

.. math:: z \leftarrow z + \epsilon \nabla \log p_k(z) + \sqrt{2 \epsilon} \, n, \quad
          \epsilon = 2 \alpha_k (\text{snr} \, \|n\| / \|\nabla \log p_k(z)\|)^2, \quad
          \alpha_k = (m_k / m_{k+1})^2,

then one step of reverse diffusion to t_{k+1}. alpha_k is 1 - beta_k under the VP SDE (algorithm 5) and 1
under the VE SDE (algorithm 4).

The norms are those of each sample, where the paper averages them over the batch: a sample must not depend on
the others that are drawn beside it. For images both are close, since norms of so many dimensions hardly vary.
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
)
def predictor_corrector(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> Tensor:
    """Langevin steps at every time, then reverse diffusion to the next.

    Without an order: the length of the Langevin steps does not shrink with the grid's, so that the variance
    tends to 1 / (1 - snr^2) of the right one, 2.6 % too much at snr = 0.16, however many steps there are.
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
    # Cooled before its norm is taken, so that the step's length does not depend on the temperature.
    fresh = config.temperature * noise.normal(*z.shape[1:], dtype=z.dtype)
    ratio = transition(nodes, k)[0]
    root = (math.sqrt(2) * ratio * config.snr) * _norm(fresh) / _norm(eps)  # sqrt(epsilon) / sigma_k
    return z - (nodes.sigma[k] * root.square()) * eps + (math.sqrt(2) * nodes.sigma[k] * root) * fresh


def _norm(values: Tensor) -> Tensor:
    """Return the norm of each sample, [B, 1, ...]."""
    norms: Tensor = values.flatten(1).norm(dim=1)
    return norms.view(-1, *[1] * (values.ndim - 1))
