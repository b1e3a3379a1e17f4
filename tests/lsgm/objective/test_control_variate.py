"""The control variate of the cross entropy, in worlds where everything is known.

For z_0 ~ N(mu, lambda) the marginals are N(m_t mu, V_t), and for each z_0

    int_e^1 g^2 / (2 var) E (eps - eps_c)^2 dt = KL(q_e || p^N_e) - KL(q_1 || p^N_1).

Expectations over eps are exact here: what stands under them is a polynomial in eps of degree 2, which two
Gauss-Hermite nodes integrate, and integrals over t are scipy's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from torch import Tensor, nn

from lsgm.objective.bound import Objective, Times, diffuse
from lsgm.score import (
    SMALLEST_VARIANCE,
    NormalLatents,
    NormalReference,
    Parameterisation,
    ScoreModel,
    cosines,
    standard_normal,
)
from lsgm.sde import SDE, VESDE, VPSDE, GeometricVPSDE, SubVPSDE

WORLDS = [
    (VPSDE(), 0.01),
    (VPSDE(sigma2_0=0.02), 0.0),
    (GeometricVPSDE(1e-4, 0.99, 1e-4), 0.0),
    (SubVPSDE(), 0.01),
    (SubVPSDE(sigma2_0=0.02), 0.0),
    (VESDE(), 0.01),
    (VESDE(1e-3, 20.0), 0.05),
]
LAWS = [(0.0, None), (0.4, 0.6), (-0.3, 1.9)]
"""Mean and variance of a Normal law; None is 1 - sigma2_0, the mixed score's own."""
POINTS = [-1.3, 0.2, 0.9]


def scalar(t: float) -> Tensor:
    return torch.tensor([t], dtype=torch.float64)


def law_of(sde: SDE, law: tuple[float, float | None]) -> NormalLatents:
    mean, var = law
    return NormalLatents(
        scalar(mean).reshape(()), scalar(1 - sde.sigma2_0 if var is None else var).reshape(())
    )


def kl(mean: float, var: float, other_mean: float, other_var: float) -> float:
    """KL(N(mean, var) || N(other_mean, other_var))."""
    return 0.5 * ((var + (mean - other_mean) ** 2) / other_var - 1 - math.log(var / other_var))


def integral(function: Callable[[float], float], time_eps: float) -> float:
    value, _ = quad(
        function, time_eps, 1.0, points=[0.05, 0.5, 0.95, 0.99], epsabs=1e-11, epsrel=1e-10, limit=400
    )
    return float(value)


@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize(("sde", "time_eps"), WORLDS, ids=repr)
def test_the_normal_predictions_error_is_known_for_each_z_0(
    sde: SDE, time_eps: float, law: tuple[float, float | None]
) -> None:
    normal, z_0 = law_of(sde, law), 0.8
    mu, lam = float(normal.mean), float(normal.var)

    def weighted(t: float) -> float:
        m, var, g2 = (float(x) for x in (sde.mean(scalar(t)), sde.var(scalar(t)), sde.g2(scalar(t))))
        c = math.sqrt(var) / (m * m * lam + var)
        # E (eps - c (m (z_0 - mu) + sigma eps))^2
        return g2 / (2 * var) * ((1 - c * math.sqrt(var)) ** 2 + (c * m * (z_0 - mu)) ** 2)

    def divergence(t: float) -> float:
        m, var = float(sde.mean(scalar(t))), float(sde.var(scalar(t)))
        return kl(m * z_0, var, m * mu, m * m * lam + var)

    known = divergence(time_eps) - divergence(1.0)
    assert integral(weighted, time_eps) == pytest.approx(known, abs=1e-8)


class Linear(nn.Module):
    """A network whose output is (0.7 - 0.5 t) z_t + 0.3 t: no Normal law's prediction."""

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        t = t.to(z_t.dtype).reshape(-1, 1, 1, 1)
        return (0.7 - 0.5 * t) * z_t + 0.3 * t


FORMS: list[tuple[Parameterisation, float | None]] = [("mixed", 0.4), ("velocity", None), ("mixed", None)]
"""Mixed, velocity, and a network that stands alone."""


