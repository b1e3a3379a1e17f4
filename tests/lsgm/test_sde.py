"""The forward diffusions solve their differential equations, invert, and stay precise at both ends."""

from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import ClassVar, Literal, get_args, get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from lsgm.config import SDEConfig
from lsgm.errors import ConfigError
from lsgm.likelihood import flow_times
from lsgm.sampling.grids import make_grid
from lsgm.sde import OWN, SDE, VESDE, VPSDE, GeometricVPSDE, SubVPSDE, make_sde
from lsgm.tabulated import TabulatedVPSDE
from lsgm.times import Weighting, make_proposal

EPS = torch.finfo(torch.float64).eps

times = st.floats(1e-6, 1.0)
betas = st.tuples(st.floats(1e-2, 5.0), st.floats(0.0, 40.0)).map(lambda b: (b[0], b[0] + b[1]))
initial = st.one_of(st.just(0.0), st.floats(1e-6, 0.5))
smallest = st.floats(-13.0, -4.0).map(math.exp)
vp = st.builds(lambda b, s: VPSDE(b[0], b[1], s), betas, initial)
subvp = st.builds(lambda b, s: SubVPSDE(b[0], b[1], s), betas, initial)
ve = st.builds(VESDE, smallest, st.floats(0.5, 1e4))
geometric = st.builds(
    lambda low, high, share: GeometricVPSDE(low, high, share * low),
    smallest,
    st.floats(0.5, 0.9999),
    st.floats(0, 1),
)
sdes = st.one_of(vp, subvp, ve, geometric)
invertible = st.one_of(vp, ve, geometric)
ALL = [VPSDE(), VPSDE(sigma2_0=0.01), SubVPSDE(), SubVPSDE(sigma2_0=0.01), VESDE(), GeometricVPSDE()]


def at(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64, requires_grad=True)


def derivative(y: Tensor, t: Tensor) -> float:
    """dy/dt by autograd; 0 where y does not depend on t."""
    if not y.requires_grad:
        return 0.0
    (slope,) = torch.autograd.grad(y, t)
    return slope.item()


@settings(deadline=None)
@given(sdes, times)
def test_the_variance_solves_its_differential_equation(sde: SDE, time: float) -> None:
    t = at(time)
    decay, growth = (2.0 * sde.f(t) * sde.var(t)).item(), sde.g2(t).item()
    slope = derivative(sde.var(t), t)
    # The two terms cancel near equilibrium, so the rounding of each of them is what can be asked for.
    scale = abs(decay) + growth
    assert abs(slope - decay - growth) <= 1e-12 * scale
    assert abs(sde.dvar(t).item() - slope) <= 1e-12 * scale


@settings(deadline=None)
@given(sdes, times)
def test_the_mean_decays_at_the_rate_of_the_drift(sde: SDE, time: float) -> None:
    t = at(time)
    assert derivative(sde.mean(t).log(), t) == pytest.approx(sde.f(t).item(), rel=1e-11, abs=1e-12)


@settings(deadline=None)
@given(st.one_of(vp, geometric), times)
def test_vp_like_means_diffusing_just_enough_to_keep_unit_variance(sde: SDE, time: float) -> None:
    t = at(time)
    assert sde.is_vp_like
    rest = sde.one_minus_var(t).item()
    assert sde.g2(t).item() == pytest.approx(sde.dvar(t).item() / rest, rel=1e-12)
    assert sde.mean(t).item() ** 2 * (1.0 - sde.sigma2_0) == pytest.approx(rest, rel=1e-12)


@settings(deadline=None)
@given(invertible, times)
def test_time_is_recovered_from_the_variance_to_its_rounding(sde: SDE, time: float) -> None:
    t = torch.tensor(time, dtype=torch.float64)
    v = sde.var(t)
    # A variance is known to half an ulp, a time therefore to that over d var/dt.
    rounding = 8.0 * EPS * (v / sde.dvar(t) + 1.0).item()
    assert abs(sde.inv_var(v).item() - time) <= rounding


