"""Times and weights follow the published formulas, stay in their interval and have the density they claim."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf, erfinv
from torch import Tensor

from lsgm.errors import ConfigError
from lsgm.sde import SDE, VESDE, VPSDE, GeometricVPSDE, SubVPSDE
from lsgm.times import Weighting, importance_weight, make_proposal

LL, UN, RE, RESCALE, _ = Weighting


@pytest.mark.parametrize("start", [0.0, 0.02])
def test_vp_times_and_weights_are_the_published_formulas(start: float) -> None:
    sde = VPSDE(sigma2_0=start)
    ve, v1 = sde.var(torch.tensor([0.01, 1.0], dtype=torch.float64)).tolist()
    rho = torch.linspace(0.0, 0.999, 200, dtype=torch.float64)
    ll, un, re = (make_proposal(sde, weighting, "is", 0.01) for weighting in (LL, UN, RE))
    torch.testing.assert_close(ll.sample(rho), sde.inv_var(v1**rho * ve ** (1 - rho)), rtol=1e-9, atol=0.0)
    torch.testing.assert_close(re.sample(rho), sde.inv_var(v1 * rho + ve * (1 - rho)), rtol=1e-9, atol=0.0)
    root, shift = math.sqrt(19.9 / 2.0), 0.1 / 19.9
    low, high = erf(root * (0.01 + shift)), erf(root * (1.0 + shift))
    quantile = torch.from_numpy(erfinv(rho.numpy() * (high - low) + low)) / root - shift
    torch.testing.assert_close(un.sample(rho), quantile, rtol=1e-9, atol=0.0)
    t = torch.linspace(0.01, 1.0, 100, dtype=torch.float64)
    # The published Z belongs to a weighting of 1; half of it is the integral.
    rest, z = 1.0 - sde.var(t), 2.0 * (un.integral(UN) or 0.0)
    expected = {
        (LL, ll): 0.5 * math.log(v1 / ve) / rest,
        (RE, re): 0.5 * (v1 - ve) / rest,
        (LL, re): 0.5 * (v1 - ve) / rest / sde.var(t),
        (UN, un): 0.5 * z / rest,
        (LL, un): z / rest * sde.g2(t) / (2 * sde.var(t)),
    }
    for (weighting, proposal), weight in expected.items():
        torch.testing.assert_close(
            importance_weight(sde, weighting, proposal, t), weight, rtol=1e-9, atol=0.0
        )


def test_sub_vp_weights_are_the_published_formulas() -> None:
    sde = SubVPSDE()
    vp, beta = sde.guide, sde.beta
    ve, v1 = vp.var(torch.tensor([0.01, 1.0], dtype=torch.float64)).tolist()
    ll, un, re = (make_proposal(sde, weighting, "is", 0.01) for weighting in (LL, UN, RE))
    assert [ll, un, re] == [make_proposal(vp, weighting, "is", 0.01) for weighting in (LL, UN, RE)]
    t = torch.linspace(0.01, 1.0, 100, dtype=torch.float64)
    rest, g2, var = vp.one_minus_var(t), sde.g2(t), sde.var(t)
    p_re = 0.5 * g2 / beta(t) * (v1 - ve) / rest
    p_un = 2.0 * (un.integral(UN) or 0.0) / rest
    expected = {
        (LL, ll): g2 / (2 * var) * math.log(v1 / ve) * vp.var(t) / rest / beta(t),
        (RE, re): p_re,
        (LL, re): p_re / var,
        (UN, un): 0.5 * p_un,
        (LL, un): p_un * g2 / (2 * var),
    }
    for (weighting, proposal), weight in expected.items():
        torch.testing.assert_close(
            importance_weight(sde, weighting, proposal, t), weight, rtol=1e-12, atol=0.0
        )


@pytest.mark.parametrize("high", [0.99, 50.0])
def test_ve_times_and_weights_are_the_published_formulas(high: float) -> None:
    low = 1e-4
    sde = VESDE(low, high)
    rate = math.log(high / low)
    n_e, n_1 = 1.0, 1.0 - low + high
    constant = math.log(high / n_1) + math.log(n_e / low)
    rho = torch.linspace(0.0, 1.0, 201, dtype=torch.float64)
    ll, un, re = (make_proposal(sde, weighting, "is", 0.0) for weighting in (LL, UN, RE))
    assert ll == un
    share = (rho * constant + math.log(low / n_e)).exp()

    def inverse(n: Tensor) -> Tensor:
        return ((n + low - 1.0) / low).log() / rate

    # The published inverse subtracts 1 from an N near 1, so it is the oracle that limits the precision.
    torch.testing.assert_close(ll.sample(rho), inverse((1 - low) / (1 - share)), rtol=0.0, atol=1e-11)
    torch.testing.assert_close(re.sample(rho), inverse(n_1**rho), rtol=0.0, atol=1e-11)
    t = torch.linspace(0.0, 1.0, 100, dtype=torch.float64)
    n, var = 1.0 - low + sde.var(t), sde.var(t)
    p_ll, p_re = 0.5 * constant * n / (1 - low), 0.5 * math.log(n_1 / n_e) * n
    expected = {(LL, ll): p_ll, (UN, un): p_ll / rate, (RE, re): p_re, (LL, re): p_re / var}
    for (weighting, proposal), weight in expected.items():
        torch.testing.assert_close(
            importance_weight(sde, weighting, proposal, t), weight, rtol=1e-11, atol=0.0
        )


betas = st.tuples(st.floats(0.05, 5.0), st.floats(0.0, 20.0)).map(lambda b: (b[0], b[0] + b[1]))
sdes = st.one_of(
    st.builds(lambda b, s: VPSDE(b[0], b[1], s), betas, st.sampled_from([0.0, 1e-3, 0.3])),
    st.builds(VESDE, st.floats(1e-6, 1e-2), st.floats(0.5, 1e3)),
    st.builds(
        lambda low, high: GeometricVPSDE(low, high, low), st.floats(1e-6, 1e-2), st.floats(0.5, 0.9999)
    ),
)


@settings(deadline=None)
@given(sdes, st.sampled_from([LL, UN, RE]), st.floats(1e-5, 0.5), st.floats(1e-3, 1.0 - 1e-3))
def test_draws_have_the_density_of_the_proposal(
    sde: SDE, weighting: Weighting, time_eps: float, uniform: float
) -> None:
    """r(t) dt/d rho = 1, the derivative by autograd through the inverse."""
    kind: Literal["uniform", "is"] = (
        "uniform" if weighting is UN and isinstance(sde, GeometricVPSDE) else "is"
    )
    proposal = make_proposal(sde, weighting, kind, time_eps)
    rho = torch.tensor(uniform, dtype=torch.float64, requires_grad=True)
    t = proposal.sample(rho)
    (slope,) = torch.autograd.grad(t, rho)
    # The inverse near t = 1 is as good as the rounding of 1 - var: 1e-16 / (1 - var) / beta, here below 1e-7.
    assert (proposal.pdf(t) * slope).item() == pytest.approx(1.0, rel=1e-6)


@settings(deadline=None)
@given(sdes, st.sampled_from([LL, UN, RE]), st.floats(1e-5, 0.9))
def test_draws_stay_in_the_interval_even_at_its_ends(sde: SDE, weighting: Weighting, time_eps: float) -> None:
    kinds: tuple[Literal["uniform"], Literal["is"]] = ("uniform", "is")
    for kind in kinds:
        if kind == "is" and weighting is UN and isinstance(sde, GeometricVPSDE):
            continue
        proposal = make_proposal(sde, weighting, kind, time_eps)
        t = proposal.sample(torch.tensor([0.0, 2.0**-53, 0.5, 1.0 - 2.0**-53, 1.0], dtype=torch.float64))
        assert ((t >= time_eps) & (t <= 1.0)).all()
        assert (t.diff() >= 0.0).all()
        assert t[0].item() == pytest.approx(time_eps, rel=1e-9, abs=1e-12)
        assert importance_weight(sde, weighting, proposal, t).isfinite().all()


def test_the_last_draw_is_at_the_end_even_where_the_gaussian_tail_is_tiny() -> None:
    """1 - var(1) = 1e-13 here, all of which low + rho (high - low) would round away."""
    for beta_end in range(48, 60):
        proposal = make_proposal(VPSDE(0.5, float(beta_end)), UN, "is", 0.01)
        last = proposal.sample(torch.ones((), dtype=torch.float64)).item()
        assert last == pytest.approx(1.0, abs=1e-12)


def test_draws_are_float64_of_the_shape_of_float32_rho() -> None:
    for weighting in (LL, UN, RE):
        proposal = make_proposal(VPSDE(), weighting, "is", 0.01)
        t = proposal.sample(torch.rand(2, 3))
        assert t.dtype == torch.float64
        assert t.shape == proposal.pdf(t).shape == (2, 3)
        assert importance_weight(VPSDE(), weighting, proposal, t).dtype == torch.float64


@pytest.mark.parametrize("sde", [VPSDE(), SubVPSDE(), VESDE(), GeometricVPSDE()], ids=repr)
def test_times_and_weights_stay_on_the_device_of_their_input(sde: SDE) -> None:
    """The meta device refuses any mixing with tensors of another device, as a GPU would."""
    rho = torch.empty(3, device="meta")
    for weighting in (LL, RE):
        proposal = make_proposal(sde, weighting, "is", 0.01)
        t = proposal.sample(rho)
        for value in (t, proposal.pdf(t), importance_weight(sde, weighting, proposal, t)):
            assert value.device.type == "meta"
            assert value.dtype == torch.float64


@pytest.mark.parametrize(
    ("sde", "weighting", "kind", "time_eps", "words"),
    [
        (GeometricVPSDE(), UN, "is", 0.0, "'un' with the GeometricVPSDE; it exists for ll, re and edm"),
        (VPSDE(), RESCALE, "is", 0.01, "'rescale' with the VPSDE; it exists for ll, un, re and edm"),
        (VPSDE(), LL, "is", 0.0, "time-eps above 0"),
        (VPSDE(), LL, "uniform", 0.0, "time-eps above 0"),
        (VPSDE(), UN, "uniform", 1.0, "time-eps is 1"),
        (VPSDE(), UN, "iw", 0.01, "available: uniform, is"),
    ],
)
def test_what_does_not_exist_is_said_with_what_does(
    sde: SDE, weighting: Weighting, kind: Literal["uniform", "is"], time_eps: float, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        make_proposal(sde, weighting, kind, time_eps)