def model(sde: SDE, form: tuple[Parameterisation, float | None], law: NormalLatents | None) -> ScoreModel:
    """A score model of one latent, with a law of its own to compare with."""
    kind, mixing = form
    channels = None if kind == "mixed" and mixing is None else 1
    score = ScoreModel(
        sde,
        Linear(),
        channels=channels,
        parameterisation=kind,
        mixing_init=mixing or 0.0,
        reference_shape=(1, 1, 1),
    ).double()
    if law is not None:
        assert score.reference is not None
        score.reference.mean.fill_(float(law.mean))
        score.reference.var.fill_(float(law.var))
    return score


def estimate(
    objective: Objective, score: ScoreModel, z_0: float, t: float, eps: float, k: float = 1.0
) -> tuple[float, float]:
    """Return one draw's value and gradient with respect to z_0, weighted as under the proposal at t."""
    point = torch.full((1, 1, 1, 1), z_0, dtype=torch.float64, requires_grad=True)
    times = Times(scalar(t), *objective.weights(scalar(t)))
    drawn = torch.full_like(point, eps).detach()
    ce = objective.cross_entropy(score, point, times, drawn, kl_weight=k)
    (gradient,) = torch.autograd.grad(ce.surrogate.sum(), point)
    return float(ce.value), float(gradient)


NODES, MASSES = np.polynomial.legendre.leggauss(64)


def expected(objective: Objective, score: ScoreModel, z_0: float, k: float = 1.0) -> tuple[float, float]:
    """Return the expectations over eps and t ~ the proposal of a draw's value and gradient.

    All nodes of a Gauss-Legendre rule on five pieces of [time_eps, 1] are evaluated as one batch.
    """
    ends = np.array([objective.time_eps, 0.05, 0.5, 0.95, 0.99, 1.0])
    ends = np.unique(np.maximum(ends, objective.time_eps))
    half = np.diff(ends)[:, None] / 2
    t = torch.from_numpy((ends[:-1, None] + half * (NODES + 1)).ravel())
    mass = torch.from_numpy((half * MASSES).ravel()) * objective.proposal.pdf(t)
    # E p(eps) for a polynomial p of degree 2 is its mean over eps = -1, 1.
    t, mass = torch.cat([t, t]), torch.cat([mass, mass]) / 2
    eps = torch.ones(len(t), 1, 1, 1, dtype=torch.float64)
    eps[: len(t) // 2] = -1.0
    point = torch.full_like(eps, z_0).requires_grad_()
    ce = objective.cross_entropy(score, point, Times(t, *objective.weights(t)), eps, kl_weight=k)
    (gradient,) = torch.autograd.grad(ce.surrogate.sum(), point)
    return float(mass @ ce.value), float(mass @ gradient.flatten())


CASES: list[tuple[SDE, float, str, bool]] = [
    (VPSDE(), 0.01, "ll", True),
    (VPSDE(), 0.01, "un", True),
    (VPSDE(), 0.01, "re", False),
    (VPSDE(sigma2_0=0.02), 0.0, "un", False),
    (GeometricVPSDE(1e-3, 0.99, 1e-3), 0.0, "ll", True),
    (GeometricVPSDE(1e-3, 0.99, 1e-3), 0.0, "re", True),
    (SubVPSDE(), 0.01, "un", True),
    (SubVPSDE(sigma2_0=0.02), 0.0, "ll", False),
    (VESDE(1e-3, 20.0), 0.05, "ll", True),
    (VESDE(1e-3, 20.0), 0.05, "re", False),
]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize(("sde", "time_eps", "weighting", "importance"), CASES, ids=repr)
def test_value_and_gradient_have_the_expectation_that_they_have_without_it(
    sde: SDE,
    time_eps: float,
    weighting: str,
    importance: bool,
    form: tuple[Parameterisation, float | None],
) -> None:
    plain, controlled = (
        Objective.make(
            sde,
            weighting=weighting,
            importance_sampling=importance,
            time_eps=time_eps,
            control_variate=control,
        )
        for control in (False, True)
    )
    score, k = model(sde, form, law_of(sde, (0.4, 0.6))), 0.7
    without, with_it = (expected(o, score, 0.8, k) for o in (plain, controlled))
    assert with_it == pytest.approx(without, rel=1e-6, abs=1e-6)
    # The same number draw by draw would be no control variate.
    assert estimate(plain, score, 0.8, 0.4, 1.0) != pytest.approx(
        estimate(controlled, score, 0.8, 0.4, 1.0), abs=1e-3
    )


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize(("sde", "time_eps"), WORLDS, ids=repr)
def test_the_priors_own_gradient_is_the_same_draw_by_draw(
    sde: SDE, time_eps: float, form: tuple[Parameterisation, float | None]
) -> None:
    class Gain(Linear):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(1.2, dtype=torch.float64))

        def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
            return self.gain * super().forward(z_t, t)

    score = model(sde, form, law_of(sde, (0.4, 0.6)))
    score.network = Gain()
    torch.manual_seed(0)
    z_0, eps = torch.randn(2, 4, 1, 1, 1, dtype=torch.float64)
    gradients = []
    for control in (False, True):
        objective = Objective.make(
            sde, weighting="ll", importance_sampling=False, time_eps=time_eps, control_variate=control
        )
        times = objective.draw(torch.tensor([0.1, 0.4, 0.7, 0.95], dtype=torch.float64))
        ce = objective.cross_entropy(score, z_0, times, eps, kl_weight=0.7)
        gradients.append(torch.autograd.grad(ce.surrogate.mean(), list(score.parameters())))
    for with_it, without in zip(*gradients, strict=True):
        torch.testing.assert_close(with_it, without, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("sde", "time_eps"), WORLDS, ids=repr)
