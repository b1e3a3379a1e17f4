"""The grid made for a model: the best path among all, the errors it is made of, and what it is worth."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from oracles.counting import Counting
from oracles.gaussian import GaussianWorld, MixtureWorld
from oracles.worlds import SDES, gaussian_world, initial, mixture_world
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.errors import UserError
from lsgm.rng import SeededNoise
from lsgm.sampling import CountedScore, ScoreFunction, draw
from lsgm.sampling import grids as module
from lsgm.sampling.grids import (
    FINE_STEPS,
    GRIDS,
    OPTIMISED,
    TRAJECTORIES,
    GridCache,
    cheapest_path,
    local_errors,
    make_grid,
    time_end_of,
)
from lsgm.sampling.registry import Nodes
from lsgm.sde import VPSDE


def euler_in_s(world: ScoreFunction, z: Tensor, times: Tensor) -> Tensor:
    nodes = Nodes.of(CountedScore(world, len(z)), times)
    for k in range(nodes.steps):
        z = nodes.step(z, k, k + 1, nodes.eps(z, k))
    return z


@pytest.mark.parametrize("steps", range(1, 7))
def test_the_path_is_the_cheapest_of_all(steps: int) -> None:
    nodes = 7
    cost = torch.from_numpy(np.random.default_rng(steps).uniform(size=(nodes, nodes)))
    cost = cost.masked_fill(torch.ones(nodes, nodes).tril().bool(), math.inf)
    paths = [(0, *inner, nodes - 1) for inner in itertools.combinations(range(1, nodes - 1), steps - 1)]
    prices = [sum(float(cost[i, j]) for i, j in itertools.pairwise(path)) for path in paths]
    assert tuple(cheapest_path(cost, steps)) == paths[int(np.argmin(prices))]


@pytest.mark.parametrize("kind", SDES)
def test_the_errors_are_those_of_euler_steps_off_the_exact_flow(kind: str) -> None:
    world = gaussian_world(SDES[kind])
    end = time_end_of(world.sde)
    found = local_errors(world, (3,), end)
    times = make_grid(world.sde, "edm", FINE_STEPS, end)
    z_1 = SeededNoise(range(TRAJECTORIES), stream="optimised grid").normal(3) * world.sde.prior_var**0.5
    s, m = world.sde.sigma(times) / world.sde.mean(times), world.sde.mean(times)
    for i, j in [(0, 10), (0, 60), (20, 25), (30, 50), (45, 60)]:
        z_i, z_j = (world.flow(z_1.double(), 1.0, float(times[k])) for k in (i, j))
        eps = world.eps(z_i, times[i].expand(TRAJECTORIES))
        error = z_i / m[i] + (s[j] - s[i]) * eps - z_j / m[j]
        expected = error.square().mean(1).sqrt().mean()
        # Heun's own error over k = j - i fine steps is of the order of 1/k^2 of Euler's in one: 1/25.
        assert float(found.cost[i, j]) == pytest.approx(float(expected), rel=0.05)
    assert bool(found.cost.tril().diagonal().isinf().all())


@pytest.mark.parametrize("kind", SDES)
def test_of_normal_data_what_lasts_of_an_error_is_what_the_flow_carries_to_the_end(kind: str) -> None:
    world = GaussianWorld(SDES[kind], torch.zeros(3).double(), torch.full((3,), 0.4).double())
    end = time_end_of(world.sde)
    found, times = local_errors(world, (3,), end), make_grid(world.sde, "edm", FINE_STEPS, end)
    m_end = float(world.sde.mean(times[-1]))
    for i, j in [(0, 10), (20, 25), (30, 50), (45, 60)]:
        off = torch.full((1, 3), 1.0, dtype=torch.float64)  # the flow is linear around 0
        left = world.flow(off * world.sde.mean(times[j]), float(times[j]), end) / m_end
        # u_j of the fine trajectories is that of Heun's method: 60 steps, 2 decades of s or 5.
        assert float(found.lasting[i, j]) == pytest.approx(
            float(found.cost[i, j]) * float(left[0, 0]), rel=0.02
        )


def test_few_steps_on_pixels_are_not_spent_where_errors_do_not_last() -> None:
    """Two points in 64 dimensions: as with images, noise is a hundred times the data for half of the path."""
    world = MixtureWorld(
        VPSDE(),
        torch.stack([torch.ones(64), -torch.ones(64)]).double(),
        torch.full((2,), 1e-2).double(),
        torch.full((2,), 0.5).double(),
    )
    z, end = initial(world, 64, 64), 1e-2
    exact = euler_in_s(world, z, make_grid(world.sde, "logsnr", 1000, end))
    config = SamplerConfig(steps=8, grid=OPTIMISED, time_end=end)
    times = torch.tensor(GridCache().resolve(world, (64,), config).times, dtype=torch.float64)
    plain = local_errors(world, (64,), end)
    paper = plain.times[cheapest_path(plain.cost, 8)]

    def error(grid: Tensor) -> float:
        return float((euler_in_s(world, z, grid) - exact).square().mean().sqrt())

    assert error(times) < 0.8 * error(paper)


def test_where_the_flow_is_straight_there_is_nothing_to_choose_and_no_error() -> None:
    """Of a single point, eps = (u - mu) / s is constant along the flow: Euler is exact at any length."""
    point = GaussianWorld(VPSDE(), torch.tensor([0.5, -1.0]).double(), torch.zeros(2).double())
    cost = local_errors(point, (2,), 1e-3).cost
    # u moves by s_1 = 150, and float32 keeps 7 digits of it.
    assert float(cost[cost.isfinite()].max()) < 1e-3


@pytest.mark.parametrize("kind", SDES)
def test_few_steps_lose_less_on_it_than_on_any_other_grid(kind: str) -> None:
    world = mixture_world(SDES[kind])
    z, end, cache = initial(world, 64, 2), time_end_of(world.sde), GridCache()
    exact = euler_in_s(world, z, make_grid(world.sde, "logsnr", 1000, end))

    def error(times: Tensor) -> float:
        return float((euler_in_s(world, z, times) - exact).square().mean().sqrt())

    for steps in (5, 10):
        config = cache.resolve(world, (2,), SamplerConfig(steps=steps, grid=OPTIMISED))
        optimised = error(torch.tensor(config.times, dtype=torch.float64))
        assert optimised < 0.9 * min(error(make_grid(world.sde, name, steps, end)) for name in GRIDS)


@pytest.mark.parametrize("steps", [1, 5, 30, 31, 100])
def test_it_is_a_grid_of_any_number_of_steps_and_the_same_every_time(steps: int) -> None:
    world = mixture_world(SDES["geometric"])
    config = SamplerConfig(steps=steps, grid=OPTIMISED, time_end=0.01)
    first, again = (GridCache().resolve(world, (2,), config).times for _ in range(2))
    assert len(first) == steps + 1
    assert (first[0], first[-1]) == (1.0, 0.01)
    assert all(later < earlier for earlier, later in pairwise(first))
    assert first == again


def test_its_price_is_counted_apart_from_that_of_the_samples() -> None:
    world = Counting(mixture_world(VPSDE()))
    config = SamplerConfig("heun", steps=5, grid=OPTIMISED)
    grid = local_errors(world, (2,), time_end_of(world.sde))
    assert grid.nfe == world.rows == 2 * FINE_STEPS * TRAJECTORIES
    assert grid.seconds > 0
    world.rows = 0
    drawn = draw(world, (2,), range(3), config)
    assert drawn.nfe.tolist() == [10] * 3
    assert world.rows == 30 + grid.nfe


def test_drawing_by_name_is_drawing_at_its_times() -> None:
    world = mixture_world(SDES["subvp"])
    config = SamplerConfig("euler", steps=7, grid=OPTIMISED)
    given = GridCache().resolve(world, (2,), config)
    assert given == replace(config, grid=None, times=given.times)
    assert torch.equal(draw(world, (2,), range(4), config).z, draw(world, (2,), range(4), given).z)


def test_a_cache_measures_a_model_once_for_all_numbers_of_steps() -> None:
    world, cache = Counting(mixture_world(VPSDE())), GridCache()
    for steps in (5, 6, 50):
        cache.resolve(world, (2,), SamplerConfig(steps=steps, grid=OPTIMISED))
        assert world.rows == 2 * FINE_STEPS * TRAJECTORIES
    cache.resolve(world, (2,), SamplerConfig(steps=5, grid=OPTIMISED, time_end=0.1))
    assert world.rows == 2 * 2 * FINE_STEPS * TRAJECTORIES


def test_a_cache_leaves_other_grids_alone() -> None:
    world, config = Counting(mixture_world(VPSDE())), SamplerConfig(steps=5, grid="logsnr")
    assert GridCache().resolve(world, (2,), config) is config
    assert world.rows == 0


def test_trajectories_that_do_not_fit_together_are_followed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    world = mixture_world(VPSDE())
    together = local_errors(world, (2,), 1e-3)
    monkeypatch.setattr(module, "AT_ONCE", 5 * 2 * (FINE_STEPS + 1))
    in_turn = local_errors(world, (2,), 1e-3)
    assert in_turn.nfe == together.nfe
    # Only the order of a float64 sum differs, and vector widths of exp.
    torch.testing.assert_close(in_turn.cost, together.cost, rtol=1e-4, atol=1e-6)


def test_a_model_whose_trajectories_are_not_finite_is_refused() -> None:
    world = GaussianWorld(VPSDE(), torch.full((2,), math.nan).double(), torch.ones(2).double())
    with pytest.raises(UserError, match="optimised grid is made from are not finite; check the weights"):
        draw(world, (2,), [0], SamplerConfig(grid=OPTIMISED))
