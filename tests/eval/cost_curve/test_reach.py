"""Costs to reach a quality on curves whose crossing is known, and intervals that cover it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsgm.results.row import pareto_front
from lsgm_eval.cost_curve.reach import (
    CostCurve,
    Reached,
    against_reference,
    bias_corrected,
    crossings,
    reach,
    speedup,
)

COSTS = np.array([5.0, 10, 20, 40, 80, 160])
NAMES = tuple(f"heun(steps={int(cost / 2)})" for cost in COSTS)


def power(scale: float, errors: float = 0.0) -> CostCurve:
    """A curve of loss = scale / cost with a relative error: it reaches q at the cost scale / q exactly."""
    losses = scale / COSTS
    return CostCurve(COSTS, losses, errors * losses, NAMES)


def test_a_front_has_the_points_that_no_other_beats() -> None:
    costs, losses = [10, 5, 5, 20, 20, 40], [3.0, 7.0, 6.0, 3.0, 2.0, 2.5]
    assert pareto_front(costs, losses) == [2, 0, 4]


def crossing(costs: Sequence[float], losses: Sequence[float], target: float) -> float:
    """Return where the front first has a loss of at most the target, point by point."""
    front = pareto_front(costs, losses)
    for before, after in zip([None, *front], front, strict=False):
        if losses[after] > target:
            continue
        if before is None or costs[before] <= 0:
            return costs[after]
        high, low, at = losses[before], losses[after], target
        if low > 0:
            high, low, at = math.log(high), math.log(low), math.log(at)
        share = (high - at) / (high - low)
        return costs[before] ** (1 - share) * costs[after] ** share
    return math.inf


def crossed(costs: list[float], losses: list[float], target: float) -> float:
    return float(crossings(np.array(costs), np.array([losses]), target)[0])


def test_between_points_of_a_power_law_the_crossing_is_exact() -> None:
    costs, losses = COSTS.tolist(), (1000 / COSTS).tolist()
    for target in (90.0, 12.3, 6.3):
        assert crossed(costs, losses, target) == pytest.approx(1000 / target, rel=1e-12)
    assert crossed(costs, losses, 6.0) == math.inf


def test_a_point_that_others_beat_takes_no_part() -> None:
    assert crossed([5.0, 8.0, 10.0], [100.0, 300.0, 50.0], 70.7106781) == pytest.approx(
        math.sqrt(50), rel=1e-6
    )
    curve = CostCurve(np.array([5.0, 8, 10]), np.array([100.0, 300, 50]), np.zeros(3), ("a", "b", "c"))
    assert reach(curve, 70.7106781).samplers == ("a", "c")


def test_losses_that_are_not_above_zero_are_joined_by_a_line() -> None:
    assert crossed([1.0, 4.0], [1.0, -1.0], 0.5) == pytest.approx(4**0.25)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 5.0, 10.0, 20.0, 40.0]), st.floats(-1, 50)), min_size=1, max_size=7
    ),
    st.floats(0.5, 40),
)
def test_many_curves_at_once_cross_where_each_does(points: list[tuple[float, float]], target: float) -> None:
    costs, losses = (np.array(each) for each in zip(*points, strict=True))
    (many,) = crossings(costs, losses[None], target)
    assert many == pytest.approx(crossing(costs.tolist(), losses.tolist(), target), rel=1e-9)


def test_without_errors_the_interval_is_the_value_and_the_neighbours_are_named() -> None:
    found = reach(power(1000), 30.0)
    assert (found.low, found.high) == pytest.approx((found.cost, found.cost))
    assert found.cost == pytest.approx(100 / 3)
    assert found.samplers == ("heun(steps=10)", "heun(steps=20)")
    assert found.note == ""


def test_the_interval_of_a_steep_crossing_is_that_of_the_delta_method() -> None:
    # Errors in common move log cost by as much as log loss, independent ones by less: the outer one stands.
    found = reach(power(1000, 0.02), 1000 / 28.3)
    assert found.cost is not None
    assert found.low is not None
    assert found.high is not None
    assert math.log(found.high / found.cost) == pytest.approx(1.96 * 0.02, rel=0.15)
    assert math.log(found.cost / found.low) == pytest.approx(1.96 * 0.02, rel=0.15)


def test_what_is_not_reached_has_no_value_and_says_so() -> None:
    found = reach(power(1000, 0.001), 5.0)
    assert (found.cost, found.low, found.high) == (None, None, None)
    assert found.note == "not reached by 6 points"
    near = reach(power(1000, 0.05), 6.2)
    assert "within their errors it might be, with probability 0." in near.note


def test_an_end_that_the_points_cannot_tell_is_left_open() -> None:
    cheap = reach(power(1000, 0.01), 300.0)
    assert cheap.cost == cheap.high == 5.0
    assert cheap.low is None
    assert "upper bound: measure smaller budgets" in cheap.note
    barely = reach(power(1000, 0.05), 6.3)
    assert barely.cost is not None
    assert barely.high is None
    assert "may not be reached" in barely.note


def test_a_model_without_a_sampler_costs_what_it_costs() -> None:
    level = CostCurve(np.array([3e6]), np.array([17.0]), np.array([0.2]), ("",))
    found = reach(level, 20.0)
    assert (found.cost, found.low, found.high, found.samplers) == (3e6, 3e6, 3e6, ())


def simulated(curve: CostCurve, rng: Any, *, common: bool) -> CostCurve:
    size = 1 if common else len(curve.costs)
    losses = curve.losses + curve.errors * rng.standard_normal(size)
    return CostCurve(curve.costs, losses, curve.errors, curve.samplers)


def twins(errors: float) -> CostCurve:
    """Three equally good samplers, of which the luckiest leads: what a plain bootstrap gets wrong."""
    costs = np.repeat(COSTS, 3)
    losses = 1000 / costs
    return CostCurve(costs, losses, errors * losses, tuple("abc" * len(COSTS)))


@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize("curve", [power(1000, 0.05), twins(0.03)], ids=["one", "twins"])
def test_intervals_cover_the_true_cost(curve: CostCurve, common: bool) -> None:
    rng, target, trials, covered = np.random.default_rng(5), 31.0, 150, 0
    for trial in range(trials):
        found = reach(simulated(curve, rng, common=common), target, seed=trial)
        assert found.cost is not None
        low, high = found.low or 0.0, found.high or math.inf
        covered += low <= 1000 / target <= high
    # Nominally 0.95, and more where errors are independent; 3 standard errors of 150 trials are 0.053.
    assert covered / trials > 0.95 - 0.053


def pair(scales: tuple[float, float], errors: float, target: float) -> tuple[Reached, Reached]:
    first, second = (reach(power(scale, errors), target, seed=seed) for seed, scale in enumerate(scales))
    return first, second


def test_a_speed_up_is_the_ratio_of_the_crossings() -> None:
    found = speedup(*pair((300, 900), 0.0, 20.0), ("a", "b"))
    assert found.value == pytest.approx(3.0)
    assert (found.low, found.high) == pytest.approx((3.0, 3.0))


def test_the_interval_of_a_ratio_covers_it() -> None:
    rng, trials, covered = np.random.default_rng(7), 150, 0
    for trial in range(trials):
        a, b = (
            reach(simulated(power(scale, 0.05), rng, common=True), 20.0, seed=2 * trial + k)
            for k, scale in enumerate((300, 900))
        )
        found = speedup(a, b, ("a", "b"))
        covered += (found.low or 0.0) <= 3.0 <= (found.high or math.inf)
    assert covered / trials > 0.95 - 0.053


def test_equal_models_are_not_ahead_of_each_other() -> None:
    found = speedup(*pair((500, 500), 0.05, 20.0), ("a", "b"))
    assert found.low is not None
    assert found.high is not None
    assert found.low < 1 < found.high


def test_there_is_no_ratio_where_one_model_does_not_get_there_or_pays_nothing() -> None:
    found = speedup(*pair((300, 9000), 0.001, 20.0), ("a", "b"))
    assert found.value is None
    assert found.note.startswith("b does not reach it: not reached by 6 points")
    free = reach(CostCurve(np.array([0.0]), np.array([1.0]), np.array([0.1]), ("",)), 20.0)
    assert speedup(free, free, ("vae", "b")).note == "vae needs none"


def test_an_upper_bound_of_a_cost_is_a_lower_bound_of_the_ratio() -> None:
    found = speedup(*pair((80, 900), 0.02, 20.0), ("a", "b"))
    assert found.value == pytest.approx(9.0)
    assert found.low is not None
    assert found.high is None
    assert found.note.startswith("a: the cheapest point reaches it already")


def test_against_a_reference_of_known_cost() -> None:
    found = against_reference(reach(power(300, 0.0), 20.0), 150.0)
    assert (found.value, found.low, found.high) == pytest.approx((10.0, 10.0, 10.0))
    assert against_reference(reach(power(300), 1.0), 150.0).value is None


def test_bias_correction_undoes_a_known_bias() -> None:
    # Draws centred one standard error below the value, as the value is below the truth. The upper end is the
    # quantile 0.99996 of 40,000 draws, which the two largest of them give to about 0.2.
    draws = np.random.default_rng(0).standard_normal(40_000) - 1.0
    low, high = bias_corrected(0.0, draws)
    assert (low, high) == pytest.approx((1.0 - 1.96, 1.0 + 1.96), abs=0.3)