def test_a_network_with_nothing_to_say_leaves_no_noise_at_all(sde: SDE, time_eps: float) -> None:
    """The value is the Normal prior's cross entropy, whatever t and eps; so is its gradient."""
    law = law_of(sde, (0.0, None))
    score = model(sde, ("velocity", None), law)
    score.network = Silent()
    objective = Objective.make(sde, weighting="ll", importance_sampling=False, time_eps=time_eps)
    draws = [estimate(objective, score, 0.8, t, eps) for t, eps in product((0.1, 0.5, 0.99), (-2.0, 0.3))]
    values, gradients = (torch.tensor(x, dtype=torch.float64) for x in zip(*draws, strict=True))
    torch.testing.assert_close(values, values[:1].expand_as(values), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients, gradients[:1].expand_as(gradients), rtol=1e-12, atol=1e-12)
    if sde.is_vp_like:
        # The bracket of both ends vanishes: CE(q_e || p^N_e) alone is left.
        known = law.cross_entropy(sde, scalar(0.8).reshape(1, 1, 1, 1), scalar(time_eps))
        torch.testing.assert_close(values[:1], known[0], rtol=1e-12, atol=1e-12)


class Silent(nn.Module):
    """A network that predicts nothing."""

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(z_t)


@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize(("sde", "time_eps"), WORLDS, ids=repr)
def test_cross_entropies_are_those_of_the_definition(
    sde: SDE, time_eps: float, law: tuple[float, float | None]
) -> None:
    normal = law_of(sde, law)
    for z_0, t in product(POINTS, (time_eps, 0.3, 1.0)):
        m, var = float(sde.mean(scalar(t))), float(sde.var(scalar(t)))
        other = torch.distributions.Normal(m * normal.mean, (m * m * normal.var + var).sqrt())
        # E -log p of a Normal is taken at two nodes exactly: it is a square in z_t.
        nodes = [m * z_0 - math.sqrt(var), m * z_0 + math.sqrt(var)]
        wanted = -sum(float(other.log_prob(torch.tensor(node))) for node in nodes) / 2
        found = normal.cross_entropy(sde, torch.full((1, 1, 1, 1), z_0).double(), scalar(t))
        assert float(found) == pytest.approx(wanted, abs=1e-5)  # torch.distributions is at float32 here


