r"""-log P(x) of models: exact densities by probability flow, and bounds from many draws of z per image.

The instantaneous change of variables along the flow dz/dt = v(z, t) of a score model from the data's end of
time to t = 1 gives (arXiv:2011.13456, section 4.3)

.. math:: \log p(z_0) = \log N(z_1; 0, \sigma_{prior}^2 I) + \int_{t_\epsilon}^1 \nabla \cdot v(z_t, t) \, dt.

With w_k = p(x, z_k) / q(z_k | x) the mean of -log w_k bounds -log P(x), and so does

.. math:: -\log \frac{1}{K} \sum_{k=1}^K w_k,

which is below that mean and falls towards -log P(x) as K grows (arXiv:1509.00519). Both are accumulated from
whatever part of the draws is at hand, so that K has no say in the memory that is held at once.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from lsgm.config import DensityConfig, require
from lsgm.errors import ConfigError, did_you_mean
from lsgm.generative import Density
from lsgm.ode import METHODS, Field, ODESolution, SolverError, odeint, odeint_fixed
from lsgm.rng import SeededNoise
from lsgm.sampling.grids import make_grid, time_end_of
from lsgm.sampling.registry import CountedScore, ScoreFunction
from lsgm.score import per_sample
from lsgm.sde import SDE

LARGEST_EXACT = 4096
"""Dimensions up to which the exact divergence is taken, at one backward pass for each."""


@dataclass(frozen=True)
class LogProb:
    """Log-densities of a batch: ``log_p`` = ``log_prior`` + ``divergence``, all float64 [B] in nats.

    ``divergence`` is the integral of the trace, ``std_error`` its standard error over probes (0 for the exact
    trace, nan for one probe). ``nfe`` counts forward evaluations of the drift, each followed by one
    vector-Jacobian product per probe (exact: per dimension); ``accepted`` and ``rejected`` count steps.
    """

    log_p: Tensor
    log_prior: Tensor
    divergence: Tensor
    std_error: Tensor
    nfe: Tensor
    accepted: Tensor
    rejected: Tensor


def ode_log_prob(
    score: ScoreFunction,
    z0: Tensor,
    seeds: Sequence[int] | SeededNoise,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    log_p_atol: float | None = None,
    time_eps: float | None = None,
    divergence: Literal["hutchinson", "exact"] = "hutchinson",
    probes: int = 1,
    solver: Literal["dopri5", "rk4", "heun", "euler"] = "dopri5",
    steps: int = 50,
    coordinate: Literal["time", "angle"] = "time",
) -> LogProb:
    """Return log p(z0) per row of z0 [B, ...], the density that the flow gives z at ``time_eps``.

    The divergence is exact, or Hutchinson's estimate n^T (dv/dz) n, averaged over ``probes`` Rademacher
    vectors: row k's come from seed k and stay fixed over the solve, so that the field is smooth and the
    estimate unbiased. Parameters never enter the graph, and no graph outlives one evaluation. ``time_eps``
    None means the SDE's default end of time.

    ``solver`` dopri5 adapts a step size per row to ``rtol`` and ``atol``; rk4, heun and euler take ``steps``
    steps over `flow_times`, the same for all rows, and know of no tolerance.

    ``log_p_atol`` gives the log-density a say in the steps of dopri5: the estimated error of a step in the
    integral of the divergence (of the mean over probes) must be below ``log_p_atol`` nats per dimension of z,
    besides that of the state. None leaves the steps to the state alone. Fixed probes make the integrand a
    smooth function of time, so that their noise, however large, is no error to the control.

    ``coordinate`` angle has dopri5 step along arctan(sigma_t / m_t), by the last two errors (`Angle`): as
    exact at an eighth to a quarter fewer evaluations, for SDEs that preserve unit variance.

    Raises ConfigError for bad options, SolverError naming the sample and t where the solver cannot go on.
    """
    require(probes >= 1, f"probes is {probes}; it must be at least 1")
    require(steps >= 1, f"steps is {steps}; it must be at least 1")
    _require_known("divergence", divergence, ("hutchinson", "exact"))
    _require_known("solver", solver, ("dopri5", *METHODS))
    _require_known("coordinate", coordinate, ("time", "angle"))
    start = time_end_of(score.sde, time_eps)
    exact = divergence == "exact"
    vectors = _basis(z0) if exact else _probes(z0, seeds, probes)
    counted = CountedScore(score, len(z0), z0.device)
    nats = None if log_p_atol is None else log_p_atol * max(1, z0[:1].numel())

    def field(z: Tensor, t: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        chosen = vectors if exact else vectors[:, rows]
        velocity, forms = velocity_and_forms(lambda at: counted.drift(at, t, rows), z, chosen)
        return velocity, forms.sum(dim=1, keepdim=True) if exact else forms

    with _parameters_frozen(score):
        if solver == "dopri5" and coordinate == "angle":
            solution = Angle(score.sde).odeint(field, z0.detach(), start, rtol, atol, nats)
        elif solver == "dopri5":
            solution = odeint(field, z0.detach(), start, 1.0, rtol=rtol, atol=atol, passenger_atol=nats)
        else:
            solution = odeint_fixed(field, z0.detach(), flow_times(score.sde, steps, start), method=solver)
    forms = solution.passenger
    if forms is None:  # an empty batch: nothing was evaluated
        forms = torch.zeros(len(z0), 1, dtype=torch.float64, device=z0.device)
    trace, count = forms.mean(dim=1), forms.shape[1]
    error = torch.zeros_like(trace) if exact else torch.full_like(trace, torch.nan)
    if count > 1:
        error = forms.std(dim=1) / count**0.5
    log_prior = score.sde.log_prior(solution.y)
    steps_taken = solution.accepted, solution.rejected
    return LogProb(log_prior + trace, log_prior, trace, error, counted.nfe, *steps_taken)


class Angle:
    r"""The angle phi_t = arctan(s_t), s_t = sigma_t / m_t, in the place of the time.

    Where m_t^2 + \sigma_t^2 = 1 and z_0 has unit variance, z_t turns from the data to the noise by this
    angle,

    .. math:: dt / d\phi = \frac{2 (s_t + 1 / s_t) \sigma_t^2}{g^2(t)},

    and under a Normal prior it does not move at all. Against time the path is crowded where g^2 is large.
    Raises ConfigError for an SDE that does not preserve unit variance.
    """

    DAMPING = 0.04

    def __init__(self, sde: SDE) -> None:
        require(
            sde.is_vp_like,
            f"the angle is of SDEs that preserve unit variance, which {type(sde).__name__} does not; "
            "leave the coordinate at time",
        )
        self.sde = sde

    def odeint(
        self, field: Field, z0: Tensor, start: float, rtol: float, atol: float, nats: float | None
    ) -> ODESolution:
        """Integrate a field of times from ``start`` to 1. Raises SolverError with the time, not the angle."""
        ends = self.angle(torch.tensor([start, 1.0], dtype=torch.float64)).tolist()

        def turned(z: Tensor, angle: Tensor, rows: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            t = self.time(angle, start)
            s, var = torch.tan(angle), self.sde.var(t)
            rate = 2 * (s + 1 / s) * var / self.sde.g2(t)
            velocity, forms = field(z, t, rows)
            return per_sample(rate, velocity) * velocity, forms * rate[:, None]

        try:
            return odeint(turned, z0, *ends, rtol=rtol, atol=atol, passenger_atol=nats, damping=self.DAMPING)
        except SolverError as error:
            at = self.time(torch.tensor([error.t], dtype=torch.float64), start)
            raise SolverError(error.row, float(at), error.reason) from error

    def angle(self, t: Tensor) -> Tensor:
        """Return phi_t, float64."""
        return torch.atan2(self.sde.sigma(t), self.sde.mean(t))

    def time(self, angle: Tensor, start: float) -> Tensor:
        """Return the time in [start, 1] at which phi_t = ``angle``: sigma_t^2 = s^2 / (s^2 + 1 -
        sigma2_0)."""
        s2 = torch.tan(angle).square()
        return self.sde.inv_var(s2 / (s2 + 1.0 - self.sde.sigma2_0)).clamp(start, 1.0)


def flow_times(sde: SDE, steps: int, start: float) -> Tensor:
    """Return steps + 1 times from ``start`` to 1, float64: where a fixed-step solver evaluates a density.

    They are the SDE's own (`SDE.flow_times`), else the samplers' grid for it.
    """
    times = sde.flow_times(steps, start)
    return make_grid(sde, sde.grid, steps, start).flip(0) if times is None else times


def _require_known(what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise ConfigError(f"unknown {what} '{name}'{did_you_mean(name, known)}; there are {', '.join(known)}")


def velocity_and_forms(
    drift: Callable[[Tensor], Tensor], z: Tensor, vectors: Tensor
) -> tuple[Tensor, Tensor]:
    """Return v(z) and n^T (dv/dz) n, float64 [A, P], per row of z and n of ``vectors`` [P, A or 1, ...]."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        velocity = drift(z)
    if not velocity.requires_grad:  # a velocity that does not depend on z
        return velocity, torch.zeros(len(z), len(vectors), dtype=torch.float64, device=z.device)
    forms = []
    for i, vector in enumerate(vectors):
        n = vector.expand_as(z)
        (pulled,) = torch.autograd.grad(
            velocity, z, n, retain_graph=i + 1 < len(vectors), materialize_grads=True
        )
        forms.append((pulled * n).flatten(1).sum(dim=1, dtype=torch.float64))
    return velocity.detach(), torch.stack(forms, dim=1)


