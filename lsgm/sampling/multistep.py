r"""Linear multistep samplers of the probability flow: one evaluation per step, past predictions for the rest.

In the coordinates of `lsgm.sampling.registry` the probability flow is one integral over a step, of
the predicted noise against ds or of the predicted z_0 against d(1/s):

.. math:: u_j = u_k + \int_{s_k}^{s_j} \epsilon \, ds, \qquad
          \frac{u_j}{s_j} = \frac{u_k}{s_k} + \int_{1/s_k}^{1/s_j} x_0 \, d(1/s).

A multistep solver replaces the integrand by a polynomial through the last predictions, in a coordinate of
its own choice, so that the integral is a sum of these predictions with weights that the grid determines. All
weights here sum to 1: a constant prediction is integrated exactly. The weights come first, then the two walks
that blend predictions by them, then the samplers, which differ in their weights alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeAlias

from lsgm.sampling.registry import Descent, Nodes, kept, register

if TYPE_CHECKING:
    from torch import Tensor

Rule: TypeAlias = tuple[Any, Any]
"""A quadrature over one step: points [Q] and masses [Q] that sum to 1, NumPy float64."""

Weights: TypeAlias = Callable[[int, int], Sequence[float]]
"""(k, p) -> the weights of the predictions at nodes k, k-1, ..., k-p+1 in the step from k to k + 1."""

SHORT = 15
"""Runs of fewer steps end with lower orders, as those of the published codes do."""

LONG = 2.0
"""A step longer than so many times the one before, in lambda, is of order 1: it would extrapolate blindly.

A grid even in t ends with one, to a time near 0. Under the VP SDE twenty steps of UniPC-3 on it miss samples
of a mixture of Gaussians of size 1 by 1.8 without this rule and by 0.03 with it.
"""

POINTS = 24
"""Of Gauss-Legendre: exp over an interval of length 15 to 1e-13."""

CACHED = 1024
"""Weights of steps that are kept: those of one grid serve batch after batch."""

PNDM = "arXiv:2202.09778"
"""Improved: Adams-Bashforth in (u, s), on up to four predictions of the noise."""
DEIS = "arXiv:2204.13902"
"""Zhang & Chen, the variant tAB: the noise as a polynomial in t, integrated against ds."""
DPM_SOLVER = "arXiv:2211.01095"
"""Lu et al., DPM-Solver++: on predictions of z_0."""
UNIPC = "arXiv:2302.04867"
"""Zhao et al., on predictions of z_0: a predictor, and a corrector for free."""


@cache
def _gauss() -> Rule:
    from numpy.polynomial.legendre import leggauss

    x, w = leggauss(POINTS)
    return 0.5 * (x + 1.0), 0.5 * w


def plain_rule(start: float, end: float) -> Rule:
    """Return the Gauss-Legendre rule of the mean over [start, end]."""
    x, w = _gauss()
    return start + (end - start) * x, w


def exponential_rule(start: float, end: float) -> Rule:
    """Return the rule of the mean over [start, end] with density proportional to exp.

    With x = log s that is the mean against ds, with x = log(1/s) the mean against d(1/s).
    """
    import numpy as np

    points, w = plain_rule(start, end)
    masses = w * np.exp(points - max(start, end))
    return points, masses / masses.sum()


def interpolation_weights(known: Sequence[float], rule: Rule) -> tuple[float, ...]:
    """Return the integral under ``rule`` of each Lagrange polynomial of the nodes ``known``."""
    points, masses = rule
    weights = []
    for i, node in enumerate(known):
        others = [other for j, other in enumerate(known) if j != i]
        basis = masses.copy()
        for other in others:
            basis *= (points - other) / (node - other)
        weights.append(float(basis.sum()))
    return tuple(weights)


def history_at(values: Sequence[float], k: int, order: int) -> tuple[float, ...]:
    """Return the values at nodes k, k-1, ..., k-order+1."""
    return tuple(values[k - i] for i in range(order))


def extrapolated_middle(lam: Sequence[float], k: int, order: int) -> tuple[float, ...]:
    """Return the weights of the last one or two predictions, linear in lambda, mid-way in the step from k."""
    if order == 1:
        return (1.0,)
    reach = 0.5 * (lam[k + 1] - lam[k]) / (lam[k] - lam[k - 1])
    return 1.0 + reach, -reach


def blend(weights: Sequence[float], predictions: Iterable[Tensor]) -> Tensor:
    """Return the sum of the first predictions times their weights."""
    (first, *rest), (value, *others) = weights, predictions
    total = value if first == 1.0 and not rest else first * value
    for weight, other in zip(rest, others, strict=False):
        total = total.add(other, alpha=weight)
    return total


def clean_step(nodes: Nodes, z: Tensor, k: int, clean: Tensor, power: int = 1) -> Tensor:
    """Return z at t_{k+1} from z at t_k if z_0 were ``clean`` all the way, but for noise.

    With q = s_{k+1} / s_k: m_{k+1} (q^p z / m_k + (1 - q^p) clean); p is 1 for the probability flow and 2 for
    the mean of the reverse SDE.
    """
    share = (nodes.s[k + 1] / nodes.s[k]) ** power
    return (share * nodes.m[k + 1] / nodes.m[k]) * z + (nodes.m[k + 1] * (1.0 - share)) * clean


def walk_on_eps(nodes: Nodes, z: Tensor, order: int, weights: Weights) -> Tensor:
    """Walk down the grid on blends of up to ``order`` predictions of the noise, one evaluation per step."""
    known: deque[Tensor] = deque(maxlen=order)
    for k in range(nodes.steps):
        known.appendleft(nodes.eps(z, k))
        z = nodes.step(z, k, k + 1, blend(weights(k, len(known)), known))
    return z


def walk_on_clean(
    nodes: Nodes,
    z: Tensor,
    order: int,
    weights: Weights,
    *,
    power: int = 1,
    disturb: Callable[[Tensor, int], Tensor] | None = None,
) -> Tensor:
    """Walk down the grid on blends of up to ``order`` predictions of z_0, one evaluation per step.

    ``power`` is that of `clean_step`; ``disturb(z, k)`` adds the noise of the step from k.
    """
    known: deque[Tensor] = deque(maxlen=order)
    for k in range(nodes.steps):
        known.appendleft(nodes.clean(z, k, nodes.eps(z, k)))
        z = clean_step(nodes, z, k, blend(weights(k, order_of(nodes.lam, k, len(known))), known), power)
        if disturb is not None:
            z = disturb(z, k)
    return z


def order_of(lam: Sequence[float], k: int, known: int) -> int:
    """Return how many of the ``known`` predictions of z_0 the step from k uses (`SHORT`, `LONG`)."""
    steps = len(lam) - 1
    if known > 1 and lam[k + 1] - lam[k] > LONG * (lam[k] - lam[k - 1]):
        return 1
    return min(known, steps - k) if steps < SHORT else known


ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Weights of the last 1 to 4 slopes, the newest first, where all steps are of one length."""


