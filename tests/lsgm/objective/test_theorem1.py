"""Theorem 1 of arXiv:2106.05931 in its exact, finite form, against cross entropies known in closed form.

For a posterior q(z_0|x) = N(mu, s^2) and the prior whose diffusion has marginals p_t = N(0, n_t),

    CE(q(z_e|x) || p_e) = int_e^1 lambda E(eps - eps*)^2 dt + log(2 pi e var_e)/2 + E KL(q(z_1|z_0) || p_1).
"""

from __future__ import annotations

import math

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from lsgm.sde import SDE, VESDE, VPSDE, GeometricVPSDE, SubVPSDE
from lsgm.times import Weighting, importance_weight, make_proposal

MU, S2 = 0.7, 0.2**2
SECOND = MU**2 + S2
"""Second moment of the posterior, all that an average squared error depends on."""


def scalar(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


def error(sde: SDE, t: Tensor, second: float = SECOND) -> Tensor:
    """E(eps - c z_t)^2 for z_t = m z_0 + sigma eps and E z_0^2 = second."""
    c = sde.unit_eps_coef(t)
    return (1.0 - c * sde.sigma(t)).square() + c.square() * sde.mean(t).square() * second


def matching_integral(sde: SDE, time_eps: float, second: float = SECOND) -> float:
    """The score-matching term, by scipy."""
    value, _ = quad(
        lambda t: (Weighting.LL.density(sde, scalar(t)) * error(sde, scalar(t), second)).item(),
        time_eps,
        1.0,
        points=[0.05, 0.5, 0.95, 0.99],
        epsabs=1e-12,
        epsrel=1e-11,
        limit=400,
    )
    return float(value)


def cross_entropy(sde: SDE, time_eps: float, second: float = SECOND) -> float:
    """CE(q(z_e|x) || N(0, n_e)) in closed form."""
    t = scalar(time_eps)
    n = sde.marginal_var(t).item()
    return 0.5 * (math.log(2.0 * math.pi * n) + (sde.mean(t).item() ** 2 * second + sde.var(t).item()) / n)


def terminal(sde: SDE, second: float = SECOND) -> float:
    """E KL(q(z_1|z_0) || p_1) for the diffused prior p_1 = N(0, n_1)."""
    t = scalar(1.0)
    n, var = sde.marginal_var(t).item(), sde.var(t).item()
    return 0.5 * (sde.mean(t).item() ** 2 * second / n + var / n - 1.0 - math.log(var / n))


WORLDS = [
    (VPSDE(), 0.01),
    (VPSDE(sigma2_0=0.02), 0.0),
    (GeometricVPSDE(), 0.0),
    (GeometricVPSDE(1e-4, 0.99, 1e-4), 0.0),
    (SubVPSDE(), 0.01),
    (SubVPSDE(sigma2_0=0.02), 0.0),
    (VESDE(), 0.0),
    (VESDE(1e-3, 20.0), 0.05),
]


@pytest.mark.parametrize(("sde", "time_eps"), WORLDS, ids=repr)
def test_the_cross_entropy_is_the_integral_plus_entropy_plus_terminal_kl(sde: SDE, time_eps: float) -> None:
    total = matching_integral(sde, time_eps) + sde.entropy_const(time_eps) + terminal(sde)
    assert total == pytest.approx(cross_entropy(sde, time_eps), abs=1e-9)


@pytest.mark.parametrize(
    ("sde", "time_eps", "exact", "without", "gap"),
    [
        (VPSDE(), 0.01, 1.184407, 1.184395, 1.14e-5),
        (GeometricVPSDE(), 0.0, 1.183954, 1.183688, 2.65e-4),
    ],
    ids=repr,
)
def test_dropping_the_terminal_kl_misses_the_cross_entropy_by_the_known_amount(
    sde: SDE, time_eps: float, exact: float, without: float, gap: float
) -> None:
    dropped = matching_integral(sde, time_eps) + sde.entropy_const(time_eps)
    kl = sde.terminal_kl(torch.tensor([math.sqrt(SECOND)], dtype=torch.float64)).item()
    assert cross_entropy(sde, time_eps) == pytest.approx(exact, abs=1e-6)
    assert dropped == pytest.approx(without, abs=1e-6)
    assert kl == pytest.approx(gap, rel=5e-3)
    assert cross_entropy(sde, time_eps) - dropped == pytest.approx(kl, abs=1e-9)


def test_without_the_interval_length_a_uniform_estimate_would_be_wrong() -> None:
    """A mean over uniform t on [0.01, 1] is 1/0.99 of the integral: 0.03 nats per dimension too much."""
    sde = VPSDE()
    integral = matching_integral(sde, 0.01)
    assert integral / 0.99 - integral == pytest.approx(0.029, abs=1e-3)


@pytest.mark.parametrize(
    ("sde", "time_eps"), [(VPSDE(), 0.01), (GeometricVPSDE(), 0.0), (GeometricVPSDE(), 0.2)], ids=repr
)
def test_unit_latents_under_the_unit_prior_have_the_entropy_of_a_normal(sde: SDE, time_eps: float) -> None:
    """1.4189 = log(2 pi e)/2, of which the integral is log(var_1/var_e)/2: its value at every single t."""
    second = 1.0 - sde.sigma2_0
    proposal = make_proposal(sde, Weighting.LL, "is", time_eps)
    t = proposal.sample(torch.linspace(0.0, 1.0, 65, dtype=torch.float64))
    values = importance_weight(sde, Weighting.LL, proposal, t) * error(sde, t, second)
    half_log = 0.5 * math.log(sde.var(scalar(1.0)).item() / sde.var(scalar(time_eps)).item())
    torch.testing.assert_close(values, torch.full_like(t, half_log), rtol=1e-12, atol=0.0)
    if isinstance(sde, VPSDE):
        assert half_log == pytest.approx(3.109, abs=5e-4)
    kl = sde.terminal_kl(torch.tensor(math.sqrt(second), dtype=torch.float64)).item()
    total = half_log + sde.entropy_const(time_eps) + kl
    assert total == pytest.approx(0.5 * math.log(2.0 * math.pi * math.e), abs=1e-12)


@pytest.mark.parametrize("kind", ["is", "uniform"])
def test_sampled_noise_and_times_average_to_the_cross_entropy(kind: str) -> None:
    """The objective as training computes it: one t and one eps per latent, stratified in rho."""
    sde, draws = VPSDE(), 400_000
    generator = torch.Generator().manual_seed(3)
    z0, eps = torch.randn(2, draws, generator=generator, dtype=torch.float64)
    proposal = make_proposal(sde, Weighting.LL, kind, 0.01)  # type: ignore[arg-type]
    t = proposal.sample((torch.arange(draws, dtype=torch.float64) + 0.5) / draws)
    z_t = sde.mean(t) * z0 + sde.sigma(t) * eps
    weight = importance_weight(sde, Weighting.LL, proposal, t)
    ce = weight * (eps - sde.unit_eps_coef(t) * z_t).square() + sde.entropy_const(0.01) + sde.terminal_kl(z0)
    # Five standard errors; with importance sampling all of the spread is that of a chi-square.
    assert ce.mean().item() == pytest.approx(1.41894, abs=5.0 * ce.std().item() / math.sqrt(draws))
    if kind == "is":
        assert ce.std().item() == pytest.approx(3.109 * math.sqrt(2.0), rel=0.02)