@pytest.mark.parametrize("sde", [VPSDE(), VPSDE(5.0, 5.0)], ids=repr)
def test_small_times_are_recovered_to_relative_precision_without_initial_variance(sde: SDE) -> None:
    t = torch.logspace(-14, -1, 27, dtype=torch.float64)
    torch.testing.assert_close(sde.inv_var(sde.var(t)), t, rtol=1e-14, atol=0.0)


def test_the_variance_of_the_sub_vp_sde_has_no_inverse_and_lies_below_that_of_the_vp_sde() -> None:
    t = torch.linspace(0.0, 1.0, 101, dtype=torch.float64)
    sde = SubVPSDE()
    assert (sde.var(t) <= sde.guide.var(t)).all()
    with pytest.raises(NotImplementedError, match="its guide"):
        sde.inv_var(t)


@pytest.mark.parametrize("time", [1e-12, 1e-9, 1e-5, 0.5, 1.0 - 2**-20, 1.0])
def test_nothing_cancels_at_either_end(time: float) -> None:
    """var and 1 - var agree with 60-digit arithmetic to a few ulps, relative to themselves."""
    t = torch.tensor(time, dtype=torch.float64)
    with localcontext() as context:
        context.prec = 60
        exact, start, low, high = map(Decimal.from_float, (time, 0.1, 3e-5, 0.999))
        one = Decimal(1)
        decay = (-(start * exact + (20 - start) * exact * exact / 2)).exp()
        ratio = (exact * (high / low).ln()).exp()
        grown = low * ratio
        cases: list[tuple[SDE, Decimal]] = [
            (VPSDE(), one - decay),
            (SubVPSDE(), (one - decay) ** 2),
            (GeometricVPSDE(), grown),
        ]
        for sde, variance in cases:
            assert float(Decimal(sde.var(t).item()) / variance - one) == pytest.approx(0.0, abs=16 * EPS)
            rest = Decimal(sde.one_minus_var(t).item()) / (one - variance) - one
            # exp(-B) magnifies the rounding of B = 10, and 1 - sigma_1^2 = 0.001 that of 0.999: tens of ulps.
            assert float(rest) == pytest.approx(0.0, abs=64 * EPS)


def test_the_naive_variance_would_be_lost_at_small_times() -> None:
    t = torch.tensor(1e-12, dtype=torch.float64)
    naive = 1.0 - math.exp(-1e-13)
    assert abs(naive / VPSDE().var(t).item() - 1.0) > 1e-4


def test_the_default_vp_sde_has_the_published_variances() -> None:
    t = torch.tensor([1.0, 1e-5, 1e-2], dtype=torch.float64)
    expected = torch.tensor([0.99995681, 1.0010e-6, 0.0019930], dtype=torch.float64)
    torch.testing.assert_close(VPSDE().var(t), expected, rtol=5e-5, atol=1e-8)


def test_the_geometric_variance_grows_at_a_constant_rate_from_its_smallest_value() -> None:
    sde = GeometricVPSDE()
    t = torch.linspace(0.0, 1.0, 33, dtype=torch.float64)
    torch.testing.assert_close(
        sde.dvar(t) / sde.var(t), torch.full_like(t, math.log(0.999 / 3e-5)), rtol=1e-13, atol=0.0
    )
    assert sde.g2(t)[-1].item() == pytest.approx(1.04e4, rel=2e-3)


@pytest.mark.parametrize("sde", ALL, ids=repr)
def test_schedules_are_float64_of_the_shape_of_t_even_for_float32_times(sde: SDE) -> None:
    for t in (torch.rand(2, 3), torch.rand(()), torch.rand(0), torch.ones(2, dtype=torch.float64)):
        functions = [sde.f, sde.g2, sde.mean, sde.var, sde.dvar, sde.sigma, sde.one_minus_var]
        for function in [*functions, sde.marginal_var, sde.unit_eps_coef, sde.unit_eps_var]:
            value = function(t)
            assert value.dtype == torch.float64
            assert value.shape == t.shape


