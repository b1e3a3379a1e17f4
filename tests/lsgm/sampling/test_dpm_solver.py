"""DPM-Solver++ against diffusers, its orders, and the samplers that its first steps are."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from oracles.ddpm import TRAINED, ladder
from oracles.impulses import exact_moments
from oracles.schedulers import scheduled
from oracles.worlds import SDES, gaussian_world, initial, mixture_world

from lsgm.config import SamplerConfig
from lsgm.rng import SeededNoise
from lsgm.sampling import draw
from lsgm.sampling.grids import make_grid, time_end_of
from lsgm.sde import VPSDE

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers, under NumPy 2


@pytest.mark.parametrize("steps", [2, 10, 20])
@pytest.mark.parametrize(("name", "order"), [("dpmpp-2m", 2), ("dpmpp-3m", 3)])
@pytest.mark.parametrize("kind", SDES)
def test_it_is_that_of_diffusers(kind: str, name: str, order: int, steps: int) -> None:
    world = mixture_world(SDES[kind])
    times = make_grid(world.sde, "logsnr", steps, time_end_of(world.sde))
    scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=order, final_sigmas_type="sigma_min")
    theirs = scheduled(scheduler, world, initial(world, 8, 2), times)
    ours = draw(world, (2,), range(8), SamplerConfig(name, times=tuple(times.tolist())), dtype=torch.float64)
    torch.testing.assert_close(ours.z, theirs, rtol=0, atol=1e-5)
    assert ours.nfe.tolist() == [steps] * 8


@pytest.mark.parametrize("steps", [10, 25])
def test_it_is_that_of_diffusers_on_its_own_grid(steps: int) -> None:
    """There the last step is the longest by far in lambda, and of order 1 in both."""
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **TRAINED, final_sigmas_type="sigma_min", euler_at_final=True
    )
    scheduler.set_timesteps(steps)
    rungs = ladder(scheduler.alphas_cumprod, [*scheduler.timesteps.tolist(), 0])
    z = SeededNoise(range(8), stream="sampler").normal(2, dtype=torch.float64)
    for k, timestep in enumerate(rungs.timesteps[:-1]):
        z = scheduler.step(rungs.eps(z, k), timestep, z).prev_sample
    config = SamplerConfig("dpmpp-2m", times=rungs.times)
    ours = draw(rungs.world, (2,), range(8), config, dtype=torch.float64)
    torch.testing.assert_close(ours.z, z, rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [2, 10, 20])
@pytest.mark.parametrize("kind", SDES)
def test_its_stochastic_form_is_that_of_diffusers_with_the_same_noise(kind: str, steps: int) -> None:
    world = mixture_world(SDES[kind])
    times = make_grid(world.sde, "logsnr", steps, time_end_of(world.sde))
    noise = SeededNoise(range(8), stream="sampler")
    z = noise.normal(2, dtype=torch.float64) * world.sde.prior_var**0.5
    fresh = [noise.normal(2, dtype=torch.float64) for _ in range(steps)]
    scheduler = diffusers.DPMSolverMultistepScheduler(
        algorithm_type="sde-dpmsolver++", final_sigmas_type="sigma_min"
    )
    theirs = scheduled(scheduler, world, z, times, fresh)
    config = SamplerConfig("dpmpp-2m-sde", times=tuple(times.tolist()))
    ours = draw(world, (2,), range(8), config, dtype=torch.float64)
    torch.testing.assert_close(ours.z, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", SDES)
def test_the_weak_order_of_the_stochastic_form_is_two(kind: str) -> None:
    world = gaussian_world(SDES[kind])
    end = time_end_of(world.sde)
    mean, var = world.moments(end)

    def error(steps: int) -> float:
        times = make_grid(world.sde, "logsnr", steps, end)
        got_mean, got_var = exact_moments(world, SamplerConfig("dpmpp-2m-sde"), times)
        return float(torch.cat([(got_mean - mean) / var.sqrt(), got_var / var - 1]).abs().max())

    errors = [error(steps) for steps in (100, 200, 400)]
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert orders == pytest.approx([2, 2], abs=0.2)
    assert errors[-1] < 0.01


@pytest.mark.parametrize(("name", "eta"), [("dpmpp-2m", 0.0), ("dpmpp-3m", 0.0), ("dpmpp-2m-sde", 1.0)])
@pytest.mark.parametrize("kind", SDES)
def test_its_first_step_is_that_of_ddim(kind: str, name: str, eta: float) -> None:
    world = mixture_world(SDES[kind])
    first = draw(world, (2,), range(4), SamplerConfig(name, times=(1.0, 0.8)), dtype=torch.float64)
    config = SamplerConfig("ddim", times=(1.0, 0.8), eta=eta)
    ddim = draw(world, (2,), range(4), config, dtype=torch.float64)
    torch.testing.assert_close(first.z, ddim.z, rtol=1e-9, atol=1e-9)


def test_a_long_last_step_does_no_harm_on_the_grid_even_in_t() -> None:
    world = gaussian_world(VPSDE())
    exact = world.flow(initial(world, 32, 3), 1.0, 1e-5)

    def error(name: str, grid: str) -> float:
        drawn = draw(world, (3,), range(32), SamplerConfig(name, steps=20, grid=grid), dtype=torch.float64)
        return float((drawn.z - exact).square().mean().sqrt())

    for name in ("dpmpp-2m", "dpmpp-3m", "unipc-2", "unipc-3"):
        assert error(name, "uniform") < 0.1
        assert error(name, "logsnr") < 0.03


def test_temperature_zooms_the_noise_of_the_stochastic_form() -> None:
    world = gaussian_world(VPSDE())
    at = [
        draw(world, (3,), range(4), SamplerConfig("dpmpp-2m-sde", temperature=x), dtype=torch.float64).z
        for x in (0.5, 1.0, 1.5)
    ]
    # The sampler is affine in its noise in a Gaussian world.
    torch.testing.assert_close(at[1] - at[0], at[2] - at[1], rtol=1e-6, atol=1e-8)
