r"""Samplers of single steps: solvers of the probability flow, and those with noise in every step.

Of the flow dz/dt = f z + g^2 eps_theta / (2 sigma_t) (arXiv:2106.05931 section 2) `euler`, `heun` and
`dopri5` are solvers in t, `ddim` and those of Karras et al. in (u, s), where it is straight
(`lsgm.sampling.registry`); these two can add noise of their own as they go. Those with noise in every step
stand on the forward transition between two times t_k > t_j of a grid,

.. math:: q(z_k | z_j) = N(r z_j, v I), \quad r = m_k / m_j, \; v = \sigma_k^2 - r^2 \sigma_j^2

for every linear SDE; 1 - r^2 = v = beta where unit variance is preserved (arXiv:2006.11239).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from lsgm.sampling.registry import Descent, Nodes, kept, register

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from lsgm.ode import ODESolution

DDPM = "arXiv:2006.11239"
EDM = "arXiv:2206.00364"
SCORE_SDE = "arXiv:2011.13456"
CHURN = ("churn", "churn_min", "churn_max", "churn_noise")


@register("euler", paper="Euler (1768); arXiv:2011.13456", order=1, nfe_per_step=1)
def euler(descent: Descent, z: Tensor) -> Tensor:
    """Probability flow, explicit Euler steps."""
    for h, t in zip(lengths(descent.times), descent.nodes_of(z), strict=False):
        z = z + h * descent.score.drift(z, t)
    return z


@register("heun", paper="Heun (1900); arXiv:2206.00364", order=2, nfe_per_step=2)
def heun(descent: Descent, z: Tensor) -> Tensor:
    """Probability flow, explicit trapezoidal steps.

    Every step takes both evaluations, the last one too: sampling ends where sigma_t > 0.
    """
    for h, (t, t_next) in zip(lengths(descent.times), pairwise(descent.nodes_of(z)), strict=True):
        slope = descent.score.drift(z, t)
        slope_next = descent.score.drift(z + h * slope, t_next)
        z = z + 0.5 * h * (slope + slope_next)
    return z


def lengths(times: Tensor) -> tuple[Tensor, ...]:
    """Return the steps from time to time, numbers of float64 [], below 0 on the way down."""
    return kept(times, "lengths", lambda: times.diff().unbind())


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
    if config.churn == 0:
        return times[:-1]
    gamma = min(config.churn / (len(times) - 1), math.sqrt(2) - 1)
    log_s = -0.5 * log_snr(sde, times)
    s, high = log_s.exp(), math.inf if config.churn_max is None else config.churn_max
    raised = (log_s + math.log1p(gamma)).clamp(max=float(log_s[0]))
    found = times_at(lambda t: -0.5 * log_snr(sde, t), raised, float(times[-1]))
    chosen = (s >= config.churn_min) & (s <= high) & (raised > log_s)
    return found.where(chosen, times)[:-1]


def transition(nodes: Nodes, k: int) -> tuple[float, float]:
    """Return r and v of the transition from node k + 1, the earlier time, to node k."""
    ratio, s, s_next = nodes.m[k] / nodes.m[k + 1], nodes.s[k], nodes.s[k + 1]
    return ratio, nodes.m[k] ** 2 * (s - s_next) * (s + s_next)


def posterior_var(nodes: Nodes, k: int) -> float:
    """Return the variance of q(z_j | z_k, z_0), v sigma_j^2 / sigma_k^2, where j = k + 1."""
    return transition(nodes, k)[1] * (nodes.sigma[k + 1] / nodes.sigma[k]) ** 2


@register("euler-maruyama", paper=SCORE_SDE, order=1, nfe_per_step=1, stochastic=True)
def euler_maruyama(descent: Descent, z: Tensor) -> Tensor:
    r"""Reverse SDE, Euler-Maruyama steps; the order is the weak one.

    Of dz = (f z - g^2 \nabla log p_t) dt + g dw (equation 6),

    .. math:: z_j = z_k - h (f z_k + g^2 \epsilon_\theta / \sigma_k) + g \sqrt{h} \, n, \quad h = t_k - t_j
    """
    sde, times, temperature = descent.score.sde, descent.times, descent.config.temperature
    f, g2, sigma = (values.tolist() for values in (sde.f(times), sde.g2(times), sde.sigma(times)))
    for k, h in enumerate((-times.diff()).tolist()):
        eps = descent.score.eps(z, descent.nodes_of(z)[k])
        fresh = descent.fresh(z)
        z = (1.0 - h * f[k]) * z - (h * g2[k] / sigma[k]) * eps
        z = z + (temperature * math.sqrt(h * g2[k])) * fresh
    return z


@register("reverse-diffusion", paper=SCORE_SDE, order=1, nfe_per_step=1, stochastic=True)
def reverse_diffusion(descent: Descent, z: Tensor) -> Tensor:
    r"""Reverse diffusion of appendix E: the forward transition, discretised and turned round.

    .. math:: z_j = (2 - r) z_k - v \epsilon_\theta / \sigma_k + \sqrt{v} \, n

    where q(z_k | z_j) = N(r z_j, v I) is the exact transition of the SDE, of which the appendix's f and G are
    (r - 1) z and sqrt(v) I under a VP-like and a variance exploding SDE.
    """
    for k in range(descent.nodes.steps):
        z = _reverse_step(descent, z, k)
    return z


def _reverse_step(descent: Descent, z: Tensor, k: int) -> Tensor:
    nodes = descent.nodes
    ratio, var = transition(nodes, k)
    mean = (2.0 - ratio) * z - (var / nodes.sigma[k]) * nodes.eps(z, k)
    return mean + (descent.config.temperature * math.sqrt(var)) * descent.fresh(z)


@register("ancestral", paper=DDPM, order=1, nfe_per_step=1, stochastic=True, denoises=True)
def ancestral(descent: Descent, z: Tensor) -> Tensor:
    """Discretised reverse diffusion, noise variance that of unit-variance data (beta)."""
    nodes = descent.nodes
    var = descent.score.sde.marginal_var(descent.times)
    grown = (var[:-1] / var[1:]).tolist()
    return _ancestors(descent, z, [transition(nodes, k)[1] / grown[k] for k in range(nodes.steps)])


@register("ancestral-posterior", paper=DDPM, order=1, nfe_per_step=1, stochastic=True, denoises=True)
def ancestral_posterior(descent: Descent, z: Tensor) -> Tensor:
    """Discretised reverse diffusion, noise variance of q(z_j | z_k, z_0)."""
    nodes = descent.nodes
    return _ancestors(descent, z, [posterior_var(nodes, k) for k in range(nodes.steps)])


def _ancestors(descent: Descent, z: Tensor, spread: Sequence[float]) -> Tensor:
    """Return z after drawing every node's ancestor with the variances ``spread``; of the last, its mean."""
    nodes, temperature = descent.nodes, descent.config.temperature
    last = nodes.steps - 1
    for k in range(last):
        ratio, var = transition(nodes, k)
        z = (z - (var / nodes.sigma[k]) * nodes.eps(z, k)) / ratio
        z = z + (temperature * math.sqrt(spread[k])) * descent.fresh(z)
    return nodes.clean(z, last, nodes.eps(z, last))


