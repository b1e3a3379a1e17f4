"""Ways to integrate a probability flow's log-density: what each says of every image and what it cost.

Among them is the reference implementation's procedure, written out. A score known in closed form, in the
shape of latents, makes them measurable without any files.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Generator, Tensor

from lsgm.bench.options import Coordinate
from lsgm.errors import UserError
from lsgm.likelihood import Angle, LogProb, flow_times, ode_log_prob, velocity_and_forms
from lsgm.ode import ODESolution, odeint, odeint_fixed
from lsgm.rng import SeededNoise
from lsgm.sampling.registry import CountedScore, ScoreFunction
from lsgm.score import per_sample
from lsgm.sde import SDE


@dataclass(frozen=True)
class MixtureScore:
    """The exact score model of z_0 ~ sum_k w_k N(mu_k, s2_k I), mu [K, C, H, W], s2 and w [K], float64.

    Diffused, a mixture stays one: p_t = sum_k w_k N(m_t mu_k, (m_t^2 s2_k + sigma_t^2) I). Results have the
    dtype of z_t, as a network's.
    """

    sde: SDE
    mu: Tensor
    s2: Tensor
    weights: Tensor

    def eps(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return -sigma_t times the score."""
        score, _ = self._score_and_trace(z_t, t)
        return -per_sample(self.sde.sigma(t), z_t) * score.to(z_t.dtype)

    def drift(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the velocity f z - g^2 score / 2 of the probability flow."""
        score, _ = self._score_and_trace(z_t, t)
        f, half_g2 = self.sde.f(t), 0.5 * self.sde.g2(t)
        return per_sample(f, z_t) * z_t - per_sample(half_g2, z_t) * score.to(z_t.dtype)

    def trace(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the exact divergence of ``drift``, float64 [B]."""
        size = z_t[0].numel()
        return size * self.sde.f(t) - 0.5 * self.sde.g2(t) * self._score_and_trace(z_t, t)[1]

    def draw(self, count: int, seed: int) -> Tensor:
        """Return ``count`` samples z_0, float64."""
        generator = Generator().manual_seed(seed)
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, *self.mu.shape[1:], generator=generator, dtype=torch.float64)
        return self.mu[which] + per_sample(self.s2[which].sqrt(), noise) * noise

    def _score_and_trace(self, z_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return grad log p_t and its divergence: with shares r_k and a_k = -(z - m mu_k) / v_k,

        sum_k r_k a_k and sum_k r_k (|a_k|^2 - D / v_k) - |sum_k r_k a_k|^2.
        """
        z = z_t.double().flatten(1)
        size = z.shape[1]
        mean = self.sde.mean(t)[:, None]
        v = mean**2 * self.s2 + self.sde.var(t)[:, None]
        a = -(z[:, None] - mean[..., None] * self.mu.flatten(1)) / v[..., None]
        squares = a.square().sum(dim=2)
        share = (self.weights.log() - 0.5 * (squares * v + size * v.log())).softmax(dim=1)
        score = (share[..., None] * a).sum(dim=1)
        trace = (share * (squares - size / v)).sum(dim=1) - score.square().sum(dim=1)
        return score.reshape(z_t.shape), trace


def mixture_score(sde: SDE, shape: tuple[int, ...], *, components: int = 4, seed: int = 0) -> MixtureScore:
    """Return a mixture whose means and widths come from a seed, its components a few widths apart.

    Along the line between two means, apart sqrt(2) times 3 of about 0.77, components overlap whatever the
    dimension, so that their shares, and with them the Jacobian, change along the way.
    """
    generator = Generator().manual_seed(seed)
    size = math.prod(shape)
    s2 = torch.linspace(0.4, 0.8, components, dtype=torch.float64)
    mu = torch.randn(components, *shape, generator=generator, dtype=torch.float64)
    mu = mu * (3.0 * 0.6**0.5 / size**0.5)
    weights = torch.arange(components, 0, -1, dtype=torch.float64)
    return MixtureScore(sde, mu, s2, weights / weights.sum())


@dataclass(frozen=True)
class ReferenceLogProb:
    """``log_p`` float64 [B] in nats; ``nfe`` evaluations of the batch, ``times`` where its steps ended."""

    log_p: Tensor
    nfe: int
    times: NDArray[np.float64]


def reference_log_prob(
    score: ScoreFunction, z0: Tensor, *, tol: float, time_eps: float, seed: int
) -> ReferenceLogProb:
    """Return log p(z0) of z0 [B, ...] as LSGM's reference implementation has it, rtol = atol = ``tol``.

    The network runs in the dtype of z0.
    Raises UserError where SciPy's solver gives up.
    """
    shape, size, batch = z0.shape, z0.numel(), len(z0)
    generator = Generator().manual_seed(seed)

    def field(t: float, vector: NDArray[Any]) -> NDArray[np.float64]:
        z = torch.from_numpy(vector[:size].reshape(shape)).to(z0)
        probe = torch.randn(shape, generator=generator, dtype=torch.float64).to(z0)
        with torch.enable_grad():
            z.requires_grad_()
            velocity = score.drift(z, torch.full((batch,), t, dtype=torch.float64, device=z0.device))
            (pulled,) = torch.autograd.grad(velocity, z, probe)
        divergence = (pulled * probe).flatten(1).sum(dim=1)
        parts = (velocity.detach().flatten(), divergence)
        return np.concatenate([part.double().cpu().numpy() for part in parts])

    start = np.concatenate([z0.detach().double().cpu().numpy().ravel(), np.zeros(batch)])
    solution = solve_ivp(field, (time_eps, 1.0), start, method="RK45", rtol=tol, atol=tol)
    if not solution.success:
        raise UserError(f"the reference procedure stopped: {solution.message} Loosen its tolerance.")
    end = torch.from_numpy(solution.y[:, -1])
    log_prior = score.sde.log_prior(end[:size].reshape(shape))
    return ReferenceLogProb(log_prior + end[size:], int(solution.nfev), np.asarray(solution.t))


@dataclass(frozen=True)
class Flow:
    """Where densities are asked: z0 [B, ...] at time ``start``, in the dtype that the score model runs in.

    ``vectors`` [P, B, ...] stand for the exact trace of a network: the mean of their quadratic forms. None
    takes the closed form of a `MixtureScore`.
    """

    score: ScoreFunction
    z0: Tensor
    start: float
    vectors: Tensor | None = None

    def field(self, z: Tensor, t: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the velocity and its trace, exact [A, 1] or the forms of the vectors [A, P]."""
        if self.vectors is None:
            assert isinstance(self.score, MixtureScore)
            return self.score.drift(z, t), self.score.trace(z, t)[:, None]
        return velocity_and_forms(lambda at: self.score.drift(at, t), z, self.vectors[:, rows])

    def log_p(self, solution: ODESolution) -> Tensor:
        """Return log-densities [B]: the prior's plus the integrated trace."""
        assert solution.passenger is not None
        return self.score.sde.log_prior(solution.y) + solution.passenger.mean(dim=1)


@dataclass(frozen=True)
class Solved:
    """``log_p`` as the way gives it, ``smooth`` what its steps give with the flow's own trace: [B] in nats.

    ``evaluations`` of the network per image, ``gradients`` through it (vector-Jacobian products) and seconds,
    None where a way is no contender.
    """

    log_p: Tensor
    smooth: Tensor
    evaluations: float
    gradients: float
    seconds: float | None


Way = Callable[[Flow, int], Solved]
"""A procedure at one setting: (flow, seed) -> what it says of all images."""


def true_log_p(flow: Flow, tol: float) -> tuple[Tensor, Tensor]:
    """Return log p(z0) to a tight tolerance and its standard error over vectors (0 for the exact trace)."""
    solution = odeint(flow.field, flow.z0, flow.start, 1.0, rtol=tol, atol=tol)
    forms = solution.passenger
    assert forms is not None
    count = forms.shape[1]
    error = forms.std(dim=1) / count**0.5 if count > 1 else torch.zeros(len(forms), dtype=torch.float64)
    return flow.log_p(solution), error


def reference(tol: float) -> Way:
    """Return the reference implementation's procedure; `smooth` comes of the very steps it took."""

    def way(flow: Flow, seed: int) -> Solved:
        began = time.perf_counter()
        found = reference_log_prob(flow.score, flow.z0, tol=tol, time_eps=flow.start, seed=seed)
        seconds = time.perf_counter() - began
        return Solved(found.log_p, _replayed(flow, found.times.tolist()), found.nfe, found.nfe, seconds)

    return way


def adaptive(tol: float, probes: int, coordinate: Coordinate = "time") -> Way:
    """Return this package's log-density: a step size per image, fixed probes that have no say in it."""

    def smooth(flow: Flow) -> ODESolution:
        if coordinate == "angle":
            return Angle(flow.score.sde).odeint(flow.field, flow.z0, flow.start, tol, tol, None)
        return odeint(flow.field, flow.z0, flow.start, 1.0, rtol=tol, atol=tol)

    def solve(flow: Flow, noise: SeededNoise) -> LogProb:
        how: dict[str, Any] = {"time_eps": flow.start, "probes": probes, "coordinate": coordinate}
        return ode_log_prob(flow.score, flow.z0, noise, rtol=tol, atol=tol, **how)

    return _own(solve, smooth, probes)


def fixed_steps(steps: int) -> Way:
    """Return this package's log-density by RK4 on a grid of times, with one fixed probe."""

    def smooth(flow: Flow) -> ODESolution:
        times = flow_times(flow.score.sde, steps, flow.start)
        return odeint_fixed(flow.field, flow.z0, times, method="rk4")

    def solve(flow: Flow, noise: SeededNoise) -> LogProb:
        return ode_log_prob(flow.score, flow.z0, noise, time_eps=flow.start, solver="rk4", steps=steps)

    return _own(solve, smooth, 1)


def controlled(tol: float, *, inside: bool, redrawn: bool) -> Way:
    """Return one probe of signs per image, fixed or redrawn at every evaluation, in or out of step control.

    Inside, the log-density is one more entry of each image's state, as in the reference, but with a step size
    per image. These ways isolate the effects and are no contenders.
    """

    def way(flow: Flow, seed: int) -> Solved:
        shape, generator = flow.z0.shape, Generator().manual_seed(seed)
        count = CountedScore(flow.score, len(flow.z0), flow.z0.device)
        # The probes that `adaptive` has at this seed, so that out of control and fixed is that way.
        seeds = range(seed, seed + len(flow.z0))
        first = SeededNoise(seeds, device=flow.z0.device, stream="probe").rademacher(*shape[1:]).to(flow.z0)
        width = flow.z0[0].numel()

        def field(y: Tensor, t: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            z = y[:, :width].reshape(-1, *shape[1:])
            probe = first[rows]
            if redrawn:
                probe = (torch.randint(0, 2, tuple(z.shape), generator=generator) * 2 - 1).to(z)
            velocity, form = velocity_and_forms(lambda at: count.drift(at, t, rows), z, probe[None])
            trace = flow.field(z, t, rows)[1]
            parts = [velocity.flatten(1), form.to(y.dtype)] if inside else [velocity.flatten(1)]
            return torch.cat(parts, dim=1), torch.cat([form, trace], dim=1)

        start = flow.z0.flatten(1)
        start = torch.cat([start, torch.zeros_like(start[:, :1])], dim=1) if inside else start
        solution = odeint(field, start, flow.start, 1.0, rtol=tol, atol=tol, max_steps=100_000)
        log_prior = flow.score.sde.log_prior(solution.y[:, :width])
        assert solution.passenger is not None
        own, smooth = solution.passenger[:, 0], solution.passenger[:, 1:].mean(dim=1)
        cost = float(count.nfe.double().mean())
        return Solved(log_prior + own, log_prior + smooth, cost, cost, None)

    return way


def _own(
    solve: Callable[[Flow, SeededNoise], LogProb], smooth: Callable[[Flow], ODESolution], probes: int
) -> Way:
    def way(flow: Flow, seed: int) -> Solved:
        seeds = range(seed, seed + len(flow.z0))
        began = time.perf_counter()
        found = solve(flow, SeededNoise(seeds, device=flow.z0.device, stream="probe"))
        seconds = time.perf_counter() - began
        cost = float(found.nfe.double().mean())
        return Solved(found.log_p, flow.log_p(smooth(flow)), cost, cost * probes, seconds)

    return way


def _replayed(flow: Flow, times: list[float]) -> Tensor:
    """Return the log-densities of Dormand-Prince steps from time to time with the flow's trace."""
    y, total = flow.z0, torch.zeros((), dtype=torch.float64)
    for start, end in pairwise(times):
        # One step that any error passes.
        step = odeint(flow.field, y, start, end, rtol=1.0, atol=1e30, first_step=end - start)
        assert step.passenger is not None
        y, total = step.y, total + step.passenger.mean(dim=1)
    return flow.score.sde.log_prior(y) + total