@pytest.mark.parametrize("law", LAWS[1:], ids=str)
@pytest.mark.parametrize(("sde", "time_eps"), WORLDS, ids=repr)
def test_the_bound_is_exact_where_the_network_is(
    sde: SDE, time_eps: float, law: tuple[float, float | None]
) -> None:
    """With tail, a network that predicts as the Normal law does gives -log N(z_0; mu, lambda), every draw.

    But for what the prior at t = 1 is not that law's marginal, which is no error of the network.
    """
    normal = law_of(sde, law)

    class Exact(nn.Module):
        def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
            t = t.reshape(-1, 1, 1, 1)
            return sde.unit_eps_coef(t) * z_t - normal.gap(sde, z_t, t.flatten())

    score = model(sde, ("mixed", None), normal)
    score.network = Exact()
    objective = Objective.make(sde, weighting="ll", importance_sampling=False, time_eps=time_eps)
    one = scalar(1.0)
    for z_0, eps in product(POINTS, (-1.7, 0.4)):
        point = torch.full((1, 1, 1, 1), z_0, dtype=torch.float64)
        value = estimate(objective, score, z_0, 0.37, eps)[0]
        tail = float(objective.tail(score, point, torch.full_like(point, eps)))
        m, var = float(sde.mean(one)), float(sde.var(one))
        ends = 0.5 * (math.log(2 * math.pi * sde.prior_var) + (var + (m * z_0) ** 2) / sde.prior_var)
        ends -= float(normal.cross_entropy(sde, point, one))
        assert value + tail == pytest.approx(-float(normal.log_prob(point)) + ends, abs=1e-9)


def reverse_variance(sde: SDE, time_eps: float, slope: Callable[[float], float]) -> float:
    """Variance at time_eps of the reverse SDE from N(0, prior_var) under eps_theta = slope(t) z, by scipy.

    dz = (f z - g^2 s) dt backwards, with s = -slope z / sigma, so that
    d Var / dt = 2 (f + g^2 slope / sigma) Var - g^2.
    """

    def rhs(t: float, var: list[float]) -> list[float]:
        f, g2, sigma = (float(x) for x in (sde.f(scalar(t)), sde.g2(scalar(t)), sde.sigma(scalar(t))))
        return [2 * (f + g2 * slope(t) / sigma) * var[0] - g2]

    solved = solve_ivp(rhs, (1.0, time_eps), [sde.prior_var], rtol=1e-9, atol=1e-12, method="LSODA")
    return float(solved.y[0, -1])


@pytest.mark.parametrize(
    ("sde", "time_eps"),
    [(VPSDE(), 0.01), (VPSDE(sigma2_0=0.02), 0.0), (SubVPSDE(), 0.05), (VESDE(1e-3, 20.0), 0.05)],
    ids=repr,
)
def test_with_its_tail_the_cross_entropy_bounds_the_density_of_the_reverse_process(
    sde: SDE, time_eps: float
) -> None:
    """A wrong network, eps_theta = (c(t) + 0.2) z: its reverse SDE and last step give a known Normal density.

    E -log p <= CE + tail for each z_0, and not by a mile; without the tail it is no bound of it.
    """

    def slope(t: float) -> float:
        return float(sde.unit_eps_coef(scalar(t))) + 0.2

    class Steeper(nn.Module):
        def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
            return (sde.unit_eps_coef(t.reshape(-1, 1, 1, 1)) + 0.2) * z_t

    score = model(sde, ("mixed", None), None)
    score.network = Steeper()
    objective = Objective.make(sde, weighting="ll", importance_sampling=False, time_eps=time_eps)
    m, var = float(sde.mean(scalar(time_eps))), float(sde.var(scalar(time_eps)))
    # The last step: mean (z_e - sigma eps_theta) / m, variance lambda sigma^2 / V.
    shrink = (1 - math.sqrt(var) * slope(time_eps)) / m
    lam = 1 - sde.sigma2_0
    step = lam * var / (m * m * lam + var)
    density = shrink**2 * reverse_variance(sde, time_eps, slope) + step
    for z_0 in POINTS:
        point = torch.full((1, 1, 1, 1), z_0, dtype=torch.float64)
        value, _ = expected(objective, score, z_0)
        tails = [float(objective.tail(score, point, torch.full_like(point, eps))) for eps in (-1.0, 1.0)]
        exact = 0.5 * (math.log(2 * math.pi * density) + z_0**2 / density)
        assert exact <= value + sum(tails) / 2 <= exact + 1.0