@pytest.mark.parametrize("sde", ALL, ids=repr)
def test_the_unit_coefficient_is_the_regression_of_the_noise_on_the_noisy_latent(sde: SDE) -> None:
    draws = 400_000
    generator = torch.Generator().manual_seed(0)
    z0, eps = torch.randn(2, draws, generator=generator, dtype=torch.float64)
    for time in (0.05, 0.4, 1.0):
        t = torch.tensor(time, dtype=torch.float64)
        z_t = sde.mean(t) * math.sqrt(1.0 - sde.sigma2_0) * z0 + sde.sigma(t) * eps
        slope = (eps @ z_t / (z_t @ z_t)).item()
        # The residual has at most unit variance and z_t at least 0.1: five standard errors are below this.
        tolerance = 5.0 / math.sqrt(draws) * (sde.unit_eps_var(t) / sde.marginal_var(t)).sqrt().item()
        assert sde.unit_eps_coef(t).item() == pytest.approx(slope, abs=tolerance + 1e-12)
        residual = (eps - sde.unit_eps_coef(t) * z_t).square().mean().item()
        assert sde.unit_eps_var(t).item() == pytest.approx(residual, rel=5.0 * math.sqrt(2.0 / draws))


@settings(deadline=None)
@given(st.one_of(vp, geometric), times)
def test_the_shortcuts_of_vp_like_sdes_agree_with_the_general_formulas(sde: SDE, time: float) -> None:
    t = torch.tensor([time], dtype=torch.float64)
    for name in ("marginal_var", "unit_eps_coef", "unit_eps_var"):
        torch.testing.assert_close(getattr(sde, name)(t), getattr(SDE, name)(sde, t), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("sde", ALL, ids=repr)
def test_the_terminal_kl_is_the_divergence_of_two_normals(sde: SDE) -> None:
    z0 = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    end = Normal(sde.mean(one) * z0, sde.sigma(one).expand(4, 3))
    expected = kl_divergence(end, Normal(torch.zeros(4, 3), math.sqrt(sde.prior_var)))
    # The oracle subtracts numbers of order 1; prior and noise are its float64 square roots.
    torch.testing.assert_close(sde.terminal_kl(z0), expected, rtol=1e-7, atol=1e-14)


@pytest.mark.parametrize(
    ("sde", "size"),
    [(VPSDE(), 2.16e-5), (GeometricVPSDE(), 5.0e-4), (GeometricVPSDE(1e-4, 0.99, 1e-4), 5.1e-3)],
    ids=repr,
)
def test_the_terminal_kl_of_unit_latents_has_the_known_size(sde: SDE, size: float) -> None:
    assert sde.terminal_kl(torch.ones(1)).item() == pytest.approx(size, rel=0.02)


def test_the_terminal_kl_is_differentiable_and_float64_for_float32_latents() -> None:
    z0 = torch.randn(3, requires_grad=True)
    kl = VPSDE().terminal_kl(z0)
    (gradient,) = torch.autograd.grad(kl.sum(), z0)
    assert kl.dtype == torch.float64
    torch.testing.assert_close(gradient, math.exp(-10.05) * z0.detach())


@pytest.mark.parametrize("sde", ALL, ids=repr)
def test_the_prior_is_a_centred_normal(sde: SDE) -> None:
    z1 = torch.randn(5, 2, 3, 3, dtype=torch.float64)
    expected = norm(0.0, math.sqrt(sde.prior_var)).logpdf(z1.numpy()).sum(axis=(1, 2, 3))
    torch.testing.assert_close(sde.log_prior(z1), torch.from_numpy(expected), rtol=1e-13, atol=0.0)


def test_the_entropy_constant_has_the_known_values_and_needs_noise() -> None:
    assert VPSDE().entropy_const(0.01) == pytest.approx(-1.6901, abs=5e-5)
    assert GeometricVPSDE().entropy_const(0.0) == pytest.approx(-3.7882, abs=5e-5)
    with pytest.raises(ConfigError, match="time-eps is 0"):
        VPSDE().entropy_const(0.0)


@pytest.mark.parametrize("sde", ALL, ids=repr)
def test_an_sde_is_a_value(sde: SDE) -> None:
    sde.terminal_kl(torch.ones(1))
    assert pickle.loads(pickle.dumps(sde)) == sde
    assert hash(dataclasses.replace(sde)) == hash(sde)  # type: ignore[type-var]
    with pytest.raises(dataclasses.FrozenInstanceError):
        sde.sigma2_0 = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("config", "sde"),
    [
        (SDEConfig(), VPSDE(0.1, 20.0, 0.0)),
        (SDEConfig("vp", 0.2, 10.0, 0.01), VPSDE(0.2, 10.0, 0.01)),
        (SDEConfig("subvp"), SubVPSDE(0.1, 20.0, 0.0)),
        (SDEConfig("ve"), VESDE(1e-4, 0.99)),
        (SDEConfig("ve", sigma2_min=1e-3, sigma2_max=50.0), VESDE(1e-3, 50.0)),
        (SDEConfig("geometric"), GeometricVPSDE(3e-5, 0.999, 3e-5)),
        (SDEConfig("geometric", sigma2_min=1e-4), GeometricVPSDE(1e-4, 0.999, 1e-4)),
        (SDEConfig("geometric", sigma2_0=0.0), GeometricVPSDE(3e-5, 0.999, 0.0)),
    ],
    ids=repr,
)
def test_a_configuration_names_an_sde(config: SDEConfig, sde: SDE) -> None:
    assert make_sde(config) == sde


