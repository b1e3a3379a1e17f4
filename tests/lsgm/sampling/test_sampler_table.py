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
from lsgm.sampling import check_options, draw, find_sampler, register, sampler_names, samplers
from lsgm.sampling import registry as table
from lsgm.sampling.grids import make_grid, time_end_of
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
    code = "import sys, lsgm.sampling as s; assert s.samplers() and not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


IDLE = [
    (SamplerConfig(eta=0.5), "--sampler.eta is 0.5 and would have no effect: the sampler heun has none"),
    (SamplerConfig(rtol=1e-3), "--sampler.rtol is 0.001 .*: the sampler heun has fixed steps"),
    (SamplerConfig("dopri5", steps=9), "--sampler.steps is 9 .*: the sampler dopri5 chooses its own steps"),
    (SamplerConfig("dopri5", grid="edm"), "--sampler.grid is edm .*: the sampler dopri5 chooses"),
    (SamplerConfig("ddim", churn=4.0), "--sampler.churn is 4.0 .*: the sampler ddim has none"),
    (
        SamplerConfig("ddim", corrector_steps=2),
        "--sampler.corrector-steps is 2 .*: the sampler ddim has none",
    ),
    (SamplerConfig("edm-heun", churn_noise=1.1), "--sampler.churn-noise is 1.1 .*: without churn"),
    (SamplerConfig("edm-heun", rho=5.0), "--sampler.rho is 5.0 .*: it is the exponent of the grid edm"),
    (SamplerConfig("predictor-corrector", corrector_steps=0, snr=0.2), "--sampler.snr is 0.2 .*: without"),
    (SamplerConfig(times=(1.0, 0.1), steps=3), "--sampler.steps is 3 .*: the times say it"),
]


@pytest.mark.parametrize(("config", "says"), IDLE)
def test_an_option_that_the_sampler_has_no_use_for_is_refused(config: SamplerConfig, says: str) -> None:
    with pytest.raises(ConfigError, match=f"^{says}"):
        check_options(config)


def test_options_that_have_an_effect_and_defaults_are_taken() -> None:
    for name in sampler_names():
        check_options(SamplerConfig(name))
    for config in (
        SamplerConfig("ddim", eta=1.0, steps=3, temperature=0.9, grid="edm", rho=5.0, denoise=True),
        SamplerConfig("edm-heun", churn=4.0, churn_min=0.1, churn_max=9.0, churn_noise=1.01),
        SamplerConfig("predictor-corrector", corrector_steps=2, snr=0.2),
        SamplerConfig("dopri5", rtol=1e-3, atol=1e-4, time_end=1e-3),
        SamplerConfig(times=(1.0, 0.1)),
    ):
        check_options(config)


@pytest.mark.parametrize("name", sampler_names())
def test_what_is_refused_indeed_changes_nothing_and_what_is_taken_changes_the_draws(name: str) -> None:
    """Of every option of every sampler, in a world that is no Normal law of unit variance."""
    world = gaussian_world(VPSDE())
    base = SamplerConfig(name, steps=4, churn=0.4, churn_max=1e9, rtol=1e-3, atol=1e-3)
    others = {
        "eta": 0.7, "churn": 0.8, "churn_min": 5.0, "churn_max": 5.0, "churn_noise": 1.2, "snr": 0.3,
        "corrector_steps": 2, "steps": 5, "rtol": 1e-1, "atol": 1e-1, "temperature": 0.5, "time_end": 0.05,
    }  # fmt: skip
    drawn = draw(world, (3,), range(4), base, dtype=torch.float64).z
    idle = find_sampler(name).without_effect(base)
    for option, value in others.items():
        same = torch.equal(
            draw(world, (3,), range(4), replace(base, **{option: value}), dtype=torch.float64).z, drawn
        )
        assert same == (option in idle), option


def test_an_option_given_at_its_default_is_refused_all_the_same() -> None:
    with pytest.raises(ConfigError, match=r"^--sampler\.eta is 0\.0 and would have no effect"):
        check_options(SamplerConfig(), given={"eta"})
