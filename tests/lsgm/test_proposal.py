"""Weighted draws from a proposal estimate the objective's integral; matched, they do so without variance."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import erf
from torch import Tensor

from lsgm.errors import ConfigError
from lsgm.sde import SDE, VESDE, VPSDE, GeometricVPSDE, SubVPSDE
from lsgm.times import TimeProposal, Weighting, importance_weight, make_proposal

LL, UN, RE, *_ = Weighting
H: dict[str, Callable[[Tensor], Tensor]] = {
    "1": torch.ones_like,
    "t": lambda t: t,
    "cos 5t": lambda t: (5.0 * t).cos(),
}

# Panels that close in on both ends geometrically: weights rise as 1/(1 - var) within the last 1e-5 of rho.
_TAIL = np.concatenate([[0.0], np.logspace(-13, -1, 25)])
EDGES = np.concatenate([_TAIL, [0.3, 0.5, 0.7], 1.0 - _TAIL[::-1]])
NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)
_HALF = np.diff(EDGES)[:, None] / 2.0
RHO = torch.from_numpy(((EDGES[:-1, None] + _HALF) + _HALF * NODES).ravel())
D_RHO = torch.from_numpy((_HALF * WEIGHTS).ravel())


def mean(values: Tensor) -> float:
    """Expectation over rho ~ U(0, 1) of values at RHO, by Gauss-Legendre quadrature on the panels."""
    return (D_RHO * values).sum().item()


def variation(values: Tensor) -> float:
    """Coefficient of variation over rho ~ U(0, 1)."""
    centre = mean(values)
    return math.sqrt(max(mean((values / centre - 1.0).square()), 0.0))


class World(NamedTuple):
    """An SDE with its g^2 and variance written down a second time, plainly, in numpy."""

    sde: SDE
    time_eps: float
    g2: Callable[[float], float]
    var: Callable[[float], float]


def _decay(t: float) -> float:
    return math.exp(-(0.1 * t + 19.9 * t * t / 2.0))


def _beta(t: float) -> float:
    return 0.1 + 19.9 * t


def _grown(low: float, high: float) -> Callable[[float], float]:
    return lambda t: low * (high / low) ** t


def _geometric_g2(low: float, high: float, start: float) -> Callable[[float], float]:
    return lambda t: math.log(high / low) * _grown(low, high)(t) / (1 - start + low - _grown(low, high)(t))


WORLDS = {
    "vp": World(VPSDE(), 0.01, _beta, lambda t: 1 - _decay(t)),
    "vp, s20": World(VPSDE(sigma2_0=0.02), 0.0, _beta, lambda t: 1 - 0.98 * _decay(t)),
    "subvp": World(
        SubVPSDE(), 0.01, lambda t: _beta(t) * (1 - _decay(t) ** 2), lambda t: (1 - _decay(t)) ** 2
    ),
    "subvp, s20": World(
        SubVPSDE(sigma2_0=0.02),
        0.0,
        lambda t: _beta(t) * (1 - _decay(t) ** 2),
        lambda t: (1 - _decay(t)) ** 2 + 0.02 * _decay(t),
    ),
    "ve": World(VESDE(), 0.0, lambda t: math.log(9900.0) * _grown(1e-4, 0.99)(t), _grown(1e-4, 0.99)),
    "geometric": World(GeometricVPSDE(), 0.0, _geometric_g2(3e-5, 0.999, 3e-5), _grown(3e-5, 0.999)),
    "geometric, s20": World(
        GeometricVPSDE(1e-4, 0.99, 0.0),
        0.01,
        _geometric_g2(1e-4, 0.99, 0),
        lambda t: _grown(1e-4, 0.99)(t) - 1e-4,
    ),
}


def plain_lambda(world: World, weighting: Weighting, t: float) -> float:
    match weighting:
        case Weighting.LL:
            return world.g2(t) / (2.0 * world.var(t))
        case Weighting.UN:
            return 0.5
        case Weighting.RE:
            return world.g2(t) / 2.0
        case Weighting.RESCALE:
            return 1.0 / (2.0 * (1.0 - world.var(t)))
        case Weighting.EDM:
            mean2 = float(world.sde.mean(torch.tensor(t, dtype=torch.float64))) ** 2
            x = (0.5 * math.log(world.var(t) / mean2) + 1.2) / 1.2
            density = math.exp(-0.5 * x * x) / (1.2 * math.sqrt(2.0 * math.pi))
            slope = world.g2(t) / (2.0 * world.var(t))
            return density * slope * (1.0 + world.var(t) / (0.25 * mean2))


@cache
def integral(name: str, weighting: Weighting, h: str) -> float:
    """Integral of lambda h over [time_eps, 1], by scipy, from the plain formulas alone."""
    world = WORLDS[name]
    functions: dict[str, Callable[[float], float]]
    functions = {"1": lambda t: 1.0, "t": lambda t: t, "cos 5t": lambda t: math.cos(5.0 * t)}
    function = functions[h]
    points = [0.02, 0.1, 0.5, 0.9, 0.97, 0.99, 0.999]
    value, _ = quad(
        lambda t: plain_lambda(world, weighting, t) * function(t),
        world.time_eps,
        1.0,
        points=points,
        limit=400,
    )
    return float(value)


def proposals(world: World) -> list[TimeProposal]:
    """Every proposal there is for the SDE."""
    found = [make_proposal(world.sde, UN, "uniform", world.time_eps)]
    for weighting in Weighting:
        try:
            found.append(make_proposal(world.sde, weighting, "is", world.time_eps))
        except ConfigError:
            continue
    return found


TRIPLES = [
    pytest.param(name, weighting, proposal, id=f"{name}-{weighting.value}-{proposal.name}")
    for name, world in WORLDS.items()
    for weighting in Weighting
    for proposal in dict.fromkeys(proposals(world))
]


@pytest.mark.parametrize(("name", "weighting", "proposal"), TRIPLES)
def test_weighted_draws_estimate_the_integral_of_any_objective_under_any_proposal(
    name: str, weighting: Weighting, proposal: TimeProposal
) -> None:
    sde = WORLDS[name].sde
    t = proposal.sample(RHO)
    weight = importance_weight(sde, weighting, proposal, t)
    for label, h in H.items():
        # quad promises 1.5e-8; an oscillating h loses some of it to cancellation.
        assert mean(weight * h(t)) == pytest.approx(integral(name, weighting, label), rel=1e-7)


@pytest.mark.parametrize(("name", "weighting", "proposal"), TRIPLES)
def test_the_weight_is_the_ratio_of_objective_and_density(
    name: str, weighting: Weighting, proposal: TimeProposal
) -> None:
    sde = WORLDS[name].sde
    t = proposal.sample(RHO)
    ratio = weighting.density(sde, t) / proposal.pdf(t)
    torch.testing.assert_close(importance_weight(sde, weighting, proposal, t), ratio, rtol=1e-11, atol=0.0)


def test_which_proposals_exist() -> None:
    names = {key: sorted({p.name for p in proposals(world)}) for key, world in WORLDS.items()}
    assert names["vp"] == names["subvp"] == ["edm", "is-ll", "is-re", "is-un", "uniform"]
    assert names["ve"] == names["geometric"] == ["edm", "is-ll", "is-re", "uniform"]


def matched(name: str) -> list[tuple[Weighting, TimeProposal]]:
    world = WORLDS[name]
    pairs: list[tuple[Weighting, TimeProposal]] = []
    for weighting in (LL, UN, RE):
        if not (weighting is UN and isinstance(world.sde, GeometricVPSDE)):
            pairs.append((weighting, make_proposal(world.sde, weighting, "is", world.time_eps)))
    return pairs


@pytest.mark.parametrize("name", ["vp", "vp, s20", "ve", "geometric", "geometric, s20"])
def test_matched_importance_sampling_has_no_variance_on_normal_latents(name: str) -> None:
    sde = WORLDS[name].sde
    for weighting, proposal in matched(name):
        t = proposal.sample(RHO)
        error = sde.unit_eps_var(t)
        assert variation(importance_weight(sde, weighting, proposal, t) * error) < 1e-14
        # The same from lambda and r apart, which share no constant.
        assert variation(weighting.density(sde, t) / proposal.pdf(t) * error) < 1e-12


def test_the_unweighted_normaliser_is_right_and_the_authors_is_not() -> None:
    world = WORLDS["vp"]
    proposal = make_proposal(world.sde, UN, "is", 0.01)
    half = proposal.integral(UN)
    assert half is not None
    z = 2.0 * half
    exact, _ = quad(lambda t: 1.0 - world.var(t), 0.01, 1.0)
    assert z == pytest.approx(exact, rel=1e-12)
    assert z == pytest.approx(0.26600370, abs=5e-9)
    slope, root, shift = 19.9, math.sqrt(19.9 / 2.0), 0.1 / 19.9
    span = erf(root * (1.0 + shift)) - erf(root * (0.01 + shift))
    right = math.exp(0.1**2 / (2 * slope)) * math.sqrt(math.pi / (2 * slope)) * span
    wrong = math.exp(0.1 / (2 * slope)) * math.sqrt(math.pi / (2 * slope)) * span
    assert z == pytest.approx(right, rel=1e-12)
    assert wrong / z == pytest.approx(1.002264, abs=1e-6)
    t = proposal.sample(RHO)
    estimate = mean(0.5 * wrong / world.sde.one_minus_var(t) * t)
    assert estimate / integral("vp", UN, "t") == pytest.approx(1.002264, abs=1e-6)
    assert proposal.reference_slip == pytest.approx(wrong / right, rel=1e-12)


def test_uniform_times_carry_the_length_of_their_interval() -> None:
    """Without the factor 1 - time_eps the estimate is the mean over the interval, 1.0101 times too large."""
    world = WORLDS["vp"]
    proposal = make_proposal(world.sde, LL, "uniform", 0.01)
    t = proposal.sample(RHO)
    exact = integral("vp", LL, "1")
    assert mean(importance_weight(world.sde, LL, proposal, t)) == pytest.approx(exact, rel=1e-8)
    assert mean(LL.density(world.sde, t)) / exact == pytest.approx(1.0 / 0.99, rel=1e-8)


def test_the_unweighted_objective_is_the_papers_and_half_of_the_authors() -> None:
    assert integral("vp", UN, "1") == pytest.approx(0.99 / 2)
    proposal = make_proposal(VPSDE(), UN, "is", 0.01)
    weight = importance_weight(VPSDE(), UN, proposal, proposal.sample(RHO))
    assert mean(weight) == pytest.approx(0.99 / 2, rel=1e-8)


def noise_of_objective(sde: SDE, weighting: Weighting, proposal: TimeProposal) -> float:
    """Coefficient of variation over t of the one-sample objective on Normal latents."""
    t = proposal.sample(RHO)
    return variation(importance_weight(sde, weighting, proposal, t) * sde.unit_eps_var(t))


@pytest.mark.parametrize(
    ("weighting", "time_eps", "expected"),
    [(LL, 1e-2, 2.41), (LL, 1e-3, 4.19), (LL, 1e-5, 23.0), (UN, 1e-2, 1.25), (RE, 1e-2, 0.98)],
)
def test_uniform_times_are_as_noisy_as_known(weighting: Weighting, time_eps: float, expected: float) -> None:
    proposal = make_proposal(VPSDE(), weighting, "uniform", time_eps)
    assert noise_of_objective(VPSDE(), weighting, proposal) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize(("source", "expected"), [(UN, 0.96), (RE, 3.45)])
def test_reusing_the_times_of_another_objective_is_as_noisy_as_known(
    source: Weighting, expected: float
) -> None:
    proposal = make_proposal(VPSDE(), source, "is", 0.01)
    assert noise_of_objective(VPSDE(), LL, proposal) == pytest.approx(expected, rel=5e-3)


def test_uniform_times_are_optimal_for_the_likelihood_of_the_geometric_sde() -> None:
    proposal = make_proposal(GeometricVPSDE(), LL, "uniform", 0.0)
    assert noise_of_objective(GeometricVPSDE(), LL, proposal) < 1e-12


@pytest.mark.parametrize("beta_end", [20.0, 20.1, 20.0 + 1e-9, 21.0])
def test_the_unweighted_proposal_survives_an_almost_constant_beta(beta_end: float) -> None:
    sde = VPSDE(20.0, beta_end)
    proposal = make_proposal(sde, UN, "is", 0.01)
    t = proposal.sample(RHO)
    assert 2 * mean(importance_weight(sde, UN, proposal, t) * sde.one_minus_var(t)) == pytest.approx(
        quad(lambda s: sde.one_minus_var(torch.tensor(s, dtype=torch.float64)).item(), 0.01, 1.0)[0], rel=1e-7
    )
    assert noise_of_objective(sde, UN, proposal) < 1e-3
