"""DDIM against diffusers, the probability flow and the ancestral sampler."""

from __future__ import annotations

import pytest
import torch
from oracles.chance import standard_scores, wide
from oracles.ddpm import TRAINED, ladder
from oracles.impulses import exact_moments
from oracles.worlds import SDES, gaussian_world, initial

from lsgm.config import SamplerConfig
from lsgm.rng import SeededNoise
from lsgm.sampling import draw
from lsgm.sampling.grids import make_grid, time_end_of
from lsgm.sde import VPSDE


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_is_that_of_diffusers(eta: float) -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(**TRAINED, clip_sample=False)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.set_timesteps(20)
    steps = ladder(scheduler.alphas_cumprod, scheduler.timesteps.tolist())
    noise = SeededNoise(range(8), stream="sampler")
    z = noise.normal(2, dtype=torch.float64)
    for k, timestep in enumerate(steps.timesteps):
        last = k == 19  # there diffusers takes the noise of a time of variance 0: none
        fresh = torch.zeros_like(z) if last or eta == 0 else noise.normal(2, dtype=torch.float64)
        z = scheduler.step(steps.eps(z, k), timestep, z, eta=eta, variance_noise=fresh).prev_sample
    config = SamplerConfig("ddim", times=steps.times, eta=eta, denoise=True)
    drawn = draw(steps.world, (2,), range(8), config, dtype=torch.float64)
    torch.testing.assert_close(drawn.z, z, rtol=0, atol=1e-5)
    assert drawn.nfe.tolist() == [20] * 8


@pytest.mark.parametrize("kind", SDES)
def test_eta_one_is_the_ancestral_sampler_before_its_last_step(kind: str) -> None:
    sde = SDES[kind]
    times = tuple(make_grid(sde, sde.grid, 12, time_end_of(sde)).tolist())
    kwargs = {"shape": (3,), "seeds": range(6), "dtype": torch.float64}
    ancestral = draw(gaussian_world(sde), config=SamplerConfig("ancestral-posterior", times=times), **kwargs)
    config = SamplerConfig("ddim", times=times[:-1], eta=1.0, denoise=True)
    ddim = draw(gaussian_world(sde), config=config, **kwargs)
    torch.testing.assert_close(ddim.z, ancestral.z, rtol=1e-9, atol=1e-9)
    assert torch.equal(ddim.nfe, ancestral.nfe)


@pytest.mark.parametrize("kind", SDES)
def test_without_eta_it_follows_the_probability_flow(kind: str) -> None:
    world = gaussian_world(SDES[kind])
    exact = world.flow(initial(world, 4, 3), 1.0, time_end_of(world.sde))

    def error(steps: int) -> float:
        config = SamplerConfig("ddim", steps=steps, grid="logsnr")
        return float((draw(world, (3,), range(4), config, dtype=torch.float64).z - exact).abs().max())

    # Order 1: the error halves, but for the next term of its expansion.
    assert error(400) / error(800) == pytest.approx(2, abs=0.1)
    assert error(800) < 0.03


def test_where_the_latents_are_a_point_one_step_is_exact() -> None:
    """du/ds = eps is a straight line towards a single z_0, and Euler's step its own solution."""
    world = gaussian_world(VPSDE())
    point = type(world)(world.sde, world.mu, torch.zeros_like(world.s2))
    drawn = draw(point, (3,), range(3), SamplerConfig("ddim", steps=1), dtype=torch.float64)
    exact = point.flow(initial(point, 3, 3), 1.0, 1e-5)
    torch.testing.assert_close(drawn.z, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("kind", SDES)
def test_noise_keeps_mean_and_variance_of_a_gaussian_world(kind: str, eta: float) -> None:
    world = gaussian_world(SDES[kind])
    end = time_end_of(world.sde)
    mean, var = world.moments(end)

    def error(steps: int) -> float:
        times = make_grid(world.sde, "logsnr", steps, end)
        got = exact_moments(world, SamplerConfig("ddim", steps=steps, eta=eta), times)
        return float(torch.cat([(got[0] - mean) / var.sqrt(), got[1] / var - 1]).abs().max())

    # Order 1 up to the next term: 1.87 to 2.03 is measured.
    assert error(200) / error(400) == pytest.approx(2, abs=0.2)
    assert error(400) < 0.05


def test_noise_is_as_large_as_its_exact_moments_say_and_independent() -> None:
    world, config = gaussian_world(SDES["subvp"]), SamplerConfig("ddim", steps=25, eta=0.7)
    times = make_grid(world.sde, "uniform", 25, time_end_of(world.sde))
    drawn = draw(wide(world, 32), (96,), range(60), config, dtype=torch.float64)
    # 9 standard scores of fixed seeds.
    assert standard_scores(drawn.z, *exact_moments(world, config, times, from_prior=True)).abs().max() < 4
