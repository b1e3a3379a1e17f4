r"""A grid of times made for the model at hand, without training (GITS: Chen et al., arXiv:2405.11326).

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
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.errors import UserError
from lsgm.rng import SeededNoise
from lsgm.sampling.counted import CountedScore, Nodes, ScoreFunction
from lsgm.sampling.grids import OPTIMISED, edm_grid, log_snr, time_end_of, times_at

__all__ = [
    "GridCache",
    "LocalErrors",
    "OptimisedGrid",
    "cheapest_path",
    "grid_of",
    "local_errors",
    "optimised_times",
]

TRAJECTORIES = 16
"""Fine trajectories, of seeds 0, 1, ... in a stream of their own, so that no sample is one of them."""
FINE_STEPS = 60
"""Heun steps of each, on the grid edm with rho = 7."""
_AT_ONCE = 2**24
"""Numbers of one sort (positions, slopes) that the trajectories followed together may hold."""


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
    """Wall seconds that it took."""

    @property
    def lasting(self) -> Tensor:
        """What is left of each error at the last node: c_ij r_F / r_j."""
        return self.cost * (self.size[-1] / self.size)


@dataclass(frozen=True)
class OptimisedGrid:
    """A grid made for a model and its one-off price, which is no part of what samples cost."""

    times: Tensor
    """Float64 [N + 1] on the CPU, falling from 1 to the time end."""
    nfe: int
    """Evaluations of the network that it took, over all trajectories."""
    seconds: float
    """Wall seconds that it took."""


def optimised_times(
    score: ScoreFunction,
    shape: Sequence[int],
    config: SamplerConfig,
    device: torch.device | str | None = None,
) -> OptimisedGrid:
    """Return the best grid of ``config.steps`` steps for samples of ``shape`` by a model.

    Deterministic for a model: its trajectories start from fixed seeds, at the temperature of ``config``, and
    end at its time-end. Nothing is kept; `GridCache` keeps what every number of steps shares. Raises
    ConfigError for a time-end without noise.
    """
    end = time_end_of(score.sde, config.time_end)
    errors = local_errors(score, shape, end, device, temperature=config.temperature)
    return OptimisedGrid(grid_of(errors, score, config.steps), errors.nfe, errors.seconds)


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

    Takes 2 FINE_STEPS evaluations per trajectory, whatever grids are made of the result. Raises UserError
    where a trajectory is not finite.
    """
    started = time.perf_counter()
    times = edm_grid(score.sde, FINE_STEPS, time_end)
    total, square = torch.zeros(len(times), len(times)).double(), torch.zeros(len(times)).double()
    nfe = 0
    at_once = max(1, _AT_ONCE // (len(times) * math.prod(shape)))
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

    def errors(
        self,
        score: ScoreFunction,
        shape: Sequence[int],
        config: SamplerConfig,
        device: torch.device | str | None = None,
    ) -> LocalErrors:
        """Return the errors for samples of ``shape`` from config's temperature down to its time-end."""
        key = (tuple(shape), time_end_of(score.sde, config.time_end), config.temperature)
        if key not in self._errors:
            self._errors[key] = local_errors(score, shape, key[1], device, temperature=key[2])
        return self._errors[key]

    def resolve(
        self,
        score: ScoreFunction,
        shape: Sequence[int],
        config: SamplerConfig,
        device: torch.device | str | None = None,
    ) -> SamplerConfig:
        """Return ``config`` with an optimised grid's times in place of its name; any other as it is."""
        if config.grid != OPTIMISED:
            return config
        times = grid_of(self.errors(score, shape, config, device), score, config.steps)
        return replace(config, grid=None, times=tuple(times.tolist()))
