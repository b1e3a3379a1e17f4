"""The table of samplers, the grids of times, and how a wrong choice is answered."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from oracles.worlds import SDES, gaussian_world, initial

from lsgm.config import SamplerConfig
from lsgm.errors import ConfigError
from lsgm.samplers import draw, find_sampler, register, sampler_names, samplers
from lsgm.samplers import registry as table
from lsgm.samplers.grids import make_grid, time_end_of
from lsgm.sde import VPSDE


@pytest.mark.parametrize("kind", SDES)
def test_grids_fall_from_one_to_the_end(kind: str) -> None:
    sde = SDES[kind]
    end = time_end_of(sde)
    for name in ("uniform", "logsnr"):
        times = make_grid(sde, name, 12, end)
        assert times.shape == (13,)
        assert (times[0].item(), times[-1].item()) == (1.0, end)
        assert bool((times.diff() < 0).all())


@pytest.mark.parametrize("kind", SDES)
def test_twenty_heun_steps_on_the_default_grid_come_close_under_every_sde(kind: str) -> None:
    world = gaussian_world(SDES[kind])
    drawn = draw(world, (3,), range(16), SamplerConfig("heun", steps=20), dtype=torch.float64)
    exact = world.flow(initial(world, 16, 3), 1.0, time_end_of(world.sde))
    # 0.002 (vp) to 0.03 (geometric) of standard deviations around 1; 2.2 for geometric on the uniform grid.
    assert float((drawn.z - exact).square().mean().sqrt()) < 0.05


@pytest.mark.parametrize("kind", SDES)
def test_the_log_snr_grid_is_even_in_log_snr(kind: str) -> None:
    sde = SDES[kind]
    times = make_grid(sde, "logsnr", 10, max(time_end_of(sde), 1e-3))
    gaps = (2 * sde.mean(times).log() - sde.var(times).log()).diff()
    torch.testing.assert_close(gaps, gaps.mean().expand(10), rtol=1e-6, atol=0)


def test_the_default_end_is_where_there_is_noise() -> None:
    assert time_end_of(VPSDE()) == 1e-5
    assert time_end_of(VPSDE(sigma2_0=1e-3)) == 0.0
    assert time_end_of(VPSDE(), 0.01) == 0.01


def test_an_end_without_noise_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"time-end is 0\.0, where VPSDE has no noise yet; give"):
        draw(gaussian_world(VPSDE()), (3,), [0], SamplerConfig(time_end=0.0))


def test_an_unknown_sampler_is_answered_with_the_closest_name() -> None:
    with pytest.raises(ConfigError, match="unknown sampler 'huen'; did you mean 'heun'"):
        draw(gaussian_world(VPSDE()), (3,), [0], SamplerConfig("huen"))


def test_an_unknown_grid_is_answered_with_the_closest_name() -> None:
    with pytest.raises(ConfigError, match="unknown grid 'unifrom'; did you mean 'uniform'"):
        draw(gaussian_world(VPSDE()), (3,), [0], SamplerConfig(), grid="unifrom")


def test_fewer_steps_than_a_sampler_needs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        table._SAMPLERS, "demanding", replace(find_sampler("heun"), name="demanding", min_steps=3)
    )
    with pytest.raises(ConfigError, match="steps is 2, but sampler 'demanding' needs at least 3"):
        draw(gaussian_world(VPSDE()), (3,), [0], SamplerConfig("demanding", steps=2))


def test_the_table_says_what_each_sampler_is_and_costs() -> None:
    assert {"ancestral", "ancestral-posterior", "dopri5", "euler", "heun"} <= set(sampler_names())
    for sampler in samplers():
        assert sampler.summary
        assert sampler.paper
        assert sampler.adaptive == (sampler.name == "dopri5")
    assert find_sampler("ancestral").stochastic
    assert not find_sampler("heun").stochastic
    assert find_sampler("heun").nfe(20) == 40
    assert find_sampler("heun").nfe_formula == "2N"
    assert find_sampler("dopri5").nfe(20) is None
    assert find_sampler("dopri5").nfe_formula == "6N+2"
    assert find_sampler("predictor-corrector").nfe_formula == "(1+C)N"


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="two samplers are called 'heun'"):
        register("heun", paper="", order=2, nfe_per_step=2)(find_sampler("heun").run)


def test_the_table_is_listed_without_torch() -> None:
    code = "import sys, lsgm.samplers as s; assert s.samplers() and not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