@register(
    "predictor-corrector",
    paper=SCORE_SDE,
    order=None,
    nfe_per_step=1,
    stochastic=True,
    corrects=True,
    options=("corrector_steps", "snr"),
)
def predictor_corrector(descent: Descent, z: Tensor) -> Tensor:
    """Langevin steps at every time, then reverse diffusion to the next.

    Section 4.2 and algorithms 2 to 5. Without an order: the length of the Langevin steps does not shrink with
    the grid's. A variance V at t_k tends to V / (1 - alpha_k snr^2 sigma_k^2 / V), at most 1 / (1 - snr^2) of
    the right one, 2.6 % too much at snr = 0.16, however many steps and dimensions there are.
    """
    for k in range(descent.nodes.steps):
        for _ in range(descent.config.corrector_steps):
            z = _langevin_step(descent, z, k)
        z = _reverse_step(descent, z, k)
    return z


def _langevin_step(descent: Descent, z: Tensor, k: int) -> Tensor:
    """Return z after a Langevin step at node k. With the score -eps / sigma, epsilon holds a sigma^2."""
    nodes, config = descent.nodes, descent.config
    eps = nodes.eps(z, k)
    fresh = config.temperature * descent.fresh(z)
    root = math.sqrt(2) * transition(nodes, k)[0] * config.snr  # sqrt(epsilon) / sigma_k
    return z - (nodes.sigma[k] * root**2) * eps + (math.sqrt(2) * nodes.sigma[k] * root) * fresh
