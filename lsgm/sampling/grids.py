r"""Grids of times for fixed-step samplers, from t = 1 down: a choice separate from the solver.

All but one are even in one coordinate of the diffusion, and serve every SDE: where the coordinate is not t
itself its times are found by bisection, so that no SDE needs an inverse.

The ``optimised`` one is made for the model at hand, without training (GITS: Chen et al., arXiv:2405.11326).
Trajectories of the probability flow have nearly the same shape whatever they start from, so a few fine ones
tell where a coarse grid may stride. In the coordinates (u, s) of `Nodes`, du/ds = eps_theta, the local error
of one Euler step from node i to node j of the fine grid is

.. math:: c_{ij} = E \, \| u_i + (s_j - s_i) \epsilon_\theta(z_i, t_i) - u_j \|,

and what is left of it in the end is c_ij r_F / r_j, with r_j the size of u_j: the flow draws trajectories
together from the size of the noise to that of the data, and takes errors along (exactly so where the data are
Normal around 0). The grid of N steps is the path of N edges from the first node to the last for which these
sum to the least: dynamic programming, exact among all paths through the nodes. The paper sums c_ij itself,
which spends nearly all of the steps on pixels at noise levels where errors do not last.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lsgm.config import SamplerConfig, require
from lsgm.errors import ConfigError, UserError, did_you_mean
from lsgm.rng import SeededNoise
from lsgm.sampling.registry import CountedScore, Nodes, ScoreFunction
from lsgm.sde import SDE

OPTIMISED = "optimised"
"""The grid that is made for a model (`GridCache`)."""
TRAJECTORIES = 16
"""Fine trajectories of it, of seeds 0, 1, ... in a stream of their own, so that no sample is one of them."""
FINE_STEPS = 60
"""Heun steps of each, on the grid edm with rho = 7."""
AT_ONCE = 2**24
"""Numbers of one sort (positions, slopes) that the trajectories followed together may hold."""


def time_end_of(sde: SDE, time_end: float | None = None) -> float:
    """Return the smallest time at which the model is asked: ``time_end``, or the SDE's own default.

    The default is 0 where there is noise at t = 0 and 1e-5 where there is none, since eps_theta / sigma_t is
    singular there. Raises ConfigError for a time outside [0, 1) or without noise.
    """
    noisy = _var(sde, 0.0) > 0
    if time_end is None:
        return 0.0 if noisy else 1e-5
    require(0 <= time_end < 1, f"time-end is {time_end}; it must lie in [0, 1)")
    require(
        _var(sde, time_end) > 0,
        f"time-end is {time_end}, where {type(sde).__name__} has no noise yet; give a time above 0, say 1e-5",
    )
    return time_end


def log_snr(sde: SDE, t: Tensor) -> Tensor:
    """Return log(m_t^2 / sigma_t^2), which falls with t under every SDE; float64, shape of t."""
    return 2 * sde.mean(t).log() - sde.var(t).log()


def times_at(coordinate: Callable[[Tensor], Tensor], target: Tensor, time_end: float) -> Tensor:
    """Return the times in [time_end, 1] at which a ``coordinate`` that grows with t reaches ``target``.

    By bisection; beyond either end it is that end. Float64, shape and device of ``target``.
    """
    low, high = torch.full_like(target, time_end, dtype=torch.float64), torch.ones_like(target).double()
    for _ in range(60):  # 2^-60: below the spacing of float64 on [1e-2, 1], and beyond need under that
        middle = 0.5 * (low + high)
        late = coordinate(middle) > target
        low, high = torch.where(late, low, middle), torch.where(late, middle, high)
    return 0.5 * (low + high)


GRIDS = ("uniform", "quadratic", "logsnr", "edm", "geometric")
"""The grids of `make_grid`."""


def make_grid(sde: SDE, name: str, steps: int, time_end: float, rho: float = 7.0) -> Tensor:
    """Return the grid called ``name``: float64 [steps + 1], falling from 1 to ``time_end``, equally spaced in

    ========= =============================================================================================
    uniform   t
    quadratic sqrt(t) (arXiv:2010.02502, D.3)
    logsnr    log(m_t^2 / sigma_t^2)
    edm       (sigma_t / m_t)^(1 / rho): equation 5 of arXiv:2206.00364, without its last step to 0; rho = 1
              is even in s = sigma_t / m_t itself
    geometric log(sigma_t^2): a constant ratio. Under the sub-VP SDE with sigma2_0 > 0 the variance dips
              before it grows; every value above the one at ``time_end`` is still met once
    ========= =============================================================================================

    Raises ConfigError for an unknown name, and for ``optimised``, which no SDE alone determines.
    """
    require(
        name != OPTIMISED,
        f"the grid {OPTIMISED} is made for a model, not for an SDE; let `draw` make it or give its times",
    )
    if name not in GRIDS:
        names = (*GRIDS, OPTIMISED)
        raise ConfigError(f"unknown grid '{name}'{did_you_mean(name, names)}; available: {', '.join(names)}")
    if name == "uniform":
        times = _even(1.0, time_end, steps)
    elif name == "quadratic":
        times = _even(1.0, time_end**0.5, steps).square()
    else:

        def coordinate(t: Tensor) -> Tensor:
            return sde.var(t).log() if name == "geometric" else -log_snr(sde, t)

        first, last = coordinate(torch.tensor([1.0, time_end], dtype=torch.float64)).tolist()
        if name == "edm":
            ends = math.exp(first / (2 * rho)), math.exp(last / (2 * rho))
            levels = _even(*ends, steps).log() * (2 * rho)
        else:
            levels = _even(first, last, steps)
        times = times_at(coordinate, levels, time_end)
    times[0], times[-1] = 1.0, time_end
    return times


def _even(first: float, last: float, steps: int) -> Tensor:
    return torch.linspace(first, last, steps + 1, dtype=torch.float64)


def _var(sde: SDE, t: float) -> float:
    return float(sde.var(torch.tensor(t, dtype=torch.float64)))


@dataclass(frozen=True)
class LocalErrors:
    """What one Euler step costs between all pairs of a fine grid's nodes, for one model."""

    times: Tensor
    """The fine grid, float64 [F + 1] on the CPU, falling from 1."""
    cost: Tensor
    """c_ij per dimension (root mean square over it, mean over trajectories), float64 [F + 1, F + 1] on the
    CPU; infinite where j <= i, as no step leads back."""
    size: Tensor
    """r_j, the root mean square of u_j, float64 [F + 1] on the CPU."""
    nfe: int
    """Evaluations of the network that it took, over all trajectories."""
    seconds: float
    """Wall seconds that it took; like ``nfe`` no part of what samples cost."""

    @property
    def lasting(self) -> Tensor:
        """What is left of each error at the last node: c_ij r_F / r_j."""
        return self.cost * (self.size[-1] / self.size)


