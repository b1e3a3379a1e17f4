"""Names of samplers: every option that is not the default shows, so that no two points share a name."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from lsgm.config import SamplerConfig
from lsgm.results.labels import sampler_name

OTHER: dict[str, Any] = {
    "time_end": 0.01, "temperature": 0.9, "grid": "logsnr", "rho": 5.0, "denoise": True, "eta": 0.5,
    "churn": 10.0, "churn_min": 0.1, "churn_max": 50.0, "churn_noise": 1.01, "corrector_steps": 2, "snr": 0.2,
    "times": (1.0, 0.5, 0.1), "precision": "bfloat16",
}  # fmt: skip


def test_defaults_do_not_show() -> None:
    assert sampler_name(SamplerConfig("heun", steps=5)) == "heun(steps=5)"
    assert sampler_name(SamplerConfig("dopri5")) == "dopri5(rtol=1e-05, atol=1e-05)"
    assert sampler_name(SamplerConfig("mine", steps=3)) == "mine(steps=3)"


def test_options_show_in_order() -> None:
    config = SamplerConfig("heun", steps=8, grid="edm", rho=5.0, denoise=True)
    assert sampler_name(config) == "heun(steps=8, grid=edm, rho=5, denoise=true)"


@pytest.mark.parametrize("option", [f.name for f in fields(SamplerConfig) if f.name in OTHER])
def test_every_option_makes_another_name(option: str) -> None:
    plain = SamplerConfig("heun", steps=5)
    assert sampler_name(replace(plain, **{option: OTHER[option]})) != sampler_name(plain)


def test_all_options_are_known_to_this_test() -> None:
    assert {f.name for f in fields(SamplerConfig)} == {*OTHER, "name", "steps", "rtol", "atol"}


def test_times_show_how_many_steps_they_are_and_which() -> None:
    first = sampler_name(SamplerConfig("heun", times=(1.0, 0.5, 0.1)))
    other = sampler_name(SamplerConfig("heun", times=(1.0, 0.4, 0.1)))
    assert first.startswith("heun(steps=2, times=")
    assert first != other
