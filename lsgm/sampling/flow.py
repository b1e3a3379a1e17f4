"""Solvers of the probability flow dz/dt = f z + g^2 eps_theta / (2 sigma_t) (arXiv:2106.05931 section 2)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from lsgm.sampling.registry import register
from lsgm.sampling.stochastic import posterior_var

if TYPE_CHECKING:
    from torch import Tensor

    from lsgm.config import SamplerConfig
    from lsgm.ode import ODESolution
    from lsgm.rng import SeededNoise
    from lsgm.sampling.counted import CountedScore
    from lsgm.sde import SDE

__all__ = ["ddim", "dopri5", "edm_euler", "edm_heun", "euler", "heun"]


@register("euler", paper="Euler (1768); arXiv:2011.13456", order=1, nfe_per_step=1)
def euler(score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig) -> Tensor:
    """Probability flow, explicit Euler steps."""
    for t, t_next in pairwise(times):
        z = z + (t_next - t) * score.drift(z, t.expand(len(z)))
    return z


@register("heun", paper="Heun (1900); arXiv:2206.00364", order=2, nfe_per_step=2)
def heun(score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig) -> Tensor:
    """Probability flow, explicit trapezoidal steps.

    Every step takes both evaluations, the last one too: sampling ends where sigma_t > 0.
    """
    for t, t_next in pairwise(times):
        h = t_next - t
        slope = score.drift(z, t.expand(len(z)))
        slope_next = score.drift(z + h * slope, t_next.expand(len(z)))
        z = z + 0.5 * h * (slope + slope_next)
    return z


@register(
    "dopri5",
    paper="Dormand & Prince (1980); arXiv:2011.13456",
    order=5,
    nfe_per_step=6,
    nfe_offset=2,
    adaptive=True,
)
def dopri5(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> ODESolution:
    """Probability flow, adaptive Dormand-Prince 5(4) with a step size per sample."""
    from lsgm.ode import odeint

    start, end = float(times[0]), float(times[-1])
    return odeint(score.drift, z, start, end, rtol=config.rtol, atol=config.atol)


# Denoising diffusion implicit models (Song, Meng & Ermon, arXiv:2010.02502)


@register("ddim", paper="arXiv:2010.02502", order=1, nfe_per_step=1, options=("eta",))
def ddim(score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig) -> Tensor:
    r"""Euler steps in (u, s), where the probability flow is straight; noise for eta above 0.

    Equation 12, with x the prediction (z_k - sigma_k eps_theta) / m_k of z_0 and w the variance of
    q(z_j | z_k, z_0),

    .. math:: z_j = m_j x + \sqrt{\sigma_j^2 - \eta^2 w} \, \epsilon_\theta + \eta \sqrt{w} \, n

    eta = 0 is the flow, eta = 1 the sampler ancestral-posterior before its last step. Of order 1 in steps of
    s = sigma_t / m_t, and so on any grid that is smooth in s.
    """
    from lsgm.sampling.counted import Nodes

    nodes, eta = Nodes.of(score, times), config.eta
    for k in range(nodes.steps):
        eps = nodes.eps(z, k)
        z = nodes.step(z, k, k + 1, eps)
        if eta > 0:
            sigma, var = nodes.sigma[k + 1], eta**2 * posterior_var(nodes, k)
            z = z + (math.sqrt(sigma**2 - var) - sigma) * eps
            z = z + (config.temperature * math.sqrt(var)) * noise.normal(*z.shape[1:], dtype=z.dtype)
    return z


# The samplers of Karras et al

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

    from lsgm.sampling.counted import Nodes

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
    from lsgm.sampling.grids import log_snr, times_at

    steps = len(times) - 1
    gamma = min(config.churn / steps, math.sqrt(2) - 1)
    log_s = -0.5 * log_snr(sde, times)
    s, high = log_s.exp(), math.inf if config.churn_max is None else config.churn_max
    raised = (log_s + math.log1p(gamma)).clamp(max=float(log_s[0]))
    found = times_at(lambda t: -0.5 * log_snr(sde, t), raised, float(times[-1]))
    chosen = (s >= config.churn_min) & (s <= high) & (raised > log_s)
    return found.where(chosen, times)[:-1]
