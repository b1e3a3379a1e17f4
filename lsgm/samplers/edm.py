r"""The samplers of Karras et al. (arXiv:2206.00364, algorithm 2) in (u, s) = (z, sigma_t) / m_t, for any SDE.

Where s lies within [churn_min, churn_max], a step first adds noise, which takes s up to

.. math:: \hat s = (1 + \gamma) s, \quad \gamma = \min(S_{churn} / N, \sqrt 2 - 1), \quad
          \hat u = u + \sqrt{\hat s^2 - s^2} \, S_{noise} \, n

and then solves du/ds = eps_theta from there to the next s. The model is asked at the time of \hat s, which
never goes beyond s(1). The last step ends where there still is noise, unlike the paper's, and so has both of
Heun's evaluations.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lsgm.samplers.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from lsgm.config import SamplerConfig
    from lsgm.rng import SeededNoise
    from lsgm.samplers.base import CountedScore
    from lsgm.sde import SDE

__all__ = ["edm_euler", "edm_heun"]

_PAPER = "arXiv:2206.00364"
_CHURN = ("churn", "churn_min", "churn_max", "churn_noise")


@register("edm-euler", paper=_PAPER, order=1, nfe_per_step=1, options=_CHURN)
def edm_euler(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> Tensor:
    """Euler steps in (u, s), after fresh noise where there is churn; without it ddim."""
    return _solve(score, z, times, noise, config, heun=False)


@register("edm-heun", paper=_PAPER, order=2, nfe_per_step=2, options=_CHURN)
def edm_heun(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> Tensor:
    """Explicit trapezoidal steps in (u, s), after fresh noise where there is churn."""
    return _solve(score, z, times, noise, config, heun=True)


def _solve(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig, *, heun: bool
) -> Tensor:
    import torch

    from lsgm.samplers.nodes import Nodes

    steps = len(times) - 1
    # Node k is where step k begins, node k + steps + 1 where its noise takes it: itself without churn.
    nodes = Nodes.of(score, torch.cat([times, _churned(score.sde, times, config)]))
    for k in range(steps):
        start, end = k + steps + 1, k + 1
        added = nodes.s[start] ** 2 - nodes.s[k] ** 2
        if added > 0:
            scale = config.temperature * config.churn_noise * nodes.m[start] * math.sqrt(added)
            z = (nodes.m[start] / nodes.m[k]) * z + scale * noise.normal(*z.shape[1:], dtype=z.dtype)
        slope = nodes.eps(z, start)
        moved = nodes.step(z, start, end, slope)
        if heun:
            moved = nodes.step(z, start, end, 0.5 * (slope + nodes.eps(moved, end)))
        z = moved
    return z


def _churned(sde: SDE, times: Tensor, config: SamplerConfig) -> Tensor:
    """Return the times at which the steps solve from: those of s_hat, or of s where no noise is added."""
    from lsgm.samplers.grids import log_snr, times_at

    steps = len(times) - 1
    gamma = min(config.churn / steps, math.sqrt(2) - 1)
    log_s = -0.5 * log_snr(sde, times)
    s, high = log_s.exp(), math.inf if config.churn_max is None else config.churn_max
    raised = (log_s + math.log1p(gamma)).clamp(max=float(log_s[0]))
    found = times_at(lambda t: -0.5 * log_snr(sde, t), raised, float(times[-1]))
    chosen = (s >= config.churn_min) & (s <= high) & (raised > log_s)
    return found.where(chosen, times)[:-1]