def test_the_tail_does_not_depend_on_whether_the_value_has_a_control_variate() -> None:
    sde = VPSDE()
    score = model(sde, ("mixed", 0.4), law_of(sde, (0.4, 0.6)))
    point = torch.full((1, 1, 1, 1), 0.8, dtype=torch.float64)
    tails = [
        Objective.make(
            sde, weighting="ll", importance_sampling=True, time_eps=0.01, control_variate=control
        ).tail(score, point, torch.ones_like(point))
        for control in (False, True)
    ]
    assert torch.equal(*tails)


def test_the_tail_is_the_difference_of_the_logarithms_it_is_named_after() -> None:
    """-log p(z_0 | z_e) + log q(z_e | z_0), on average over eps: both written out."""
    sde, e = VPSDE(), 0.03
    score = model(sde, ("mixed", 0.4), law_of(sde, (0.4, 0.6)))
    objective = Objective.make(sde, weighting="ll", importance_sampling=True, time_eps=e)
    point = torch.full((1, 1, 1, 1), 0.8, dtype=torch.float64)
    ours, theirs = 0.0, 0.0
    normal = score.normal_latents()
    for eps in (-1.0, 1.0):
        noise = torch.full_like(point, eps)
        ours += objective.tail(score, point, noise).item() / 2
        z_e = diffuse(sde, point, scalar(e), noise).z_t
        m, sigma = sde.mean(scalar(e)), sde.sigma(scalar(e))
        mean = (z_e - sigma * score.eps(z_e, scalar(e))) / m
        var = normal.var * sigma**2 / normal.marginal_var(sde, scalar(e))
        step = 0.5 * (torch.log(2 * math.pi * var) + (point - mean) ** 2 / var)
        theirs += float(step - 0.5 * (torch.log(2 * math.pi * sigma**2) + noise**2)) / 2
    assert ours == pytest.approx(theirs, abs=1e-10)


def test_halves_apart_are_the_whole_with_the_control_variate_too() -> None:
    torch.manual_seed(0)
    sde = VPSDE()
    score = ScoreModel(sde, Linear(), channels=3, reference_shape=(3, 4, 4)).double()
    assert score.reference is not None
    score.reference.mean.normal_(std=0.3)
    score.reference.var.uniform_(0.3, 1.5)
    objective = Objective.make(sde, weighting="un", importance_sampling=True, time_eps=0.01)
    z_0, eps = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64)
    z_0.requires_grad_()
    times = objective.draw(torch.rand(5, dtype=torch.float64))
    whole = objective.cross_entropy(score, z_0, times, eps, kl_weight=0.7)
    half = objective.vae_loss(score, z_0, times, eps)
    torch.testing.assert_close(half, whole.by_channel, rtol=1e-12, atol=1e-10)
    (shared,) = torch.autograd.grad(whole.surrogate.sum(), z_0, retain_graph=True)
    (apart,) = torch.autograd.grad(0.7 * half.sum(), z_0)
    torch.testing.assert_close(shared, apart, rtol=1e-10, atol=1e-10)


def on_and_off(score: ScoreModel, *, reference_compat: bool = False) -> list[tuple[float, float]]:
    """Return one draw's value and gradient with the control variate asked for, and without."""
    return [
        estimate(
            Objective.make(
                VPSDE(),
                weighting="un",
                importance_sampling=True,
                time_eps=0.01,
                reference_compat=reference_compat,
                control_variate=control,
            ),
            score,
            0.8,
            0.4,
            0.9,
        )
        for control in (True, False)
    ]


def test_the_authors_code_has_no_control_variate() -> None:
    score = model(VPSDE(), ("mixed", 0.4), law_of(VPSDE(), (0.4, 0.6)))
    compatible, plain = on_and_off(score, reference_compat=True)
    assert compatible == plain
    assert len(set(on_and_off(score))) == 2


def test_a_network_alone_without_moments_has_none_either() -> None:
    alone = ScoreModel(VPSDE(), Linear()).double()
    assert not alone.has_control
    asked, plain = on_and_off(alone)
    assert asked == plain