def _probes(z0: Tensor, seeds: Sequence[int] | SeededNoise, probes: int) -> Tensor:
    """Return Rademacher probes [P, B, ...]; row k's depend on seed k alone."""
    noise = seeds if isinstance(seeds, SeededNoise) else SeededNoise(seeds, device=z0.device, stream="probe")
    require(len(noise) == len(z0), f"{len(noise)} seeds for {len(z0)} samples; give one seed per sample")
    return torch.stack([noise.rademacher(*z0.shape[1:], dtype=z0.dtype) for _ in range(probes)])


def _basis(z0: Tensor) -> Tensor:
    """Return the unit vectors [D, 1, ...]: their quadratic forms sum to the trace."""
    size = z0[0].numel() if len(z0) else 1
    require(
        size <= LARGEST_EXACT,
        f"the exact divergence of {size} dimensions takes {size} backward passes per step; choose hutchinson",
    )
    return torch.eye(size, dtype=z0.dtype, device=z0.device).reshape(size, 1, *z0.shape[1:])


@contextmanager
def _parameters_frozen(score: ScoreFunction) -> Iterator[None]:
    """Switch off the gradients of a module's parameters, so that only the input's graph is built and kept."""
    parameters = list(score.parameters()) if isinstance(score, nn.Module) else []
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@dataclass(frozen=True)
class Draws:
    """The next few draws of B images, as rows [B * count] with those of image 0 first."""

    terms: Mapping[str, Tensor]
    """Nats that add up to -log w."""
    groups: Mapping[str, Tensor]
    """The same by latent groups, where they can be told apart."""
    nfe: Tensor
    """Evaluations of the score network."""
    probe_error: Tensor | None = None
    """Standard error of log w that is due to the probes of a divergence; None where it is not known."""


