"""Digits follow the interval: enough to keep the error's meaning, none that it makes meaningless."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lsgm_reports.digits import decimals_for, error_bar, fixed, plain

errors = st.floats(1e-9, 1e9)


@pytest.mark.parametrize(
    ("value", "half", "shown"),
    [
        (117.34, 0.42, "117.3 ± 0.4"),
        (5.213, 0.148, "5.21 ± 0.15"),
        (0.2159, 0.00081, "0.2159 ± 0.0008"),
        (5.0, 0.096, "5.00 ± 0.10"),
        (5.0, 0.0996, "5.00 ± 0.10"),
        (148.2, 5.93, "148 ± 6"),
        (12345.0, 1830.0, "12300 ± 1800"),
        (-9.78, 0.21, "−9.8 ± 0.2"),
        (0.04, 0.3, "0.0 ± 0.3"),
        (-0.04, 0.3, "0.0 ± 0.3"),
    ],
)
def test_examples(value: float, half: float, shown: str) -> None:
    assert error_bar(value, value - half, value + half) == shown


def test_a_lopsided_interval_shows_both_arms() -> None:
    assert error_bar(5.2, 4.9, 6.1) == "5.2 +0.9 −0.3"
    assert error_bar(5.2, 5.4, 6.1) == "5.2 +0.9 +0.2"  # the value lies outside of its own interval


def test_without_an_interval_the_number_stands_alone() -> None:
    assert error_bar(39.0, None, None) == "39"
    assert error_bar(39.0, 39.0, 39.0) == "39"
    assert [plain(x) for x in (0.0, 21.3456, 451234.0, 1234.5, 1e-7)] == [
        "0",
        "21.35",
        "451,234",
        "1234",
        "1e-07",
    ]


def read(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))


@settings(deadline=None, max_examples=100)
@given(errors)
def test_an_error_keeps_one_digit_or_two_that_begin_with_1(error: float) -> None:
    shown = fixed(error, decimals_for(error))
    digits = shown.replace(".", "").strip("0") or "0"
    assert len(digits) <= 2
    assert len(digits) == 1 or digits[0] == "1" or math.isclose(read(shown), error, rel_tol=0.05)
    # One digit from 2 on: rounding moves an error by at most half a unit of it, a quarter of its size.
    assert abs(read(shown) - error) <= 0.2501 * error


@settings(deadline=None, max_examples=100)
@given(st.floats(-1e6, 1e6), errors)
def test_value_and_error_end_at_one_decimal_and_are_right_to_half_of_it(value: float, half: float) -> None:
    low, high = value - half, value + half
    assume(high - low > 1e-11 * abs(value))  # below lies rounding, which is shown as no interval
    half = (high - low) / 2
    assume(max(high - value, value - low) < 1.5 * min(high - value, value - low))
    left, right = error_bar(value, low, high).split(" ± ")
    assert len(left.partition(".")[2]) == len(right.partition(".")[2])
    unit = 10.0 ** -decimals_for(half)
    assert abs(read(left) - value) <= 0.5001 * unit + 1e-9 * abs(value)
    assert abs(read(right) - half) <= 0.5001 * unit


@settings(deadline=None, max_examples=100)
@given(st.floats(-1e12, 1e12))
def test_a_bare_number_is_right_to_four_digits(value: float) -> None:
    assume(value == 0 or abs(value) > 1e-12)
    assert math.isclose(read(plain(value)), value, rel_tol=5.1e-3 if abs(value) < 1e-4 else 5.1e-4)


@settings(deadline=None, max_examples=100)
@given(st.floats(-1e3, 1e3), st.floats(0, 1e3), st.floats(0, 1e3))
def test_every_interval_can_be_shown(value: float, down: float, up: float) -> None:
    text = error_bar(value, value - down, value + up)
    assert text
    assert not text.startswith(("-", "−0 ", "nan"))


finite = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=100)
@given(finite, finite, finite)
def test_every_number_that_there_is_can_be_shown_in_a_cell(value: float, one: float, other: float) -> None:
    for text in (plain(value), error_bar(value, min(one, other), max(one, other))):
        assert text
        assert len(text) < 70
        assert "nan" not in text
        assert "inf" not in text


@pytest.mark.parametrize(
    ("value", "half", "shown"),
    [
        (1.234e20, 5e18, "(1.23 ± 0.05)e20"),
        (-1.5e-12, 2e-13, "(−1.5 ± 0.2)e-12"),
        (1.5e308, 1e307, "(1.50 ± 0.10)e308"),
        (0.0, 1e-300, "(0.0 ± 1.0)e-300"),
    ],
)
def test_very_large_and_small_numbers_have_their_power_apart(value: float, half: float, shown: str) -> None:
    assert error_bar(value, value - half, value + half) == shown
