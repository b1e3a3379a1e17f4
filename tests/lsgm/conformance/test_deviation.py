"""The measure that decides whether a stage passes."""

from __future__ import annotations

import math

import pytest
import torch

from lsgm.conformance.folder import Deviation, deviation, worst


def test_the_error_is_absolute_below_one_and_relative_to_the_largest_entry_above() -> None:
    small = deviation(torch.tensor([0.5, 0.25]), torch.tensor([0.5, 0.0]))
    assert small == pytest.approx((0.25, 0.25, 1.0))
    large = deviation(torch.tensor([200.0, 1.0]), torch.tensor([200.0, 0.0]))
    assert large.error == pytest.approx(1 / 200)


def test_a_large_relative_error_beside_zero_does_not_fail() -> None:
    found = deviation(torch.tensor([3e-17, 1.0]).double(), torch.tensor([-1e-17, 1.0]).double())
    assert found.relative > 1
    assert found.within(1e-9)


def test_equal_zeros_have_no_relative_error() -> None:
    assert deviation(torch.zeros(3), torch.zeros(3)) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_finite_passes_no_tolerance(value: float, side: int) -> None:
    pair = [torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)]
    pair[side][1] = value
    assert not deviation(*pair).within(math.inf)


def test_equal_infinities_do_not_pass_either() -> None:
    assert not deviation(torch.tensor(math.inf), torch.tensor(math.inf)).within(1.0)


def test_the_worst_of_several_is_the_largest_error_with_every_maximum() -> None:
    name, found = worst({"a": Deviation(1e-3, 5.0, 0.1), "b": Deviation(1e-2, 1e-2, 0.2)})
    assert (name, found) == ("b", Deviation(1e-2, 5.0, 0.2))


def test_a_nan_is_worse_than_any_error() -> None:
    broken = Deviation(math.nan, math.nan, math.nan)
    name, found = worst({"a": Deviation(1e9, 1e9, 1.0), "b": broken})
    assert name == "b"
    assert not found.within(1e12)
