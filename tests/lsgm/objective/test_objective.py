"""The objective: theorem 1, and both gradients in one backward pass."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lsgm.errors import ConfigError
from lsgm.generative import Pixels
from lsgm.nets.config import ConvVAEConfig, ScoreNetConfig
from lsgm.nets.ncsnpp import NCSNpp
from lsgm.objective.bound import Objective, Times, diffuse, scale_gradient
from lsgm.score import Parameterisation, ScoreModel
from lsgm.sde import SDE, VESDE, VPSDE, GeometricVPSDE, SubVPSDE
from lsgm.times import Weighting, importance_weight
from lsgm.vae.base import sum_per_sample
from lsgm.vae.small import ConvVAE

COMBINATIONS = [
    (VPSDE(), "ll", 1e-2),
    (VPSDE(), "un", 1e-2),
    (VPSDE(), "re", 1e-2),
    (GeometricVPSDE(), "ll", 0.0),
    (GeometricVPSDE(), "re", 0.0),
    (SubVPSDE(), "un", 1e-2),
    (VESDE(), "re", 1e-2),
]


class Model(nn.Module):
    """A small VAE and a score prior in float64, with nothing left at its zero initialisation."""

    def __init__(
        self, sde: SDE, parameterisation: Parameterisation = "mixed", *, fitted: bool = False
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.vae = ConvVAE(
            ConvVAEConfig(width=8, multipliers=(1,), latent_channels=4), Pixels(1, 8, 8, "binary")
        )
        network = NCSNpp(ScoreNetConfig(width=8, blocks=1, embedding=8), channels=4, resolution=4)
        self.prior = ScoreModel(
            sde,
            network,
            channels=4,
            parameterisation=parameterisation,
            mixing_init=0.3,
            reference_shape=(4, 4, 4) if fitted else None,
        )
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        self.double()
        if self.prior.reference is not None:
            self.prior.reference.mean.normal_(std=0.3)
            self.prior.reference.var.uniform_(0.3, 1.5)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("sde", "weighting", "time_eps"), COMBINATIONS)
@pytest.mark.parametrize("importance_sampling", [True, False])
@pytest.mark.parametrize("parameterisation", ["mixed", "velocity"])
@pytest.mark.parametrize("control", [None, "standard", "fitted"])
def test_one_backward_gives_the_gradients_of_two(
    sde: SDE,
    weighting: str,
    time_eps: float,
    importance_sampling: bool,
    parameterisation: Parameterisation,
    control: str | None,
) -> None:
    """Algorithm 3 of arXiv:2106.05931 written out with its two losses and its two backward passes.

    With the control variate the VAE's loss is written out as the difference of two squares.
    """
    model, k, batch = Model(sde, parameterisation, fitted=control == "fitted"), 0.7, 6
    objective = Objective.make(
        sde,
        weighting=weighting,
        importance_sampling=importance_sampling,
        time_eps=time_eps,
        control_variate=control is not None,
    )
    levels = torch.randint(0, 2, (batch, 1, 8, 8), dtype=torch.uint8)
    noise, eps = torch.randn(2, batch, 4, 4, 4, dtype=torch.float64)
    rho = torch.rand(batch, dtype=torch.float64)

    def encode() -> tuple[Tensor, Tensor, Tensor]:
        (z_0,), (log_q,) = model.vae.posterior(levels, lambda *shape: noise)
        return z_0, log_q, -sum_per_sample(model.vae.likelihood((z_0,)).log_prob(levels))

    z_0, log_q, reconstruction = encode()
    ce = objective.cross_entropy(model.prior, z_0, rho, eps, kl_weight=k)
    (reconstruction + k * log_q + ce.surrogate).mean().backward()
    one = gradients(model)

    t = objective.proposal.sample(rho)
    w_p = importance_weight(sde, Weighting(weighting), objective.proposal, t)
    w_q = importance_weight(sde, Weighting.LL, objective.proposal, t)
    model.zero_grad()
    z_0, log_q, reconstruction = encode()
    z_t = diffuse(sde, z_0, t, eps).z_t
    error = sum_per_sample((eps - model.prior.eps(z_t, t)) ** 2)
    cross_entropy = w_q * error + sum_per_sample(sde.terminal_kl(z_0))
    if control is not None:
        law = model.prior.normal_latents()
        predicted = sde.unit_eps_coef(t).reshape(-1, 1, 1, 1) * z_t - law.gap(sde, z_t, t)
        cross_entropy = cross_entropy - w_q * sum_per_sample((eps - predicted) ** 2)
        at_e, at_1 = (law.cross_entropy(sde, z_0, torch.full_like(t, end)) for end in (time_eps, 1.0))
        cross_entropy = cross_entropy + (at_e - at_1).sum(dim=1)
    (reconstruction + k * (log_q + cross_entropy)).mean().backward(retain_graph=True)
    two = {name: g for name, g in gradients(model).items() if name.startswith("vae.")}
    model.zero_grad()
    (w_p * error).mean().backward()
    two |= {name: g for name, g in gradients(model).items() if name.startswith("prior.")}

    assert one.keys() == two.keys() == dict(model.named_parameters()).keys()
    for name, gradient in one.items():
        # Both sum the same products in another order: rounding of float64, relative to the largest entry.
        scale = max(1.0, float(two[name].abs().max()))
        assert float((gradient - two[name]).abs().max()) <= 1e-12 * scale, name


def test_scale_gradient_is_the_identity_forward_and_a_factor_per_sample_backward() -> None:
    z = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    factor = torch.tensor([0.5, 2.0, 0.0], dtype=torch.float64)
    out = scale_gradient(z, factor)
    out.square().sum().backward()
    assert torch.equal(out, z)
    assert z.grad is not None
    torch.testing.assert_close(z.grad, 2 * z.detach() * factor[:, None, None])


class NormalPrior(nn.Module):
    """A network that predicts nothing: with a mixing share of 0 the prior is exactly N(0, I)."""

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(z_t)


@pytest.mark.parametrize(("sde", "time_eps"), [(VPSDE(), 1e-2), (GeometricVPSDE(), 0.0), (SubVPSDE(), 1e-2)])
def test_cross_entropy_of_standard_normal_latents_is_the_normal_entropy(sde: SDE, time_eps: float) -> None:
    """T3: with the exact prior the cross entropy per dimension is 0.5 log(2 pi e) = 1.4189 nats."""
    torch.manual_seed(0)
    prior = ScoreModel(sde, NormalPrior(), channels=4, mixing_init=-40.0)
    objective = Objective.make(sde, weighting="ll", importance_sampling=True, time_eps=time_eps)
    # At the finite noise level of time_eps a unit-variance z_0 with sigma2_0 = 0 stays unit variance.
    z_0 = torch.randn(500, 4, 8, 8, dtype=torch.float64) * math.sqrt(1 - sde.sigma2_0)
    rho = (torch.arange(500, dtype=torch.float64) + 0.5) / 500
    value = objective.cross_entropy(prior, z_0, rho, torch.randn_like(z_0)).value / 256
    error = float(value.std()) / math.sqrt(500)
    expected = 0.5 * math.log(2 * math.pi * math.e * float(sde.marginal_var(torch.tensor([time_eps]))))
    assert abs(float(value.mean()) - expected) < 4 * error + 1e-9


def test_the_value_carries_no_gradient_and_the_surrogate_does() -> None:
    model = Model(VPSDE())
    objective = Objective.make(VPSDE(), weighting="un", importance_sampling=True, time_eps=1e-2)
    z_0 = torch.randn(2, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    ce = objective.cross_entropy(model.prior, z_0, torch.tensor([0.2, 0.8]).double(), torch.randn_like(z_0))
    assert ce.surrogate.requires_grad
    assert not ce.value.requires_grad
    assert not ce.score_loss.requires_grad


def test_the_terminal_term_reaches_the_encoder() -> None:
    """A network that ignores z_t leaves only the terminal KL, whose gradient is m_1^2 z_0."""
    sde = GeometricVPSDE(sigma2_max=0.9)
    prior = ScoreModel(sde, NormalPrior())
    objective = Objective.make(sde, weighting="ll", importance_sampling=True, time_eps=0.0)
    z_0 = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    ce = objective.cross_entropy(prior, z_0, torch.tensor([0.3, 0.6]).double(), torch.randn_like(z_0))
    (gradient,) = torch.autograd.grad(ce.surrogate.sum(), z_0)
    m2 = float(sde.mean(torch.ones(1))) ** 2
    torch.testing.assert_close(gradient, m2 * z_0.detach(), rtol=1e-12, atol=1e-14)


def test_an_infinite_weighting_is_refused() -> None:
    with pytest.raises(ConfigError, match="time-eps"):
        Objective.make(VPSDE(), weighting="ll", importance_sampling=True, time_eps=0.0)


def test_an_objective_that_starts_without_noise_is_refused() -> None:
    with pytest.raises(ConfigError, match="time-eps is 0"):
        Objective.make(VPSDE(), weighting="un", importance_sampling=False, time_eps=0.0)


def test_ready_made_times_and_weights_take_the_place_of_drawn_ones() -> None:
    model = Model(VPSDE())
    objective = Objective.make(VPSDE(), weighting="un", importance_sampling=True, time_eps=1e-2)
    z_0, eps = torch.randn(2, 5, 4, 4, 4, dtype=torch.float64)
    rho = torch.rand(5, dtype=torch.float64)
    times = objective.draw(rho)
    drawn = objective.cross_entropy(model.prior, z_0, rho, eps)
    given = objective.cross_entropy(model.prior, z_0, times, eps)
    assert all(torch.equal(a, b) for a, b in zip(drawn, given, strict=True))
    doubled = Times(times.t, 2 * times.w_p, times.w_q)
    other = objective.cross_entropy(model.prior, z_0, doubled, eps)
    assert torch.equal(other.score_loss, 2 * drawn.score_loss)
    assert torch.equal(other.value, drawn.value)


def test_the_halves_are_the_whole_and_its_channels_sum_to_it() -> None:
    model = Model(VPSDE())
    objective = Objective.make(VPSDE(), weighting="re", importance_sampling=True, time_eps=1e-2)
    z_0, eps = torch.randn(2, 5, 4, 4, 4, dtype=torch.float64)
    times = objective.draw(torch.rand(5, dtype=torch.float64))
    whole = objective.cross_entropy(model.prior, z_0, times, eps)
    # The same float64 sums in another order.
    exactly = {"rtol": 1e-13, "atol": 0.0}
    torch.testing.assert_close(whole.by_channel.sum(dim=1), whole.value, **exactly)
    torch.testing.assert_close(objective.vae_loss(model.prior, z_0, times, eps), whole.by_channel, **exactly)
    torch.testing.assert_close(
        objective.prior_loss(model.prior, z_0, times, eps), whole.score_loss, **exactly
    )


def test_an_objective_follows_its_sde() -> None:
    objective = Objective.make(VESDE(), weighting="re", importance_sampling=True, time_eps=0.0)
    assert objective.following(VESDE()) is objective
    wide = VESDE(sigma2_max=50.0)
    made = Objective.make(wide, weighting="re", importance_sampling=True, time_eps=0.0)
    assert objective.following(wide) == made


@pytest.mark.parametrize(("weighting", "scaled"), [("ll", True), ("un", False)])
def test_the_priors_gradient_carries_the_kl_coefficient_in_the_authors_code_alone(
    weighting: str, scaled: bool
) -> None:
    """With one loss for both, theirs scales the gradient of the prior by k too; here it does not."""
    model, k = Model(VPSDE()), 0.7
    z_0, eps = torch.randn(2, 5, 4, 4, 4, dtype=torch.float64)
    rho = torch.rand(5, dtype=torch.float64)

    def gradient(kl_weight: float, compat: bool) -> Tensor:
        objective = Objective.make(
            VPSDE(), weighting=weighting, importance_sampling=True, time_eps=1e-2, reference_compat=compat
        )
        assert model.prior.logit is not None
        ce = objective.cross_entropy(model.prior, z_0, rho, eps, kl_weight=kl_weight)
        return torch.autograd.grad(ce.surrogate.mean(), model.prior.logit)[0]

    torch.testing.assert_close(gradient(k, compat=False), gradient(1.0, compat=False), rtol=1e-12, atol=0.0)
    factor = k if scaled else 1.0
    expected = factor * gradient(1.0, compat=True)
    torch.testing.assert_close(gradient(k, compat=True), expected, rtol=1e-12, atol=0.0)


def test_the_authors_code_trains_without_the_terminal_kl() -> None:
    sde = GeometricVPSDE()
    model = Model(sde)
    z_0, eps = torch.randn(2, 5, 4, 4, 4, dtype=torch.float64)
    ours, theirs = (
        Objective.make(
            sde,
            weighting="ll",
            importance_sampling=True,
            time_eps=0.0,
            reference_compat=compat,
            control_variate=False,
        ).cross_entropy(model.prior, z_0, torch.full((5,), 0.4).double(), eps)
        for compat in (False, True)
    )
    assert float(theirs.terminal.abs().max()) == 0.0
    torch.testing.assert_close(ours.value - theirs.value, sum_per_sample(sde.terminal_kl(z_0)))
