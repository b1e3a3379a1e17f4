r"""UniPC (Zhao et al., arXiv:2302.04867) on the prediction of z_0: a predictor and a corrector for free.

With the polynomial in lambda = log(m / sigma) through the last p predictions of z_0, integrated exactly, the
predictor takes the step; the evaluation that the next step needs anyway then corrects it, its prediction
being one more point of the polynomial. The prediction is not evaluated again at the corrected z.

Exact weights are the same for every B(h) of the paper. It rounds two of them, and what that does depends on
B(h): here, with B_2(h) = e^h - 1, UniP-2 takes the middle of the step and UniC-1 the plain mean of its ends.

A run of fewer than 15 steps ends with predictors of lower order, as in the authors' code, and a step of more
than twice the length in lambda of the one before is of order 1.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from lsgm.samplers.registry import register

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from lsgm.config import SamplerConfig
    from lsgm.rng import SeededNoise
    from lsgm.samplers.base import CountedScore

__all__ = ["unipc_2", "unipc_3"]

_PAPER = "arXiv:2302.04867"


@register("unipc-2", paper=_PAPER, order=3, nfe_per_step=1)
def unipc_2(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> Tensor:
    """UniPC-2: probability flow, predictor of order 2 and corrector of order 3, one evaluation per step."""
    return _walk(score, z, times, order=2)


@register("unipc-3", paper=_PAPER, order=3, nfe_per_step=1)
def unipc_3(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> Tensor:
    """UniPC-3: probability flow, predictor of order 3 and corrector of order 4, one evaluation per step.

    The first step, corrected to order 2, leaves an error of order 3 behind; where it is small, as where a run
    begins with noise alone, the error falls with order 4.
    """
    return _walk(score, z, times, order=3)


def _walk(score: CountedScore, z: Tensor, times: Tensor, order: int) -> Tensor:
    from lsgm.samplers.multistep import blend, clean_step, half_log_snr, order_of
    from lsgm.samplers.nodes import Nodes

    nodes = Nodes.of(score, times)
    lam = half_log_snr(nodes)
    known: deque[Tensor] = deque(maxlen=order)
    start, p = z, 0  # where the step to z began, and its order
    for k in range(nodes.steps):
        clean = nodes.clean(z, k, nodes.eps(z, k))
        if k > 0:
            z = clean_step(nodes, start, k - 1, blend(_corrector(lam, k - 1, p), (clean, *known)))
        known.appendleft(clean)
        start, p = z, order_of(lam, k, len(known))
        z = clean_step(nodes, z, k, blend(_predictor(lam, k, p), known))
    return z


def _predictor(lam: Sequence[float], k: int, p: int) -> Sequence[float]:
    """Return the weights of the predictions at k, ..., k-p+1 in UniP-p's step from k."""
    from lsgm.samplers.multistep import (
        exponential_rule,
        extrapolated_middle,
        history_at,
        interpolation_weights,
    )

    if p < 3:
        return extrapolated_middle(lam, k, p)
    return interpolation_weights(history_at(lam, k, p), exponential_rule(lam[k], lam[k + 1]))


def _corrector(lam: Sequence[float], k: int, p: int) -> Sequence[float]:
    """Return the weights of the predictions at k+1, k, ..., k-p+1 in UniC-p's step from k."""
    from lsgm.samplers.multistep import exponential_rule, history_at, interpolation_weights

    if p == 1:
        return 0.5, 0.5
    return interpolation_weights(history_at(lam, k + 1, p + 1), exponential_rule(lam[k], lam[k + 1]))
