"""Words of the command line: what they mean, and one sentence for each mistake."""

from __future__ import annotations

import pytest

from lsgm.config import SamplerConfig
from lsgm.errors import ConfigError
from lsgm_eval.cost_curve.points import (
    budget_of,
    plan_points,
    sampler_of,
    samplers_of,
    targets_of,
    tolerances_of,
    whole_numbers,
)


def test_a_sampler_may_have_a_grid_and_options() -> None:
    assert sampler_of("heun") == SamplerConfig("heun")
    assert sampler_of("euler@logsnr") == SamplerConfig("euler", grid="logsnr")
    full = sampler_of("heun@edm:rho=5:time-end=1e-3:denoise=true")
    assert full == SamplerConfig("heun", grid="edm", rho=5.0, time_end=1e-3, denoise=True)
    assert sampler_of("heun:time_end=none").time_end is None


@pytest.mark.parametrize(
    "word", ["heun", "euler@logsnr", "heun@edm:rho=5:time_end=0.001:denoise=true", "ddim:eta=0.5", "dopri5"]
)
def test_a_point_has_the_options_that_measure_it_alone(word: str) -> None:
    for point in plan_points([sampler_of(word)], [7, 12], [1e-2]):
        told = budget_of(point)
        budgets = whole_numbers(told.get("nfe", "none"), "--nfe")
        assert plan_points(samplers_of(told["samplers"]), budgets, tolerances_of(told["tol"])) == (point,)


def test_several_samplers_stand_between_commas() -> None:
    assert [config.name for config in samplers_of("heun, euler,dopri5")] == ["heun", "euler", "dopri5"]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("hein", "unknown sampler 'hein'; did you mean 'heun'"),
        ("heun@log", "there is no grid 'log'; there are uniform"),
        ("dopri5@logsnr", "an adaptive solver chooses its own steps; leave out @logsnr"),
        ("heun:rho", "'rho' is no option; write NAME:OPTION=VALUE"),
        ("heun:roh=3", r"unknown key 'roh'; did you mean 'rho'"),
        ("heun:rho=-1", "rho is -1.*above 0"),
        ("heun:rho=high", "rho"),
        ("heun:steps=5", "the sweep sets steps by --nfe"),
        ("dopri5:rtol=0.1", "tolerances by --tol"),
        ("heun:rho=3:rho=4", "given twice"),
        (
            "heun:eta=1",
            r"^sampler .heun:eta=1.: eta is 1.0 and would have no effect: the sampler heun has none",
        ),
    ],
)
def test_a_wrong_word_is_named(word: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        sampler_of(word)


def test_a_value_that_nests_without_end_is_a_wrong_word() -> None:
    with pytest.raises(ConfigError, match="eta"):
        sampler_of("ddim:eta=" + "[" * 5000 + "]" * 5000)


def test_no_sampler_and_one_twice_are_refused() -> None:
    with pytest.raises(ConfigError, match="names none"):
        samplers_of(" , ")
    with pytest.raises(ConfigError, match="heun is given twice"):
        samplers_of("heun,heun")
    assert len(samplers_of("heun,heun@logsnr")) == 2


def test_tolerances_go_down_by_decades_or_as_listed() -> None:
    assert tolerances_of("1e-1..1e-5") == (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
    assert tolerances_of("3e-4..3e-2") == tolerances_of("3e-2,3e-3,3e-4") == (3e-2, 3e-3, 3e-4)
    assert tolerances_of("none") == tolerances_of("") == ()
    assert tolerances_of("1e-3") == (1e-3,)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("0", "tolerances above 0"),
        ("1e-1..0", "tolerances above 0"),
        ("1e-2,-1", "tolerances above 0"),
        ("nan", "tolerances above 0"),
        ("1e-1..3e-4", "2.52 decades apart"),
        ("small", "--tol is 'small'; give numbers"),
        ("..1e-3", "tolerances above 0"),
    ],
)
def test_a_tolerance_of_nothing_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        tolerances_of(text)


def test_budgets_and_targets_are_numbers_above_zero() -> None:
    assert whole_numbers("20,5,5", "--nfe") == (5, 20)
    assert targets_of("20,10.5") == (20.0, 10.5)
    for text in ("5,0", "-3"):
        with pytest.raises(ConfigError, match="above 0"):
            whole_numbers(text, "--nfe")
    with pytest.raises(ConfigError, match="whole numbers"):
        whole_numbers("2.5", "--nfe")
    with pytest.raises(ConfigError, match="logarithmic scale"):
        targets_of("0")
