"""Weights of past predictions: they integrate every polynomial that their points determine."""

from __future__ import annotations

import math

import pytest
import torch
from oracles.worlds import SDES, gaussian_world
from scipy.integrate import quad

from lsgm.sampling.multistep import (
    ADAMS_BASHFORTH,
    LONG,
    SHORT,
    blend,
    clean_step,
    exponential_rule,
    extrapolated_middle,
    interpolation_weights,
    order_of,
    plain_rule,
)
from lsgm.sampling.registry import CountedScore, Nodes

KNOWN = (0.7, 0.4, -0.3, -0.5)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("end", [0.9, 5.0])
def test_polynomials_up_to_the_order_are_integrated_exactly(end: float, order: int) -> None:
    known = KNOWN[:order]
    plain = interpolation_weights(known, plain_rule(0.7, end))
    tilted = interpolation_weights(known, exponential_rule(0.7, end))
    for degree in range(order):
        mean = quad(lambda x, d=degree: x**d, 0.7, end, epsrel=1e-13)[0] / (end - 0.7)
        got = sum(w * x**degree for w, x in zip(plain, known, strict=True))
        assert got == pytest.approx(mean, rel=1e-11)
        mass = math.exp(end) - math.exp(0.7)
        mean = quad(lambda x, d=degree: x**d * math.exp(x), 0.7, end, epsrel=1e-13)[0] / mass
        got = sum(w * x**degree for w, x in zip(tilted, known, strict=True))
        assert got == pytest.approx(mean, rel=1e-11)


def test_the_exponential_rule_holds_over_the_longest_steps_and_in_both_directions() -> None:
    points, masses = exponential_rule(-3.0, 12.0)
    # The mean of x under a density proportional to exp on [a, b]: (b e^b - a e^a) / (e^b - e^a) - 1.
    assert masses @ points == pytest.approx((12 + 3 * math.exp(-15)) / (1 - math.exp(-15)) - 1, rel=1e-12)
    back, back_masses = exponential_rule(12.0, -3.0)
    assert back_masses @ back == pytest.approx(masses @ points, rel=1e-13)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_adams_bashforth_is_the_interpolation_of_even_steps(order: int) -> None:
    weights = interpolation_weights([-float(i) for i in range(order)], plain_rule(0.0, 1.0))
    assert weights == pytest.approx(ADAMS_BASHFORTH[order - 1], abs=1e-13)


def test_the_middle_of_a_step_is_extrapolated_along_a_line() -> None:
    lam = (0.0, 1.0, 1.5)
    assert extrapolated_middle(lam, 1, 1) == (1.0,)
    # The line through values 5 at 1 and 3 at 0 has 5.5 at 1.25.
    assert blend(
        extrapolated_middle(lam, 1, 2), (torch.tensor(5.0), torch.tensor(3.0))
    ).item() == pytest.approx(5.5)


@pytest.mark.parametrize("kind", SDES)
def test_a_step_on_the_true_clean_sample_stays_on_its_line(kind: str) -> None:
    """With z_0 and the noise given, m_k z_0 + sigma_k n leads to m_j z_0 + sigma_j n."""
    times = torch.tensor([1.0, 0.6, 0.1], dtype=torch.float64)
    nodes = Nodes.of(CountedScore(gaussian_world(SDES[kind]), 2), times)
    clean, n = torch.tensor([[0.3, -1.0]]).double(), torch.tensor([[2.0, 0.5]]).double()
    for k in range(2):
        start, end = (nodes.m[i] * clean + nodes.sigma[i] * n for i in (k, k + 1))
        torch.testing.assert_close(clean_step(nodes, start, k, clean), end, rtol=1e-12, atol=1e-14)


def test_short_runs_end_with_lower_orders_and_long_ones_do_not() -> None:
    short, long = range(SHORT), range(SHORT + 1)  # of SHORT - 1 and SHORT even steps
    assert [order_of(short, k, 3) for k in range(SHORT - 4, SHORT - 1)] == [3, 2, 1]
    assert [order_of(long, k, 3) for k in range(SHORT - 3, SHORT)] == [3, 3, 3]


def test_a_step_much_longer_than_the_one_before_is_of_order_one() -> None:
    lam = [0.1 * k for k in range(30)]
    just, too_long = ([*lam, lam[-1] + 0.1 * LONG * share] for share in (0.99, 1.01))
    assert order_of(just, 29, 3) == 3
    assert order_of(too_long, 29, 3) == 1
    assert order_of([0.0, 1.0, 10.0], 0, 1) == 1
