"""Durations, values with errors, and texts that fit."""

from __future__ import annotations

import math

import pytest
from eval.live.boards import row
from hypothesis import given
from hypothesis import strategies as st

from lsgm.progress import aligned
from lsgm_eval.live import duration, headline, with_error


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3600, "1 h 00 min"),
        (90061, "25 h 01 min"),
        (-1, "0 s"),
    ],
)
def test_a_duration_is_in_the_units_one_would_say(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "half", "text"),
    [
        (2.0998, 0.0312, "2.100 ± 0.031"),
        (122.87, 25.7, "123 ± 26"),
        (12345.6, 789.0, "12346 ± 789"),
        (4096.0, 1.04e-5, "4096.000000 ± 0.000010"),
    ],
)
def test_the_digits_of_a_value_are_those_of_its_error(value: float, half: float, text: str) -> None:
    assert with_error(value, value - half, value + half) == text


def test_without_an_error_there_are_four_digits() -> None:
    assert with_error(20.0, 20.0, 20.0) == with_error(20.0, None, 21.0) == "20"
    assert with_error(565987.4, None, None) == "5.66e+05"


@given(st.floats(-1e6, 1e6), st.floats(1e-5, 1e5))
def test_rounding_costs_at_most_a_twentieth_of_the_error(value: float, half: float) -> None:
    low, high = value - half, value + half
    told, error = (float(word) for word in with_error(value, low, high).split(" ± "))
    # Half a unit of the error's second digit is at most a twentieth of it.
    assert abs(told - value) <= half / 20 * (1 + 1e-6) + 4 * math.ulp(value)
    assert error == pytest.approx((high - low) / 2, rel=0.051)


def test_wide_letters_take_two_columns() -> None:
    assert aligned([("模型", "1"), ("a", "2")]) == ["模型  1", "a     2"]


def test_a_measurement_is_known_by_its_first_value_that_is_no_cost() -> None:
    cost, missing, there = row("nfe", 20.0, group="cost"), row("fid", None), row("frechet_glyphs", 3.0)
    assert headline([cost, missing, there]) == there
    assert headline([cost, missing]) == missing
    assert headline([cost]) == cost
    assert headline([]) is None


@pytest.mark.parametrize("ends", [(-1e308, 1e308), (float("-inf"), 1.0), (2.0, 1.0)])
def test_an_interval_that_is_none_is_left_out(ends: tuple[float, float]) -> None:
    assert with_error(1.5, *ends) == "1.5"