Kind = Literal["vp", "subvp", "ve", "geometric"]


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("vp", {"beta_start": 0.0}, "beta-start"),
        ("vp", {"beta_end": 0.05}, "beta-end"),
        ("subvp", {"beta_end": 100.0}, "at most 60"),
        ("vp", {"sigma2_0": 1.0}, "sigma2-0"),
        ("vp", {"beta_end": math.nan}, "beta-end"),
        ("vp", {"sigma2_max": 0.9}, "no meaning"),
        ("ve", {"sigma2_min": 0.0}, "sigma2-min"),
        ("ve", {"sigma2_max": 1e-5}, "sigma2-max"),
        ("ve", {"sigma2_max": math.inf}, "sigma2-max"),
        ("ve", {"sigma2_0": 0.5}, "leave sigma2-0 out"),
        ("geometric", {"sigma2_max": 1.0}, "sigma2-max"),
        ("geometric", {"sigma2_0": 0.1}, "variance at t = 1"),
        ("geometic", {}, "did you mean 'geometric'"),
    ],
)
def test_values_out_of_range_are_named(kind: Kind, options: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_sde(SDEConfig(kind, **options))


def test_the_names_of_recipes_are_those_of_the_classes() -> None:
    """The configuration lists them without importing torch."""
    (kind,) = (field for field in dataclasses.fields(SDEConfig) if field.name == "kind")
    known = get_args(get_type_hints(SDEConfig)[kind.name])
    assert known[: len(OWN)] == tuple(OWN)
    assert all(make_sde(SDEConfig(name)).name == name for name in OWN)


class Bare(VPSDE):
    """An SDE of another package that offers no proposals."""

    name = "bare"
    proposals: ClassVar[Mapping[str, str]] = {}


def test_without_a_matched_proposal_times_are_uniform_or_one_sentence_says_so() -> None:
    sde = Bare()
    assert make_proposal(sde, Weighting.UN, "uniform", 0.01).name == "uniform"
    with pytest.raises(ConfigError, match="no importance sampling for weighting 'un' with the Bare; times"):
        make_proposal(sde, Weighting.UN, "is", 0.01)
    grid = make_grid(sde, sde.grid, 4, 0.01)
    assert (grid[0], grid[-1]) == (1.0, 0.01)
    assert flow_times(sde, 4, 0.01).tolist() == VPSDE().flow_times(4, 0.01).tolist()


def test_an_sde_made_of_more_than_a_recipes_numbers_is_in_no_recipe() -> None:
    with pytest.raises(ConfigError, match="TabulatedVPSDE is made of more than a recipe's numbers"):
        TabulatedVPSDE.of(SDEConfig())
