r"""DPM-Solver++ (Lu et al., arXiv:2211.01095): multistep solvers on the prediction of z_0.

With lambda = log(m / sigma) and h = lambda_{k+1} - lambda_k each step is

.. math:: z_{k+1} = \frac{\sigma_{k+1}}{\sigma_k} z_k + m_{k+1} (1 - e^{-h}) \sum_i w_i x_0(z_{k-i}, t_{k-i}),

and of the reverse SDE, with n ~ N(0, I),

.. math:: z_{k+1} = \frac{\sigma_{k+1}}{\sigma_k} e^{-h} z_k + m_{k+1} (1 - e^{-2h}) \sum_i w_i x_0
          + \sigma_{k+1} \sqrt{1 - e^{-2h}} \, n.

The first step is of order 1 (DDIM), the second at most of order 2. The last one of a run of fewer than 15
steps is of order 1 too, as in the authors' code, and so is any step of more than twice the length in lambda
of the one before. The orders hold on every smooth grid; ``logsnr`` is even in lambda.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsgm.samplers.registry import register

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from lsgm.config import SamplerConfig
    from lsgm.rng import SeededNoise
    from lsgm.samplers.base import CountedScore

__all__ = ["dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m"]

_PAPER = "arXiv:2211.01095"


@register("dpmpp-2m", paper=_PAPER, order=2, nfe_per_step=1)
def dpmpp_2m(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> Tensor:
    """DPM-Solver++ 2M: probability flow, z_0 linear in log-SNR, one evaluation per step."""
    from lsgm.samplers.multistep import extrapolated_middle, half_log_snr, walk_on_clean
    from lsgm.samplers.nodes import Nodes

    nodes = Nodes.of(score, times)
    lam = half_log_snr(nodes)
    return walk_on_clean(nodes, z, 2, lam, lambda k, p: extrapolated_middle(lam, k, p))


@register("dpmpp-3m", paper=_PAPER, order=2, nfe_per_step=1)
def dpmpp_3m(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> Tensor:
    """DPM-Solver++ 3M: probability flow, z_0 quadratic in log-SNR, one evaluation per step.

    Of order 2 all the same: the first step is of order 1, and the published weights give the second
    difference half of its Taylor term. They are kept, so that the name means here what it means elsewhere;
    ``unipc-3`` has the exact ones.
    """
    from lsgm.samplers.multistep import extrapolated_middle, half_log_snr, walk_on_clean
    from lsgm.samplers.nodes import Nodes

    nodes = Nodes.of(score, times)
    lam = half_log_snr(nodes)

    def weights(k: int, p: int) -> Sequence[float]:
        return _third_order(lam, k) if p == 3 else extrapolated_middle(lam, k, p)

    return walk_on_clean(nodes, z, 3, lam, weights)


@register("dpmpp-2m-sde", paper=_PAPER, order=2, nfe_per_step=1, stochastic=True)
def dpmpp_2m_sde(
    score: CountedScore, z: Tensor, times: Tensor, noise: SeededNoise, config: SamplerConfig
) -> Tensor:
    """SDE-DPM-Solver++ 2M: reverse SDE, z_0 linear in log-SNR, one evaluation per step; the order is weak."""
    from lsgm.samplers.multistep import extrapolated_middle, half_log_snr, walk_on_clean
    from lsgm.samplers.nodes import Nodes

    nodes = Nodes.of(score, times)
    lam = half_log_snr(nodes)

    def disturb(z: Tensor, k: int) -> Tensor:
        ratio = nodes.s[k + 1] / nodes.s[k]
        spread = config.temperature * nodes.sigma[k + 1] * (1.0 - ratio * ratio) ** 0.5
        return z.add(noise.normal(*z.shape[1:], dtype=z.dtype), alpha=spread)

    return walk_on_clean(
        nodes,
        z,
        2,
        lam,
        lambda k, p: extrapolated_middle(lam, k, p),
        power=2,
        disturb=disturb,
    )


def _third_order(lam: Sequence[float], k: int) -> tuple[float, float, float]:
    r"""Return the published weights of the last three predictions.

    With tau in [0, 1] the share of the step done, r_0 and r_1 the lengths of the last two steps in units of
    h, and E the mean with density proportional to exp(h tau), the blend is x_0 + E[tau] D_1 +
    E[tau^2] D_2 / 2; a Taylor series would have D_2 whole.
    """
    from lsgm.samplers.multistep import exponential_rule

    h = lam[k + 1] - lam[k]
    r0, r1 = (lam[k] - lam[k - 1]) / h, (lam[k - 1] - lam[k - 2]) / h
    points, masses = exponential_rule(0.0, h)
    share = points / h
    first, second = float(masses @ share), 0.5 * float(masses @ share**2)
    bend = (first * r0 + second) / (r0 + r1)
    return 1.0 + (first + bend) / r0, -(first + bend) / r0 - bend / r1, bend / r1