Evaluate = Callable[[int], Draws]
"""``evaluate(count)`` takes the next ``count`` draws of every image."""


@dataclass
class RunningMean:
    """Mean and standard error of values that come a few at a time, by rows (Chan, Golub & LeVeque, 1983)."""

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(()))
    spread: Tensor = field(default_factory=lambda: torch.zeros(()))
    """Sum of squared deviations from the mean."""

    def update(self, values: Tensor) -> None:
        """Take in the next values [B, count], at least one of each row."""
        count, mean = values.shape[1], values.mean(dim=1)
        total = self.count + count
        delta = mean - self.mean.to(mean)
        spread = (values - mean[:, None]).square().sum(dim=1)
        self.spread = self.spread.to(mean) + spread + delta.square() * (self.count * count / total)
        self.mean = self.mean.to(mean) + delta * (count / total)
        self.count = total

    def error(self) -> Tensor | None:
        """Return the standard error of the mean [B], or None for a single value."""
        if self.count < 2:
            return None
        return (self.spread / (self.count - 1) / self.count).sqrt()


@dataclass
class LogMeanExp:
    """log((1/K) sum_k exp(v_k)) of values that come a few at a time, by rows.

    The sums of exp(v) and of exp(v)^2 are kept relative to the largest v so far: nothing overflows, and what
    underflows is nothing beside it.
    """

    count: int = 0
    largest: Tensor = field(default_factory=lambda: torch.tensor(-torch.inf))
    total: Tensor = field(default_factory=lambda: torch.zeros(()))
    squares: Tensor = field(default_factory=lambda: torch.zeros(()))

    def update(self, values: Tensor) -> None:
        """Take in the next values [B, count], at least one of each row; -inf is a weight of 0."""
        before = self.largest.to(values)
        self.largest = torch.maximum(before, values.amax(dim=1))
        # inf - inf is no shift: all weights are 0 so far, or one is infinite.
        shift = self.largest.masked_fill(self.largest.isinf(), 0.0)
        shrink = torch.exp(before - shift)
        weights = torch.exp(values - shift[:, None])
        self.total = self.total.to(values) * shrink + weights.sum(dim=1)
        self.squares = self.squares.to(values) * shrink.square() + weights.square().sum(dim=1)
        self.count += values.shape[1]

    def value(self) -> Tensor:
        """Return the logarithm of the mean weight [B]."""
        shift = self.largest.masked_fill(self.largest.isinf(), 0.0)
        return shift + (self.total / self.count).log()

    def error(self) -> Tensor | None:
        """Return its standard error [B] by the delta method, std(w) / (sqrt(K) mean(w)); None for K = 1.

        It is the error of ``value`` as an estimate of log E[w], to be trusted where many weights count. Where
        a few dominate, larger ones that were not drawn do not show in it.
        """
        if self.count < 2:
            return None
        excess = self.count * self.squares / self.total.square() - 1.0
        return (excess.clamp(min=0.0) / (self.count - 1)).sqrt()


