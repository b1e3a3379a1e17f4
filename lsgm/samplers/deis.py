r"""DEIS (Zhang & Chen, arXiv:2204.13902), the variant tAB: eps as a polynomial in t, integrated against ds.

With L_i the Lagrange polynomials of the last p times,

.. math:: u_{k+1} = u_k + \sum_i \epsilon_{k-i} \int_{s_k}^{s_{k+1}} L_i(t(s)) \, ds.

The integrals are taken once for a grid, by Gauss-Legendre in log s, in which t is smooth under every SDE: in
t itself ds/dt is singular at 0 (vp) or nearly so at 1 (geometric).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsgm.samplers.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from lsgm.config import SamplerConfig
    from lsgm.rng import SeededNoise
    from lsgm.samplers.base import CountedScore
    from lsgm.samplers.multistep import Rule
    from lsgm.samplers.nodes import Nodes

__all__ = ["deis_2", "deis_3"]

_PAPER = "arXiv:2204.13902"


@register("deis-2", paper=_PAPER, order=2, nfe_per_step=1)
def deis_2(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> Tensor:
    """DEIS tAB1: probability flow, noise linear in t over two predictions, one evaluation per step."""
    return _walk(score, z, times, order=2)


@register("deis-3", paper=_PAPER, order=2, nfe_per_step=1)
def deis_3(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> Tensor:
    """DEIS tAB2: probability flow, noise quadratic in t over three predictions, one evaluation per step.

    Each step with a full history is of order 3, but the first one, which has none, is of order 1: over a
    whole run the error in the end falls with the square of the step size.
    """
    return _walk(score, z, times, order=3)


def _walk(score: CountedScore, z: Tensor, times: Tensor, order: int) -> Tensor:
    from lsgm.samplers.multistep import history_at, interpolation_weights, walk_on_eps
    from lsgm.samplers.nodes import Nodes

    nodes = Nodes.of(score, times)
    rules, t = _rules(nodes), times.tolist()
    return walk_on_eps(nodes, z, order, lambda k, p: interpolation_weights(history_at(t, k, p), rules[k]))


def _rules(nodes: Nodes) -> list[Rule]:
    """Return for each step the times at which to take its integral against ds, and their masses."""
    import numpy as np
    import torch

    from lsgm.samplers.grids import log_snr, times_at
    from lsgm.samplers.multistep import exponential_rule

    log_s = np.log(nodes.s)
    points, masses = zip(*(exponential_rule(log_s[k], log_s[k + 1]) for k in range(nodes.steps)), strict=True)
    sde = nodes.score.sde
    target = torch.from_numpy(2.0 * np.stack(points))
    times = times_at(lambda t: -log_snr(sde, t), target, float(nodes.times[-1])).numpy()
    return list(zip(times, masses, strict=True))
