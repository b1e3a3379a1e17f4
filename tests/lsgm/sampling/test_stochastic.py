"""Samplers with noise: moments of Gaussian worlds in every SDE, weak order, seeds, temperature."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from oracles.chance import standard_scores, wide
from oracles.gaussian import GaussianWorld
from oracles.impulses import exact_moments
from oracles.worlds import SDES, gaussian_world, mixture_world

from lsgm.config import SamplerConfig
from lsgm.rng import SeededNoise
from lsgm.sampling import draw, find_sampler, samplers
from lsgm.sampling.grids import make_grid, time_end_of
from lsgm.sde import SDE, VESDE, VPSDE, SubVPSDE

AFFINE = ("ancestral", "ancestral-posterior", "euler-maruyama", "reverse-diffusion")
"""Samplers whose noise is scaled by numbers alone, so that their moments are known without chance."""
CHANCE = (
    *(SamplerConfig(name) for name in (*AFFINE, "predictor-corrector")),
    SamplerConfig("ddim", eta=1.0),
    SamplerConfig("edm-euler", churn=20.0),
    SamplerConfig("edm-heun", churn=20.0),
    SamplerConfig("dpmpp-2m-sde"),
)
"""Every sampler that draws noise, with the options under which it does."""


def named(config: SamplerConfig) -> str:
    return config.name


def error_of(world: GaussianWorld, config: SamplerConfig) -> float:
    """The largest error of a mean, in standard deviations, or of a variance, as a share of it."""
    end = time_end_of(world.sde)
    times = make_grid(world.sde, config.grid or world.sde.grid, config.steps, end)
    mean, var = world.moments(end)
    if find_sampler(config.name).denoises:  # E[z_0 | z_end] = mu + m s2 / var (z_end - m mu)
        gain = world.sde.mean(times[-1]) * world.s2 / var
        mean, var = world.mu, gain.square() * var
    got = exact_moments(world, config, times)
    return float(torch.cat([(got[0] - mean) / var.sqrt(), got[1] / var - 1]).abs().max())


def test_every_stochastic_sampler_of_the_table_is_tested_here() -> None:
    random = {sampler.name for sampler in samplers() if sampler.stochastic}
    assert random <= {config.name for config in CHANCE}


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize("kind", SDES)
def test_the_weak_error_falls_in_proportion_to_the_step(kind: str, name: str) -> None:
    world = gaussian_world(SDES[kind])
    errors = [error_of(world, SamplerConfig(name, steps=n, grid="logsnr")) for n in (400, 800)]
    assert find_sampler(name).order == 1
    assert errors[1] < 0.03
    # The next term of the expansion is a few per cent of the first at these steps.
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize("config", CHANCE, ids=named)
@pytest.mark.parametrize("kind", SDES)
def test_samples_have_the_mean_and_covariance_of_the_world(kind: str, config: SamplerConfig) -> None:
    """From the prior to the end, by chance alone: nothing here knows how a sampler steps."""
    world, rows, copies, steps = gaussian_world(SDES[kind]), 25, 24, 250
    config = replace(config, steps=steps, snr=0.05)
    drawn = draw(wide(world, copies), (3 * copies,), range(rows), config, dtype=torch.float64)
    scores = standard_scores(drawn.z, *world.moments(time_end_of(world.sde)))
    # 9 standard scores of fixed seeds over 600 samples; the bias that 250 steps leave is at most one of them.
    assert scores.abs().max() < 4.5


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize("kind", SDES)
def test_coarse_samples_have_their_exact_moments_and_are_independent(kind: str, name: str) -> None:
    world, config = gaussian_world(SDES[kind]), SamplerConfig(name, steps=12)
    times = make_grid(world.sde, world.sde.grid, 12, time_end_of(world.sde))
    drawn = draw(wide(world, 32), (96,), range(60), config, dtype=torch.float64)
    assert standard_scores(drawn.z, *exact_moments(world, config, times, from_prior=True)).abs().max() < 4


@pytest.mark.parametrize("sde", [VPSDE(), SubVPSDE(), VESDE(1e-4, 25.0)])
def test_euler_maruyama_is_the_textbook_step(sde: SDE) -> None:
    """z + (-f z + g^2 score) h + g sqrt(h) n, with the score in closed form."""
    world = gaussian_world(sde)
    times = make_grid(sde, "uniform", 3, time_end_of(sde))
    noise = SeededNoise(range(4), stream="sampler")
    z = noise.normal(3, dtype=torch.float64) * sde.prior_var**0.5
    for t, t_next in pairwise(times):
        h, score = t - t_next, world.score64(z, t.expand(4))
        fresh = noise.normal(3, dtype=torch.float64)
        z = z + h * (sde.g2(t) * score - sde.f(t) * z) + (sde.g2(t) * h).sqrt() * fresh
    drawn = draw(
        world, (3,), range(4), SamplerConfig("euler-maruyama", steps=3, grid="uniform"), dtype=z.dtype
    )
    torch.testing.assert_close(drawn.z, z, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sde", [VPSDE(), VESDE(1e-4, 25.0)])
def test_reverse_diffusion_is_the_published_step(sde: SDE) -> None:
    """The predictors of algorithms 2 (VE) and 3 (VP): (2 - sqrt(1 - beta)) z + beta score + sqrt(beta) n."""
    world = gaussian_world(sde)
    times = make_grid(sde, "uniform", 5, time_end_of(sde))
    noise = SeededNoise(range(4), stream="sampler")
    z = noise.normal(3, dtype=torch.float64) * sde.prior_var**0.5
    for t, t_next in pairwise(times):
        score = world.score64(z, t.expand(4))
        fresh = noise.normal(3, dtype=torch.float64)
        if isinstance(sde, VESDE):
            growth = sde.var(t) - sde.var(t_next)
            z = z + growth * score + growth.sqrt() * fresh
        else:
            beta = 1 - (sde.one_minus_var(t) / sde.one_minus_var(t_next))
            z = (2 - (1 - beta).sqrt()) * z + beta * score + beta.sqrt() * fresh
    drawn = draw(world, (3,), range(4), SamplerConfig("reverse-diffusion", steps=5), dtype=z.dtype)
    torch.testing.assert_close(drawn.z, z, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("config", CHANCE, ids=named)
@pytest.mark.parametrize("kind", SDES)
def test_temperature_scales_all_noise(kind: str, config: SamplerConfig) -> None:
    """A Gaussian world of mean zero is linear: every sample scales with its noise."""
    world = GaussianWorld(SDES[kind], torch.zeros(3).double(), torch.tensor([0.5, 1.0, 2.0]).double())
    config = replace(config, steps=6)
    plain = draw(world, (3,), range(4), config, dtype=torch.float64)
    cool = draw(world, (3,), range(4), replace(config, temperature=0.25), dtype=torch.float64)
    torch.testing.assert_close(cool.z, 0.25 * plain.z, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("config", CHANCE, ids=named)
def test_float32_samples_are_those_of_float64(config: SamplerConfig) -> None:
    world, config = mixture_world(VPSDE()), replace(config, steps=15, grid="uniform")
    assert draw(world, (2,), [0], config).z.dtype == torch.float32
    doubles = FromSingles(range(8), stream="sampler")
    fine = draw(world, (2,), doubles, config, dtype=torch.float64)
    # 15 steps, each of 1e-7 of numbers that z_1 / m_1 makes some hundred times larger on the way back.
    torch.testing.assert_close(draw(world, (2,), range(8), config).z.double(), fine.z, rtol=0, atol=1e-4)


class FromSingles(SeededNoise):
    """The numbers that float32 would get, in float64."""

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return super().normal(*shape).to(dtype)
