"""Adams-Bashforth in (u, s) against diffusers, SciPy's quadrature and itself on even steps."""

from __future__ import annotations

import pytest
import torch
from numpy.polynomial import Polynomial
from oracles.convergence import TimeOnly, even_in, measured_orders
from oracles.worlds import SDES, gaussian_world, initial, mixture_world
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.rng import SeededNoise
from lsgm.sampling import CountedScore, draw, find_sampler
from lsgm.sampling.grids import make_grid, time_end_of


@pytest.mark.parametrize("steps", [2, 5, 20])
@pytest.mark.parametrize("kind", SDES)
def test_fixed_weights_are_those_of_diffusers(kind: str, steps: int) -> None:
    diffusers = pytest.importorskip("diffusers")
    world = mixture_world(SDES[kind])
    times = make_grid(world.sde, "logsnr", steps, time_end_of(world.sde))
    m, sigma = world.sde.mean(times), world.sde.sigma(times)
    scale = (m.square() + sigma.square()).sqrt()
    scheduler = diffusers.IPNDMScheduler()
    scheduler.set_timesteps(steps)
    scheduler.alphas, scheduler.betas = m / scale, sigma / scale
    x = initial(world, 8, 2) / scale[0]
    for k, timestep in enumerate(scheduler.timesteps):
        eps = world.eps(x * scale[k], times[k].expand(len(x)))
        velocity = (eps - scheduler.betas[k] * x) / scheduler.alphas[k]  # what its networks predict
        x = scheduler.step(velocity, timestep, x).prev_sample
    config = SamplerConfig("ipndm-4", times=tuple(times.tolist()))
    ours = draw(world, (2,), range(8), config, dtype=torch.float64)
    torch.testing.assert_close(ours.z, x * scale[-1], rtol=0, atol=1e-8)
    assert ours.nfe.tolist() == [steps] * 8


@pytest.mark.parametrize("kind", SDES)
def test_on_steps_even_in_s_the_two_are_one(kind: str) -> None:
    world = mixture_world(SDES[kind])
    times, z = even_in(world.sde, "s", 30), initial(world, 8, 2)
    fixed, variable = (
        find_sampler(name).run(CountedScore(world, 8), z, times, SeededNoise(range(8)), SamplerConfig())
        for name in ("ipndm-4", "ipndmv-4")
    )
    torch.testing.assert_close(fixed, variable, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", SDES)
def test_a_cubic_slope_is_integrated_exactly_on_uneven_steps_once_the_history_is_full(kind: str) -> None:
    """A cubic in s that is 0 at the first three nodes leaves nothing to the steps of lower order."""
    sde, t = SDES[kind], (1.0, 0.9, 0.75, 0.7, 0.5, 0.2)
    at = torch.tensor(t, dtype=torch.float64)
    m, s = sde.mean(at), (sde.sigma(at) / sde.mean(at)).tolist()
    cubic = Polynomial.fromroots(s[:3]) / s[0] ** 3
    world = TimeOnly(sde, lambda at: torch.from_numpy(cubic((sde.sigma(at) / sde.mean(at)).numpy())))
    drawn = draw(world, (3,), range(2), SamplerConfig("ipndmv-4", times=t), dtype=torch.float64)
    integral = cubic.integ()(s[-1]) - cubic.integ()(s[3])
    exact = m[-1] * (initial(world, 2, 3) / m[0] + float(integral))
    torch.testing.assert_close(drawn.z, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", SDES)
def test_fixed_weights_are_of_order_two_where_steps_are_smooth_but_uneven_in_s(kind: str) -> None:
    assert measured_orders("ipndm-4", SDES[kind], "t", (128, 256, 512)) == pytest.approx([2, 2], abs=0.15)


@pytest.mark.parametrize("kind", SDES)
def test_variable_weights_are_of_order_two_at_least_on_any_smooth_steps(kind: str) -> None:
    assert min(measured_orders("ipndmv-4", SDES[kind], "t", (64, 128, 256))) > 1.8


def test_fixed_weights_are_of_order_one_where_steps_change_abruptly() -> None:
    """Every second step twice as long as the one before: the slopes are taken for others than they are."""
    world = gaussian_world(SDES["ve"])
    z = initial(world, 4, 3)
    exact = world.flow(z, 0.9, 0.3)

    def error(name: str, pairs: int) -> float:
        times = even_in(world.sde, "s", 3 * pairs, 0.9, 0.3)
        uneven = times[[k for k in range(3 * pairs + 1) if k % 3 != 1]]
        score, noise = CountedScore(world, 4), SeededNoise(range(4))
        out = find_sampler(name).run(score, z, uneven, noise, SamplerConfig())
        assert isinstance(out, Tensor)
        return float((out - exact).abs().max())

    assert error("ipndm-4", 100) / error("ipndm-4", 200) == pytest.approx(2, abs=0.3)
    assert error("ipndmv-4", 100) / error("ipndmv-4", 200) > 3.5


@pytest.mark.parametrize("name", ["ipndm-4", "ipndmv-4"])
def test_its_first_step_is_that_of_ddim(name: str) -> None:
    world = mixture_world(SDES["subvp"])
    one, ddim = (
        draw(world, (2,), range(4), SamplerConfig(each, times=(1.0, 0.7)), dtype=torch.float64).z
        for each in (name, "ddim")
    )
    torch.testing.assert_close(one, ddim, rtol=1e-9, atol=1e-9)