@register("ipndm-4", paper=PNDM, order=2, nfe_per_step=1)
def ipndm_4(descent: Descent, z: Tensor) -> Tensor:
    """Improved PNDM: probability flow, Adams-Bashforth of fixed weights, one evaluation per step.

    The weights are of order 4 for steps that are even in s = sigma_t / m_t (grid edm with rho = 1). On a grid
    that is smooth but not even in s they are of order 2, and where the steps change abruptly, of order 1. The
    first step, of order 1, alone leaves an error of order 2 over a whole run.
    """
    return walk_on_eps(descent.nodes, z, 4, lambda k, p: ADAMS_BASHFORTH[p - 1])


@register("ipndmv-4", paper=PNDM, order=2, nfe_per_step=1)
def ipndmv_4(descent: Descent, z: Tensor) -> Tensor:
    """Improved PNDM of variable steps: probability flow, Adams-Bashforth in s, one evaluation per step.

    Each step with a full history is of order 4 on any grid, but the first one is of order 1: over a whole run
    the error in the end falls with the square of the step size.
    """
    s = descent.nodes.s

    def weights(k: int, p: int) -> Sequence[float]:
        return interpolation_weights(history_at(s, k, p), plain_rule(s[k], s[k + 1]))

    return walk_on_eps(descent.nodes, z, 4, weights)


@register("deis-2", paper=DEIS, order=2, nfe_per_step=1)
def deis_2(descent: Descent, z: Tensor) -> Tensor:
    """DEIS tAB1: probability flow, noise linear in t over two predictions, one evaluation per step."""
    return _deis(descent, z, order=2)


@register("deis-3", paper=DEIS, order=2, nfe_per_step=1)
def deis_3(descent: Descent, z: Tensor) -> Tensor:
    """DEIS tAB2: probability flow, noise quadratic in t over three predictions, one evaluation per step.

    Each step with a full history is of order 3, but the first one, which has none, is of order 1: over a
    whole run the error in the end falls with the square of the step size.
    """
    return _deis(descent, z, order=3)


def _deis(descent: Descent, z: Tensor, order: int) -> Tensor:
    nodes = descent.nodes
    # Kept with the times of a grid, whose integrals take a bisection and many small sums.
    rules: list[Rule] = kept(descent.times, "rules", partial(_rules, nodes))
    t: list[float] = kept(descent.times, "list", descent.times.tolist)

    def weights(k: int, p: int) -> Sequence[float]:
        how = partial(interpolation_weights, history_at(t, k, p), rules[k])
        return kept(descent.times, ("deis", k, p), how)

    return walk_on_eps(nodes, z, order, weights)