def bound(evaluate: Evaluate, images: int, config: DensityConfig) -> Density:
    """Return the bound of ``config.method`` over ``config.samples`` draws of every image, on the CPU.

    ``nelbo`` and ``ode``: the mean of -log w over the draws, with its standard error. ``iw``: -log of the
    mean of w, with its error by the delta method, and the term ``importance_gain`` (at most 0) by which it
    is below the mean of -log w. At most max(images, config.at_once) rows are evaluated together; how many
    changes roundings alone.
    """
    started = time.perf_counter()
    nats, weight, probes = RunningMean(), LogMeanExp(), RunningMean()
    terms: dict[str, RunningMean] = defaultdict(RunningMean)
    groups: dict[str, RunningMean] = defaultdict(RunningMean)
    nfe = torch.zeros(images, dtype=torch.int64)
    at_once = max(1, config.at_once // max(1, images))

    for first in range(0, config.samples, at_once):
        count = min(at_once, config.samples - first)
        drawn = evaluate(count)
        parts = {name: value.double().reshape(images, count) for name, value in drawn.terms.items()}
        total = torch.stack(list(parts.values())).sum(dim=0)
        nats.update(total)
        weight.update(-total)
        for name, part in parts.items():
            terms[name].update(part)
        for name, value in drawn.groups.items():
            groups[name].update(value.double().reshape(images, count))
        if drawn.probe_error is not None:
            probes.update(drawn.probe_error.double().reshape(images, count).square())
        nfe += drawn.nfe.reshape(images, count).sum(dim=1).cpu()

    means = {name: moments.mean for name, moments in terms.items()}
    value, error = nats.mean, nats.error()
    if config.method == "iw":
        value, error = -weight.value(), weight.error()
        means["importance_gain"] = (value - nats.mean).clamp(max=0.0)
    return Density(
        nats=value.cpu(),
        nfe=nfe,
        seconds=time.perf_counter() - started,
        terms={name: mean.cpu() for name, mean in means.items()},
        groups={name: moments.mean.cpu() for name, moments in groups.items()},
        error=None if error is None else error.cpu(),
        probe_error=probes.mean.sqrt().cpu() if probes.count else None,
    )
