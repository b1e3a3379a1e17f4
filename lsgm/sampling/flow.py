"""Solvers of the probability flow dz/dt = f z + g^2 eps_theta / (2 sigma_t) (arXiv:2106.05931 section 2).

`euler`, `heun` and `dopri5` solve it in t, `ddim` and those of Karras et al. in (u, s), where it is straight
(`lsgm.sampling.counted`); these two can add noise of their own as they go.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from lsgm.sampling.registry import Descent, register
from lsgm.sampling.stochastic import posterior_var

if TYPE_CHECKING:
    from torch import Tensor

    from lsgm.ode import ODESolution

EDM = "arXiv:2206.00364"
CHURN = ("churn", "churn_min", "churn_max", "churn_noise")


@register("euler", paper="Euler (1768); arXiv:2011.13456", order=1, nfe_per_step=1)
def euler(descent: Descent, z: Tensor) -> Tensor:
    """Probability flow, explicit Euler steps."""
    for t, t_next in pairwise(descent.times):
        z = z + (t_next - t) * descent.score.drift(z, t.expand(len(z)))
    return z


@register("heun", paper="Heun (1900); arXiv:2206.00364", order=2, nfe_per_step=2)
def heun(descent: Descent, z: Tensor) -> Tensor:
    """Probability flow, explicit trapezoidal steps.

    Every step takes both evaluations, the last one too: sampling ends where sigma_t > 0.
    """
    for t, t_next in pairwise(descent.times):
        h = t_next - t
        slope = descent.score.drift(z, t.expand(len(z)))
        slope_next = descent.score.drift(z + h * slope, t_next.expand(len(z)))
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
def dopri5(descent: Descent, z: Tensor) -> ODESolution:
    """Probability flow, adaptive Dormand-Prince 5(4) with a step size per sample."""
    from lsgm.ode import odeint

    start, end, config = float(descent.times[0]), float(descent.times[-1]), descent.config
    return odeint(descent.score.drift, z, start, end, rtol=config.rtol, atol=config.atol)


@register("ddim", paper="arXiv:2010.02502", order=1, nfe_per_step=1, options=("eta",))
def ddim(descent: Descent, z: Tensor) -> Tensor:
    r"""Euler steps in (u, s), where the probability flow is straight; noise for eta above 0.

    Equation 12, with x the prediction (z_k - sigma_k eps_theta) / m_k of z_0 and w the variance of
    q(z_j | z_k, z_0),

    .. math:: z_j = m_j x + \sqrt{\sigma_j^2 - \eta^2 w} \, \epsilon_\theta + \eta \sqrt{w} \, n

    eta = 0 is the flow, eta = 1 the sampler ancestral-posterior before its last step. Of order 1 in steps of
    s = sigma_t / m_t, and so on any grid that is smooth in s.
    """
    nodes, eta = descent.nodes, descent.config.eta
    for k in range(nodes.steps):
        eps = nodes.eps(z, k)
        z = nodes.step(z, k, k + 1, eps)
        if eta > 0:
            sigma, var = nodes.sigma[k + 1], eta**2 * posterior_var(nodes, k)
            z = z + (math.sqrt(sigma**2 - var) - sigma) * eps
            z = z + (descent.config.temperature * math.sqrt(var)) * descent.fresh(z)
    return z


@register("edm-euler", paper=EDM, order=1, nfe_per_step=1, options=CHURN)
def edm_euler(descent: Descent, z: Tensor) -> Tensor:
    """Euler steps in (u, s), after fresh noise where there is churn; without it ddim."""
    return _edm(descent, z, heun=False)


@register("edm-heun", paper=EDM, order=2, nfe_per_step=2, options=CHURN)
def edm_heun(descent: Descent, z: Tensor) -> Tensor:
    """Explicit trapezoidal steps in (u, s), after fresh noise where there is churn."""
    return _edm(descent, z, heun=True)


def _edm(descent: Descent, z: Tensor, *, heun: bool) -> Tensor:
    """Algorithm 2 of Karras et al., its Heun step optional."""
    import torch

    from lsgm.sampling.counted import Nodes

    config, steps = descent.config, len(descent.times) - 1
    # Node k is where step k begins, node k + steps + 1 where its noise takes it: itself without churn.
    nodes = Nodes.of(descent.score, torch.cat([descent.times, _churned(descent)]))
    for k in range(steps):
        start, end = k + steps + 1, k + 1
        added = nodes.s[start] ** 2 - nodes.s[k] ** 2
        if added > 0:
            scale = config.temperature * config.churn_noise * nodes.m[start] * math.sqrt(added)
            z = (nodes.m[start] / nodes.m[k]) * z + scale * descent.fresh(z)
        slope = nodes.eps(z, start)
        moved = nodes.step(z, start, end, slope)
        if heun:
            moved = nodes.step(z, start, end, 0.5 * (slope + nodes.eps(moved, end)))
        z = moved
    return z


def _churned(descent: Descent) -> Tensor:
    """Return the times at which the steps solve from: those of s_hat, or of s where no noise is added."""
    from lsgm.sampling.grids import log_snr, times_at

    sde, times, config = descent.score.sde, descent.times, descent.config
    gamma = min(config.churn / (len(times) - 1), math.sqrt(2) - 1)
    log_s = -0.5 * log_snr(sde, times)
    s, high = log_s.exp(), math.inf if config.churn_max is None else config.churn_max
    raised = (log_s + math.log1p(gamma)).clamp(max=float(log_s[0]))
    found = times_at(lambda t: -0.5 * log_snr(sde, t), raised, float(times[-1]))
    chosen = (s >= config.churn_min) & (s <= high) & (raised > log_s)
    return found.where(chosen, times)[:-1]