def _rules(nodes: Nodes) -> list[Rule]:
    """Return for each step the times at which to take its integral against ds, and their masses."""
    import numpy as np
    import torch

    from lsgm.sampling.grids import log_snr, times_at

    log_s = np.log(nodes.s)
    points, masses = zip(*(exponential_rule(log_s[k], log_s[k + 1]) for k in range(nodes.steps)), strict=True)
    sde = nodes.score.sde
    target = torch.from_numpy(2.0 * np.stack(points))
    times = times_at(lambda t: -log_snr(sde, t), target, float(nodes.times[-1])).numpy()
    return list(zip(times, masses, strict=True))


@register("dpmpp-2m", paper=DPM_SOLVER, order=2, nfe_per_step=1)
def dpmpp_2m(descent: Descent, z: Tensor) -> Tensor:
    """DPM-Solver++ 2M: probability flow, z_0 linear in log-SNR, one evaluation per step."""
    return walk_on_clean(descent.nodes, z, 2, partial(extrapolated_middle, descent.nodes.lam))


@register("dpmpp-3m", paper=DPM_SOLVER, order=2, nfe_per_step=1)
def dpmpp_3m(descent: Descent, z: Tensor) -> Tensor:
    """DPM-Solver++ 3M: probability flow, z_0 quadratic in log-SNR, one evaluation per step.

    Of order 2 all the same: the first step is of order 1, and the published weights give the second
    difference half of its Taylor term. They are kept, so that the name means here what it means elsewhere;
    ``unipc-3`` has the exact ones.
    """
    lam = descent.nodes.lam

    def weights(k: int, p: int) -> Sequence[float]:
        return _third_order(lam, k) if p == 3 else extrapolated_middle(lam, k, p)

    return walk_on_clean(descent.nodes, z, 3, weights)


@register("dpmpp-2m-sde", paper=DPM_SOLVER, order=2, nfe_per_step=1, stochastic=True)
def dpmpp_2m_sde(descent: Descent, z: Tensor) -> Tensor:
    """SDE-DPM-Solver++ 2M: reverse SDE, z_0 linear in log-SNR, one evaluation per step; the order is weak."""
    nodes = descent.nodes

    def disturb(z: Tensor, k: int) -> Tensor:
        ratio = nodes.s[k + 1] / nodes.s[k]
        spread = descent.config.temperature * nodes.sigma[k + 1] * (1.0 - ratio * ratio) ** 0.5
        return z.add(descent.fresh(z), alpha=spread)

    weights = partial(extrapolated_middle, nodes.lam)
    return walk_on_clean(nodes, z, 2, weights, power=2, disturb=disturb)


@lru_cache(CACHED)
def _third_order(lam: tuple[float, ...], k: int) -> tuple[float, float, float]:
    r"""Return the published weights of the last three predictions.

    With tau in [0, 1] the share of the step done, r_0 and r_1 the lengths of the last two steps in units of
    h, and E the mean with density proportional to exp(h tau), the blend is x_0 + E[tau] D_1 +
    E[tau^2] D_2 / 2; a Taylor series would have D_2 whole.
    """
    h = lam[k + 1] - lam[k]
    r0, r1 = (lam[k] - lam[k - 1]) / h, (lam[k - 1] - lam[k - 2]) / h
    points, masses = exponential_rule(0.0, h)
    share = points / h
    first, second = float(masses @ share), 0.5 * float(masses @ share**2)
    bend = (first * r0 + second) / (r0 + r1)
    return 1.0 + (first + bend) / r0, -(first + bend) / r0 - bend / r1, bend / r1


@register("unipc-2", paper=UNIPC, order=3, nfe_per_step=1)
def unipc_2(descent: Descent, z: Tensor) -> Tensor:
    """UniPC-2: probability flow, predictor of order 2 and corrector of order 3, one evaluation per step."""
    return _unipc(descent, z, order=2)


@register("unipc-3", paper=UNIPC, order=3, nfe_per_step=1)
def unipc_3(descent: Descent, z: Tensor) -> Tensor:
    """UniPC-3: probability flow, predictor of order 3 and corrector of order 4, one evaluation per step.

    The first step, corrected to order 2, leaves an error of order 3 behind; where it is small, as where a run
    begins with noise alone, the error falls with order 4.
    """
    return _unipc(descent, z, order=3)


def _unipc(descent: Descent, z: Tensor, order: int) -> Tensor:
    nodes, lam = descent.nodes, descent.nodes.lam
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


@lru_cache(CACHED)
def _predictor(lam: tuple[float, ...], k: int, p: int) -> Sequence[float]:
    """Return the weights of the predictions at k, ..., k-p+1 in UniP-p's step from k."""
    if p < 3:
        return extrapolated_middle(lam, k, p)
    return interpolation_weights(history_at(lam, k, p), exponential_rule(lam[k], lam[k + 1]))


@lru_cache(CACHED)
def _corrector(lam: tuple[float, ...], k: int, p: int) -> Sequence[float]:
    """Return the weights of the predictions at k+1, k, ..., k-p+1 in UniC-p's step from k."""
    if p == 1:
        return 0.5, 0.5
    return interpolation_weights(history_at(lam, k + 1, p + 1), exponential_rule(lam[k], lam[k + 1]))
