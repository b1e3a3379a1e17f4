r"""The forward transition between two times of a grid, which every reverse step with noise needs.

.. math:: q(z_k | z_j) = N(r z_j, v I), \quad r = m_k / m_j, \; v = \sigma_k^2 - r^2 \sigma_j^2

with t_k > t_j, for every linear SDE; 1 - r^2 = v = beta where unit variance is preserved (arXiv:2006.11239).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from lsgm.sampling.registry import register

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from lsgm.config import SamplerConfig
    from lsgm.rng import SeededNoise
    from lsgm.sampling.counted import CountedScore, Nodes

__all__ = [
    "ancestral",
    "ancestral_posterior",
    "euler_maruyama",
    "posterior_var",
    "predictor_corrector",
    "reverse_diffusion",
    "reverse_step",
    "transition",
]


def transition(nodes: Nodes, k: int) -> tuple[float, float]:
    """Return r and v of the transition from node k + 1, the earlier time, to node k."""
    ratio, s, s_next = nodes.m[k] / nodes.m[k + 1], nodes.s[k], nodes.s[k + 1]
    return ratio, nodes.m[k] ** 2 * (s - s_next) * (s + s_next)


def posterior_var(nodes: Nodes, k: int) -> float:
    """Return the variance of q(z_j | z_k, z_0), v sigma_j^2 / sigma_k^2, where j = k + 1."""
    return transition(nodes, k)[1] * (nodes.sigma[k + 1] / nodes.sigma[k]) ** 2


# Discretisations of the reverse SDE dz = (f z - g^2 \nabla log p_t) dt + g dw (arXiv:2011.13456, eq. 6)

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
    from lsgm.sampling.counted import Nodes

    nodes = Nodes.of(score, times)
    for k in range(nodes.steps):
        z = reverse_step(nodes, z, k, noise, config.temperature)
    return z


def reverse_step(nodes: Nodes, z: Tensor, k: int, noise: SeededNoise, temperature: float) -> Tensor:
    """Return z at node k + 1 from z at node k by one step of reverse diffusion: one evaluation, one draw."""
    ratio, var = transition(nodes, k)
    mean = (2.0 - ratio) * z - (var / nodes.sigma[k]) * nodes.eps(z, k)
    return mean + (temperature * math.sqrt(var)) * noise.normal(*z.shape[1:], dtype=z.dtype)


# Ancestral sampling of the discretised diffusion (Ho et al., arXiv:2006.11239) on any grid of times

_PAPER_ANCESTRAL = "arXiv:2006.11239"


@register("ancestral", paper=_PAPER_ANCESTRAL, order=1, nfe_per_step=1, stochastic=True, denoises=True)
def ancestral(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> Tensor:
    """Discretised reverse diffusion, noise variance that of unit-variance data (beta)."""
    from lsgm.sampling.counted import Nodes

    nodes = Nodes.of(score, times)
    grown = [float(late / early) for late, early in pairwise(score.sde.marginal_var(times))]
    spread = [transition(nodes, k)[1] / grown[k] for k in range(nodes.steps)]
    return _walk_back(nodes, z, spread, noise, config.temperature)


@register(
    "ancestral-posterior", paper=_PAPER_ANCESTRAL, order=1, nfe_per_step=1, stochastic=True, denoises=True
)
def ancestral_posterior(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> Tensor:
    """Discretised reverse diffusion, noise variance of q(z_j | z_k, z_0)."""
    from lsgm.sampling.counted import Nodes

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


# Predictor-corrector sampling (arXiv:2011.13456, section 4.2 and algorithms 2 to 5)


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
    from lsgm.sampling.counted import Nodes

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
