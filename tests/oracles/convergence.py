"""Orders of convergence of deterministic samplers, each on the grid that is even in its own coordinate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from oracles.worlds import gaussian_world
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.rng import SeededNoise
from lsgm.sampling import CountedScore, find_sampler
from lsgm.sampling.grids import times_at
from lsgm.sde import SDE

__all__ = ["COORDINATES", "TimeOnly", "even_in", "measured_orders"]

START, END = 0.9, 0.15  # an interval on which every SDE is smooth at the step sizes below

COORDINATES: dict[str, Callable[[SDE, Tensor], Tensor]] = {
    "t": lambda _sde, t: t.double(),
    "log s": lambda sde, t: sde.sigma(t).log() - sde.mean(t).log(),
    "s": lambda sde, t: sde.sigma(t) / sde.mean(t),
}


@dataclass(frozen=True)
class TimeOnly:
    """A noise prediction that depends on time alone: u is then an integral, not the solution of an ODE."""

    sde: SDE
    value: Callable[[Tensor], Tensor]

    def eps(self, z: Tensor, t: Tensor) -> Tensor:
        return self.value(t)[:, None].expand_as(z)

    def drift(self, z: Tensor, t: Tensor) -> Tensor:
        raise NotImplementedError


def even_in(sde: SDE, coordinate: str, steps: int, start: float = START, end: float = END) -> Tensor:
    """The grid of times from start to end at which the coordinate falls by equal steps."""

    def value(t: Tensor) -> Tensor:
        return COORDINATES[coordinate](sde, t)

    first, last = value(torch.tensor([start, end], dtype=torch.float64)).tolist()
    return times_at(value, torch.linspace(first, last, steps + 1, dtype=torch.float64), 0.0)


def measured_orders(name: str, sde: SDE, coordinate: str, steps: tuple[int, ...]) -> list[float]:
    """The exponents by which the largest error falls in a Gaussian world, whose flow is known."""
    world, sampler = gaussian_world(sde), find_sampler(name)
    z = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = world.flow(z, START, END)

    def error(count: int) -> float:
        times, noise = even_in(sde, coordinate, count), SeededNoise(range(len(z)))
        out = sampler.run(CountedScore(world, len(z)), z, times, noise, SamplerConfig())
        assert isinstance(out, Tensor)
        return float((out - exact).abs().max())

    return [math.log2(coarse / fine) for coarse, fine in pairwise(map(error, steps))]
