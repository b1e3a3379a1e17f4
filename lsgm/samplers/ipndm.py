"""Adams-Bashforth in (u, s): du/ds = eps by up to four predictions, improved PNDM (arXiv:2202.09778).

With fixed weights (the textbook's for even steps) it is iPNDM, with the exact ones of the grid at hand its
variant of variable steps. Orders rise from 1 to 4 over the first steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsgm.samplers.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from lsgm.config import SamplerConfig
    from lsgm.rng import SeededNoise
    from lsgm.samplers.base import CountedScore

__all__ = ["ipndm_4", "ipndmv_4"]

ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Weights of the last 1 to 4 slopes, the newest first, where all steps are of one length."""


@register("ipndm-4", paper="arXiv:2202.09778", order=2, nfe_per_step=1)
def ipndm_4(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> Tensor:
    """Improved PNDM: probability flow, Adams-Bashforth of fixed weights, one evaluation per step.

    The weights are of order 4 for steps that are even in s = sigma_t / m_t (grid edm with rho = 1). On a grid
    that is smooth but not even in s they are of order 2, and where the steps change abruptly, of order 1. The
    first step, of order 1, alone leaves an error of order 2 over a whole run.
    """
    from lsgm.samplers.multistep import walk_on_eps
    from lsgm.samplers.nodes import Nodes

    return walk_on_eps(Nodes.of(score, times), z, 4, lambda k, p: ADAMS_BASHFORTH[p - 1])


@register("ipndmv-4", paper="arXiv:2202.09778", order=2, nfe_per_step=1)
def ipndmv_4(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> Tensor:
    """Improved PNDM of variable steps: probability flow, Adams-Bashforth in s, one evaluation per step.

    Each step with a full history is of order 4 on any grid, but the first one is of order 1: over a whole run
    the error in the end falls with the square of the step size.
    """
    from lsgm.samplers.multistep import history_at, interpolation_weights, plain_rule, walk_on_eps
    from lsgm.samplers.nodes import Nodes

    nodes = Nodes.of(score, times)
    s = nodes.s
    return walk_on_eps(
        nodes,
        z,
        4,
        lambda k, p: interpolation_weights(history_at(s, k, p), plain_rule(s[k], s[k + 1])),
    )
