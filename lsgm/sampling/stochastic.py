r"""Samplers with noise in every step, all on the forward transition between two times of a grid.

.. math:: q(z_k | z_j) = N(r z_j, v I), \quad r = m_k / m_j, \; v = \sigma_k^2 - r^2 \sigma_j^2

with t_k > t_j, for every linear SDE; 1 - r^2 = v = beta where unit variance is preserved (arXiv:2006.11239).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from lsgm.sampling.registry import Descent, register

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from lsgm.sampling.counted import Nodes

__all__ = ["posterior_var", "transition"]

DDPM = "arXiv:2006.11239"
SCORE_SDE = "arXiv:2011.13456"


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
        eps = descent.score.eps(z, times[k].expand(len(z)))
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
    grown = [float(late / early) for late, early in pairwise(descent.score.sde.marginal_var(descent.times))]
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
