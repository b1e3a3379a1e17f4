"""Points of a sweep: as many steps as a budget allows, the cheapest first, all fitting the SDE."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lsgm.config import SamplerConfig, SDEConfig
from lsgm.errors import ConfigError
from lsgm.sampling import Sampler, find_sampler, samplers
from lsgm.sde import make_sde
from lsgm_eval.cost_curve import points as plan
from lsgm_eval.cost_curve.points import REFERENCE, check_fit, expected_nfe, plan_points

FIXED = [sampler for sampler in samplers() if not sampler.adaptive]


@pytest.mark.parametrize("sampler", FIXED, ids=lambda sampler: sampler.name)
def test_a_point_takes_the_most_steps_within_its_budget(sampler: Sampler) -> None:
    (point,) = plan_points([SamplerConfig(sampler.name)], [50], [])
    taken = sampler.evaluations(point)
    assert taken is not None
    assert taken <= 50
    more = sampler.evaluations(SamplerConfig(sampler.name, steps=point.steps + 1))
    assert more is not None
    assert more > 50


def test_budgets_that_give_the_same_steps_are_one_point() -> None:
    points = plan_points([SamplerConfig("heun")], [4, 5], [])
    assert points == (SamplerConfig("heun", steps=2),)


def test_the_cheapest_point_of_all_samplers_comes_first() -> None:
    points = plan_points([SamplerConfig("heun"), SamplerConfig("euler")], [5, 20, 100], [1e-1, 1e-5])
    costs = [expected_nfe(point) for point in points]
    assert costs == sorted(costs)
    assert points[0].name == "heun"
    assert costs[-1] >= 100


def test_the_reference_procedure_is_among_the_tolerances_of_dopri5() -> None:
    assert REFERENCE in plan_points([SamplerConfig("heun")], [10], [1e-1, 1e-5])


def test_a_named_adaptive_sampler_takes_the_tolerances_with_its_options() -> None:
    points = plan_points([SamplerConfig("dopri5", temperature=0.9)], [], [1e-2])
    assert points == (SamplerConfig("dopri5", rtol=1e-2, atol=1e-2, temperature=0.9),)


def test_budgets_that_no_sampler_can_use_are_refused() -> None:
    with pytest.raises(ConfigError, match="sampler 'heun' takes at least 2 evaluations, not 1"):
        plan_points([SamplerConfig("heun")], [1], [])
    with pytest.raises(ConfigError, match="--nfe is empty"):
        plan_points([SamplerConfig("heun")], [], [1e-3])
    with pytest.raises(ConfigError, match="--tol is empty: give the tolerances of dopri5"):
        plan_points([SamplerConfig("dopri5")], [5], [])


def model_of(kind: str) -> Any:
    return SimpleNamespace(name="ours", prior=SimpleNamespace(sde=make_sde(SDEConfig(kind))))


def test_a_sampler_that_the_sde_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    picky = SimpleNamespace(name="picky", vp_only=True, adaptive=False, min_steps=1)
    monkeypatch.setattr(plan, "find_sampler", lambda name: picky if name == "picky" else find_sampler(name))
    check_fit(model_of("vp"), [SamplerConfig("picky")])
    with pytest.raises(ConfigError, match=r"ours: sampler 'picky' needs a variance preserving.*not VESDE"):
        check_fit(model_of("ve"), [SamplerConfig("picky")])


def test_a_grid_or_a_time_end_that_does_not_fit_is_named() -> None:
    with pytest.raises(ConfigError, match=r"ours: .*strange"):
        check_fit(model_of("vp"), [SamplerConfig("heun", grid="strange")])
    with pytest.raises(ConfigError, match="ours: time-end is 0"):
        check_fit(model_of("vp"), [SamplerConfig("heun", time_end=0.0)])


def test_a_model_that_shows_no_sde_is_asked_nothing() -> None:
    unknown: Any = SimpleNamespace(name="theirs")
    check_fit(unknown, [SamplerConfig("heun", grid="strange")])