@torch.no_grad()
def local_errors(
    score: ScoreFunction,
    shape: Sequence[int],
    time_end: float,
    device: torch.device | str | None = None,
    *,
    temperature: float = 1.0,
) -> LocalErrors:
    """Follow the fine trajectories by Heun's method and measure an Euler step between all pairs of nodes.

    Deterministic for a model: they start from fixed seeds, at the temperature given. Takes 2 FINE_STEPS
    evaluations per trajectory, whatever grids are made of the result. Raises UserError where a trajectory is
    not finite.
    """
    started = time.perf_counter()
    times = make_grid(score.sde, "edm", FINE_STEPS, time_end)
    total, square = torch.zeros(len(times), len(times)).double(), torch.zeros(len(times)).double()
    nfe = 0
    at_once = max(1, AT_ONCE // (len(times) * math.prod(shape)))
    for first in range(0, TRAJECTORIES, at_once):
        seeds = range(first, min(first + at_once, TRAJECTORIES))
        noise = SeededNoise(seeds, device=device or "cpu", stream="optimised grid")
        counted = CountedScore(score, len(seeds), noise.device)
        z = noise.normal(*shape) * (temperature * score.sde.prior_var**0.5)
        found, sizes = _pairwise_errors(Nodes.of(counted, times.to(noise.device)), z)
        total, square = total + found, square + sizes
        nfe += int(counted.nfe.sum())
    if not total.isfinite().all():
        raise UserError(
            "the trajectories that the optimised grid is made from are not finite; check the weights, end at "
            "a later time or choose another grid"
        )
    no_step = torch.ones_like(total).tril().bool()
    cost = (total / TRAJECTORIES).masked_fill(no_step, math.inf)
    size = (square / TRAJECTORIES).sqrt()
    return LocalErrors(times, cost, size, nfe, time.perf_counter() - started)


def _pairwise_errors(nodes: Nodes, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return c_ij and r_j^2 summed over the trajectories that start from z, float64; c_ij is 0 for j <= i.

    u is summed up from Heun's own increments in float64: u itself begins at 1 / m_1, where the difference of
    two float32 would lose the errors of short steps.
    """
    starts, slopes, first = [], [], z.flatten(1).double() / nodes.m[0]
    for k in range(nodes.steps):
        eps = nodes.eps(z, k)
        slope = 0.5 * (eps + nodes.eps(nodes.step(z, k, k + 1, eps), k + 1))
        z = nodes.step(z, k, k + 1, slope)
        starts.append(eps.flatten(1))
        slopes.append(slope.flatten(1))
    s = torch.tensor(nodes.s, dtype=torch.float64, device=z.device)
    moved = torch.stack(slopes).double() * s.diff()[:, None, None]
    found = torch.zeros(len(s), len(s), dtype=torch.float64)
    for i, eps in enumerate(starts):
        error = moved[i:].cumsum(dim=0) - (s[i + 1 :] - s[i])[:, None, None] * eps.double()
        found[i, i + 1 :] = error.square().mean(dim=2).sqrt().sum(dim=1).cpu()
    path = torch.cat([first[None], first + moved.cumsum(dim=0)])
    return found, path.square().mean(dim=2).sum(dim=1).cpu()


def grid_of(errors: LocalErrors, score: ScoreFunction, steps: int) -> Tensor:
    """Return the best grid of ``steps`` steps: float64 [steps + 1], falling from 1.

    Through nodes of the fine grid while there are two of them for every step; beyond that, where the fine
    grid has no more to tell, the best grid of so many steps, refined evenly in log-SNR between its times.
    """
    coarse = min(steps, FINE_STEPS // 2)
    times = errors.times[cheapest_path(errors.lasting, coarse)]
    if coarse == steps:
        return times
    level = -log_snr(score.sde, times)
    place = torch.linspace(0, coarse, steps + 1, dtype=torch.float64)
    before = place.long().clamp(max=coarse - 1)
    target = torch.lerp(level[before], level[before + 1], place - before)
    fine = times_at(lambda t: -log_snr(score.sde, t), target, float(times[-1]))
    fine[0], fine[-1] = times[0], times[-1]
    return fine


def cheapest_path(cost: Tensor, steps: int) -> list[int]:
    """Return the nodes of the cheapest path of ``steps`` edges from the first node to the last.

    cost [F + 1, F + 1] holds the price of the edge i -> j, infinite where there is none; steps is at most F.
    """
    best = torch.full_like(cost[0], math.inf)
    best[0] = 0.0
    came_from = []
    for _ in range(steps):
        best, origin = (best[:, None] + cost).min(dim=0)
        came_from.append(origin)
    path = [len(cost) - 1]
    for origin in reversed(came_from):
        path.append(int(origin[path[-1]]))
    return path[::-1]


class GridCache:
    """The local errors of one model, measured when a grid is first asked for and shared by all its grids.

    It belongs to a model whose weights stay as they are.
    """

    def __init__(self) -> None:
        self._errors: dict[tuple[tuple[int, ...], float, float], LocalErrors] = {}

    def resolve(
        self,
        score: ScoreFunction,
        shape: Sequence[int],
        config: SamplerConfig,
        device: torch.device | str | None = None,
    ) -> SamplerConfig:
        """Return ``config`` with an optimised grid's times in place of its name; any other as it is.

        They are for samples of ``shape`` from config's temperature down to its time-end. Raises ConfigError
        for a time-end without noise.
        """
        if config.grid != OPTIMISED:
            return config
        key = (tuple(shape), time_end_of(score.sde, config.time_end), config.temperature)
        if key not in self._errors:
            self._errors[key] = local_errors(score, shape, key[1], device, temperature=key[2])
        times = grid_of(self._errors[key], score, config.steps)
        return replace(config, grid=None, times=tuple(times.tolist()))