def test_cosines_are_scipys_orthonormal_dct() -> None:
    from scipy.fft import dct

    x = torch.randn(3, 7, dtype=torch.float64)
    torch.testing.assert_close(
        x @ cosines(7).T, torch.from_numpy(dct(x.numpy(), norm="ortho")), rtol=1e-12, atol=1e-12
    )


def test_the_basis_is_orthonormal_and_a_channels_own() -> None:
    reference = NormalReference((2, 3, 5), VPSDE()).double()
    z = torch.randn(4, 2, 3, 5, dtype=torch.float64)
    law = reference.latents()
    torch.testing.assert_close(law.back(law.rotate(z)), z, rtol=1e-12, atol=1e-12)
    sums = law.rotate(z).square().sum(dim=(2, 3))
    torch.testing.assert_close(sums, z.square().sum(dim=(2, 3)), rtol=1e-12, atol=1e-12)


def test_moments_of_unit_variance_are_the_standard_law() -> None:
    """A reference that has seen nothing differs from the mixed score's Normal part by exactly 0."""
    for sde, _ in WORLDS:
        law = NormalReference((2, 3, 5), sde).double().latents()
        z, t = torch.randn(4, 2, 3, 5, dtype=torch.float64), torch.linspace(0.1, 1, 4).double()
        gap = law.gap(sde, z, t)
        # 1 - sigma2_0 was rounded to float32 in the buffer.
        torch.testing.assert_close(gap, torch.zeros_like(z), rtol=0, atol=1e-6)
        standard = standard_normal(sde)
        assert torch.equal(standard.gap(sde, z, t), torch.zeros_like(z))
        torch.testing.assert_close(
            law.cross_entropy(sde, z, t), standard.cross_entropy(sde, z, t), rtol=1e-6, atol=1e-6
        )


def test_running_moments_come_to_be_those_of_the_latents() -> None:
    torch.manual_seed(0)
    reference = NormalReference((2, 4, 4), VPSDE())
    smooth = torch.ones(4, 4) * 0.5

    def batch(size: int) -> Tensor:
        return torch.randn(size, 2, 1, 1) * smooth + 0.3 * torch.randn(size, 2, 4, 4) + 0.7

    for _ in range(600):
        z = reference.latents().rotate(batch(64).double())
        reference.update(z.mean(dim=0), z.square().mean(dim=0))
    many = reference.latents().rotate(batch(100_000).double())
    # Some 500 batches of 64 count: a relative error of sqrt(2 / 32,000) = 0.8 % of a variance, of 32.
    torch.testing.assert_close(reference.var.double(), many.var(dim=0), rtol=0.04, atol=0)
    torch.testing.assert_close(reference.mean.double(), many.mean(dim=0), rtol=0, atol=0.05)
    assert int(reference.seen) == 600


def test_a_constant_coefficient_has_the_smallest_variance() -> None:
    reference = NormalReference((1, 2, 2), VPSDE())
    zeros = torch.zeros(1, 2, 2, dtype=torch.float64)
    for _ in range(3):
        reference.update(zeros, zeros)
    assert float(reference.latents().var.min()) == pytest.approx(SMALLEST_VARIANCE)


@pytest.mark.parametrize("importance", [True, False])
def test_draws_agree_with_the_closed_form_expectation(importance: bool) -> None:
    """A paired test by sampling, as training draws: stratified times, Normal noise, many latents at once."""
    torch.manual_seed(0)
    sde, count = SubVPSDE(), 20_000
    score = model(sde, ("mixed", 0.4), law_of(sde, (0.4, 0.6)))
    plain, controlled = (
        Objective.make(
            sde, weighting="un", importance_sampling=importance, time_eps=0.05, control_variate=control
        )
        for control in (False, True)
    )
    z_0, eps = torch.randn(2, count, 1, 1, 1, dtype=torch.float64)
    rho = (torch.arange(count, dtype=torch.float64) + torch.rand((), dtype=torch.float64)) / count
    rho = rho[torch.randperm(count)]
    a, b = (objective.cross_entropy(score, z_0, rho, eps).value for objective in (plain, controlled))
    difference = a - b
    assert abs(float(difference.mean())) < 4 * float(difference.std()) / math.sqrt(count)
