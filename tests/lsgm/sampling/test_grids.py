"""Grids of times: each even in the coordinate it is named for, under every SDE, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from oracles.worlds import SDES, gaussian_world
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.errors import ConfigError
from lsgm.sampling import draw, find_sampler, samplers
from lsgm.sampling import registry as table
from lsgm.sampling.grids import GRIDS, OPTIMISED, log_snr, make_grid, time_end_of, times_at
from lsgm.sde import SDE, VESDE, VPSDE, SubVPSDE

EVEN_IN: dict[str, Callable[[SDE, Tensor], Tensor]] = {
    "uniform": lambda sde, t: t,
    "quadratic": lambda sde, t: t.sqrt(),
    "logsnr": lambda sde, t: (sde.mean(t).square() / sde.var(t)).log(),
    "edm": lambda sde, t: (sde.sigma(t) / sde.mean(t)) ** (1 / 7),
    "geometric": lambda sde, t: sde.var(t).log(),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("kind", SDES)
def test_a_grid_falls_from_one_to_the_end_in_even_steps_of_its_coordinate(kind: str, name: str) -> None:
    sde = SDES[kind]
    end = time_end_of(sde)
    times = make_grid(sde, name, 17, end)
    assert times.dtype == torch.float64
    assert times.shape == (18,)
    assert (times[0].item(), times[-1].item()) == (1.0, end)
    assert bool((times.diff() < 0).all())
    gaps = EVEN_IN[name](sde, times).diff()
    # Where the coordinate saturates (sigma_t^2 near 1) its own rounding of 1e-16 is 1e-13 of a gap.
    torch.testing.assert_close(gaps, gaps.mean().expand(17), rtol=1e-9, atol=0)


def test_every_grid_has_its_coordinate_in_this_file() -> None:
    assert EVEN_IN.keys() == set(GRIDS)


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_the_edm_grid_is_equation_5_in_the_variance_exploding_world(rho: float) -> None:
    sde, steps = VESDE(sigma2_min=0.002**2, sigma2_max=80.0**2), 18
    i = torch.arange(steps, dtype=torch.float64) / (steps - 1)
    published = (80 ** (1 / rho) + i * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
    sigma = sde.sigma(make_grid(sde, "edm", steps - 1, 0.0, rho))
    torch.testing.assert_close(sigma, published, rtol=1e-9, atol=0)


def test_rho_reaches_the_grid_through_the_options() -> None:
    world = gaussian_world(SDES["ve"])
    times = make_grid(world.sde, "edm", 6, 0.0, rho=2.0)
    config = SamplerConfig("heun", steps=6, grid="edm", rho=2.0)
    given = SamplerConfig("heun", times=tuple(times.tolist()))
    assert torch.equal(draw(world, (3,), [0], config).z, draw(world, (3,), [0], given).z)


@pytest.mark.parametrize("kind", SDES)
def test_bisection_inverts_the_log_snr(kind: str) -> None:
    sde = SDES[kind]
    t = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    found = times_at(lambda t: -log_snr(sde, t), -log_snr(sde, t), 1e-3)
    torch.testing.assert_close(found, t, rtol=1e-9, atol=0)


def test_bisection_stops_at_the_ends() -> None:
    found = times_at(lambda t: t, torch.tensor([-1.0, 0.5, 2.0]).double(), 0.25)
    torch.testing.assert_close(found, torch.tensor([0.25, 0.5, 1.0]).double())


def test_a_variance_that_dips_before_it_grows_has_a_geometric_grid_all_the_same() -> None:
    sde = SubVPSDE(sigma2_0=0.1)
    times = make_grid(sde, "geometric", 40, 0.0)
    assert bool((sde.var(times[-2:]).diff() < 0).all())
    assert bool((times.diff() < 0).all())


@pytest.mark.parametrize("name", [*GRIDS, OPTIMISED])
def test_a_grid_without_noise_at_its_end_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"time-end is 0\.0, where VPSDE has no noise yet; give"):
        draw(gaussian_world(VPSDE()), (3,), [0], SamplerConfig("heun", steps=4, grid=name, time_end=0.0))


def test_a_grid_of_another_name_is_answered_with_the_closest() -> None:
    with pytest.raises(ConfigError, match="unknown grid 'optimized'; did you mean 'optimised'"):
        draw(gaussian_world(VPSDE()), (3,), [0], SamplerConfig("heun", grid="optimized"))


def test_times_without_noise_at_their_end_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"time-end is 0\.0, where VPSDE has no noise yet"):
        draw(gaussian_world(VPSDE()), (3,), [0], SamplerConfig("heun", times=(1.0, 0.5, 0.0)))


@pytest.mark.parametrize("times", [(1.0, 0.5, 0.5, 0.1), (1.0, 0.1, 0.5), (0.9, 0.1), (1.0,)])
def test_times_that_repeat_turn_back_or_begin_late_are_refused(times: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match=r"^times "):
        SamplerConfig("heun", times=times)


def test_the_optimised_grid_needs_a_model() -> None:
    with pytest.raises(ConfigError, match="grid optimised is made for a model"):
        make_grid(VPSDE(), OPTIMISED, 5, 1e-3)


@pytest.mark.parametrize("name", [sampler.name for sampler in samplers() if sampler.adaptive])
@pytest.mark.parametrize("config", [SamplerConfig(times=(1.0, 0.1)), SamplerConfig(grid="uniform")])
def test_a_solver_that_chooses_its_steps_takes_no_grid(name: str, config: SamplerConfig) -> None:
    with pytest.raises(
        ConfigError, match=f"sampler '{name}' chooses its own steps; leave out times and grid"
    ):
        draw(gaussian_world(VPSDE()), (3,), [0], replace(config, name=name))


def test_a_grid_beside_times_is_refused() -> None:
    with pytest.raises(ConfigError, match="give one of the two"):
        draw(gaussian_world(VPSDE()), (3,), [0], SamplerConfig(times=(1.0, 0.1)), grid="uniform")


def test_fewer_given_times_than_a_sampler_needs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    demanding = replace(find_sampler("heun"), name="demanding", min_steps=3)
    monkeypatch.setitem(table._SAMPLERS, "demanding", demanding)
    with pytest.raises(ConfigError, match="steps is 2, but sampler 'demanding' needs at least 3"):
        draw(gaussian_world(VPSDE()), (3,), [0], SamplerConfig("demanding", times=(1.0, 0.5, 0.1)))


def test_a_sampler_that_needs_a_variance_preserving_sde_refuses_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picky = replace(find_sampler("heun"), name="picky", vp_only=True)
    monkeypatch.setitem(table._SAMPLERS, "picky", picky)
    with pytest.raises(ConfigError, match=r"'picky' needs a variance preserving SDE .* not VESDE; choose"):
        draw(gaussian_world(SDES["ve"]), (3,), [0], SamplerConfig("picky"))
