"""Predictor-corrector sampling: the published Langevin step, its bias, its cost, and no corrector at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from oracles.chance import standard_scores, wide
from oracles.crowd import Crowd
from oracles.gaussian import GaussianWorld
from oracles.impulses import exact_moments
from oracles.worlds import SDES, gaussian_world, mixture_world

from lsgm.config import SamplerConfig
from lsgm.rng import SeededNoise
from lsgm.sampling import draw, find_sampler
from lsgm.sampling.grids import make_grid, time_end_of
from lsgm.sde import VESDE, VPSDE

PC = SamplerConfig("predictor-corrector", steps=8)


@pytest.mark.parametrize("kind", SDES)
def test_without_corrector_steps_it_is_the_predictor_to_the_bit(kind: str) -> None:
    world = mixture_world(SDES[kind])
    alone = draw(world, (2,), range(6), replace(PC, name="reverse-diffusion"))
    without = draw(world, (2,), range(6), replace(PC, corrector_steps=0))
    assert torch.equal(without.z, alone.z)
    assert torch.equal(without.nfe, alone.nfe)


@pytest.mark.parametrize("sde", [VPSDE(), VESDE(1e-4, 25.0)])
def test_one_step_is_that_of_the_published_algorithms(sde: VPSDE | VESDE) -> None:
    """Algorithms 4 and 5 with the norms that d dimensions have on average: ||n|| / ||score|| = sigma."""
    world, times, snr = gaussian_world(sde), (1.0, 0.8), 0.3
    one, late = torch.tensor(times, dtype=torch.float64)
    noise = SeededNoise([5], stream="sampler")
    z = noise.normal(3, dtype=torch.float64) * sde.prior_var**0.5
    growth = sde.var(one) - sde.var(late) * (sde.mean(one) / sde.mean(late)) ** 2
    alpha = 1 - growth if isinstance(sde, VPSDE) else torch.ones(()).double()
    for _ in range(2):
        score, fresh = world.score64(z, one[None]), noise.normal(3, dtype=torch.float64)
        epsilon = 2 * alpha * snr**2 * sde.var(one)
        z = z + epsilon * score + (2 * epsilon).sqrt() * fresh
    fresh = noise.normal(3, dtype=torch.float64)
    keep = 2 - alpha.sqrt() if isinstance(sde, VPSDE) else 1.0
    score = world.score64(z, one[None])
    # The predictor's noise is drawn after its evaluation, as the last draw.
    z = keep * z + growth * score + growth.sqrt() * fresh
    config = SamplerConfig("predictor-corrector", times=times, corrector_steps=2, snr=snr)
    drawn = draw(world, (3,), [5], config, dtype=torch.float64)
    torch.testing.assert_close(drawn.z, z, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_every_corrector_step_costs_an_evaluation(count: int) -> None:
    config = replace(PC, corrector_steps=count)
    drawn = draw(gaussian_world(VPSDE()), (3,), range(4), config)
    assert drawn.nfe.tolist() == [8 * (1 + count)] * 4
    assert find_sampler(PC.name).evaluations(config) == 8 * (1 + count)
    assert find_sampler(PC.name).steps_within(50, config) == 50 // (1 + count)


@pytest.mark.parametrize("size", [1, 4, 8, 100])
def test_langevin_steps_leave_the_bias_that_their_length_implies(size: int) -> None:
    """z (1 - a) + sqrt(2 a V) n with a = 2 snr^2 has variance V / (1 - snr^2) where it stays, in every d."""
    rows, snr = 20_000 // size, 0.3
    world = GaussianWorld(VPSDE(), torch.zeros(size).double(), torch.ones(size).double())
    # Two times so close that nothing else happens between them.
    times, config = (1.0, 1 - 1e-9), replace(PC, corrector_steps=20, snr=snr)
    drawn = draw(world, (size,), Crowd(rows), replace(config, times=times), dtype=torch.float64)
    # 20,000 independent numbers: a standard error of sqrt(2 / 20,000) = 1 %, and what 20 steps leave of the
    # variance they began with, (1 - a)^40 = 4e-4.
    assert float(drawn.z.square().mean()) == pytest.approx(1 / (1 - snr**2), rel=0.04)


@pytest.mark.parametrize("kind", SDES)
def test_coarse_samples_have_the_moments_of_steps_of_known_length(kind: str) -> None:
    """No norm is taken of anything drawn, so that samples are affine in their noise."""
    world, config = gaussian_world(SDES[kind]), replace(PC, steps=12, corrector_steps=2)
    times = make_grid(world.sde, world.sde.grid, 12, time_end_of(world.sde))
    drawn = draw(wide(world, 32), (96,), range(60), config, dtype=torch.float64)
    assert standard_scores(drawn.z, *exact_moments(world, config, times, from_prior=True)).abs().max() < 4


@pytest.mark.parametrize("kind", ["vp", "ve"])
def test_the_corrector_mends_a_coarse_predictor(kind: str) -> None:
    """At 20 steps the predictor adds far too much noise; three Langevin steps a time halve the error.

    Langevin steps of snr = 0.3 leave up to 10 % too much, a third of what they mend.
    """
    world = gaussian_world(SDES[kind])
    _, var = world.moments(time_end_of(world.sde))

    def error(count: int) -> float:
        config = replace(PC, steps=20, corrector_steps=count, snr=0.3, denoise=True)
        drawn = draw(wide(world, 32), (96,), range(40), config, dtype=torch.float64)
        return float((drawn.z.view(-1, 3).var(0) / var - 1).abs().max())

    assert error(3) < 0.5 * error(0)


def test_a_sample_does_not_depend_on_those_beside_it() -> None:
    """A neighbour of another size changes nothing, which a mean of norms over the batch would."""
    world = mixture_world(VPSDE())
    alone = draw(world, (2,), [7], PC, dtype=torch.float64)
    beside = draw(world, (2,), [1, 7, 2], PC, dtype=torch.float64)
    torch.testing.assert_close(beside.z[1], alone.z[0], rtol=1e-12, atol=1e-12)


def test_images_keep_their_shape_and_type() -> None:
    world = wide(gaussian_world(VPSDE()), 2)
    flat = draw(world, (6,), range(3), PC)
    image = draw(_AsImages(world), (1, 2, 3), range(3), PC)
    assert image.z.shape == (3, 1, 2, 3)
    torch.testing.assert_close(image.z.flatten(1), flat.z, rtol=1e-5, atol=1e-5)


class _AsImages:
    """A flat world seen as images of one channel."""

    def __init__(self, world: GaussianWorld) -> None:
        self.world, self.sde = world, world.sde

    def eps(self, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.world.eps(z.flatten(1), t).view_as(z)

    drift = eps
