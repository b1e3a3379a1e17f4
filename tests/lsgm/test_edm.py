"""EDM's objective (arXiv:2206.00364): lognormal noise levels, and a loss that is the same at each of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lsgm.config import SDEConfig
from lsgm.errors import ConfigError
from lsgm.model.lsgm import make_prior
from lsgm.nets.config import ScoreNetConfig
from lsgm.objective.bound import Objective
from lsgm.recipes.recipe import ObjectiveConfig, PriorConfig
from lsgm.score import EDMPreconditioned, ScoreModel
from lsgm.sde import SDE, VESDE, VPSDE, GeometricVPSDE
from lsgm.times import Weighting, importance_weight, make_proposal
from lsgm.train.stages import make_objective

EDM = VESDE(4e-6, 6400.0)
SDES = [(EDM, 0.0), (VPSDE(), 1e-3), (VPSDE(sigma2_0=0.01), 0.0), (GeometricVPSDE(), 0.0)]
RHO = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
D = 0.7


class Silent(nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(x)


def edm_objective(sde: SDE, time_eps: float = 0.0) -> Objective:
    return Objective.make(sde, weighting="edm", importance_sampling=True, time_eps=time_eps, sigma_data=D)


@pytest.mark.parametrize(("sde", "time_eps"), SDES, ids=repr)
def test_the_times_are_those_of_a_cut_normal_in_log_sigma(sde: SDE, time_eps: float) -> None:
    proposal = make_proposal(sde, Weighting.EDM, "is", time_eps)
    t = proposal.sample(RHO)
    torch.testing.assert_close(proposal.unwarp(proposal.warp(t)), t, rtol=1e-7, atol=1e-9)
    x = ((sde.sigma(t) / sde.mean(t)).log() + 1.2) / 1.2
    low, high = proposal.ends
    torch.testing.assert_close(torch.special.ndtr(x), low + RHO * (high - low), rtol=1e-7, atol=1e-9)


def test_between_the_published_ends_next_to_nothing_is_cut() -> None:
    x = torch.special.ndtri(RHO) * 1.2 - 1.2
    t = make_proposal(EDM, Weighting.EDM, "is", 0.0).sample(RHO)
    assert float((EDM.sigma(t).log() - x).abs().max()) < 0.1
    assert make_proposal(EDM, Weighting.EDM, "is", 0.0).span == pytest.approx(1, abs=2e-5)


@pytest.mark.parametrize(("sde", "time_eps"), SDES, ids=repr)
def test_the_weight_is_that_of_the_paper(sde: SDE, time_eps: float) -> None:
    """lambda(s) || D - z_0 ||^2 with lambda = (s^2 + d^2) / (s d)^2 and D - z_0 = -s (eps_theta - eps)."""
    objective = edm_objective(sde, time_eps)
    t = objective.proposal.sample(RHO)
    s2 = sde.var(t) / sde.mean(t) ** 2
    published = (s2 + D**2) / (s2 * D**2) * s2
    torch.testing.assert_close(
        objective.weights(t)[0], objective.proposal.span * published, rtol=1e-9, atol=0
    )


def test_uniform_times_estimate_the_same_objective() -> None:
    """The mean of lambda/r over uniform times, by midpoints, against its mean over the lognormal ones."""
    means = []
    rho = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    for kind in ("is", "uniform"):
        proposal = make_proposal(EDM, Weighting.EDM, kind, 0.0)  # type: ignore[arg-type]
        t = proposal.sample(rho)
        weight = importance_weight(EDM, Weighting.EDM, proposal, t, sigma_data=D)
        means.append(float((weight / (1 + EDM.var(t))).mean()))
    # The integrand is smooth; what is left is the midpoint rule's own error at the lognormal's tails.
    assert means[0] == pytest.approx(means[1], rel=1e-6)


def test_the_optimal_denoiser_of_normal_data_leaves_one_per_dimension_at_every_noise_level() -> None:
    """E || eps - eps* ||^2 = d^2 / (s^2 + d^2) per dimension, which the weight makes 1 whatever s."""
    objective = edm_objective(EDM)
    generator = torch.Generator().manual_seed(0)
    z_0, eps = (torch.randn(4000, 1, 4, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    times = objective.draw(RHO)
    score = ScoreModel(EDM, EDMPreconditioned(Silent(), EDM, D))
    loss = objective.prior_loss(score, D * z_0, times, eps) / 16
    for part in (loss, *loss.split(1000)):
        assert abs(float(part.mean()) - 1) < 4.5 * float(part.std()) / math.sqrt(len(part))
    s2 = EDM.var(times.t)
    torch.testing.assert_close(
        times.w_p * D**2 / (s2 + D**2), torch.full_like(s2, objective.proposal.span), rtol=1e-9, atol=0
    )


def test_the_bound_does_not_depend_on_it() -> None:
    """The VAE's weight is the likelihood's: its mean over the times is that of the uniform ones."""
    objective = edm_objective(VPSDE(), 1e-2)
    rho = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    t = objective.proposal.sample(rho)
    h = VPSDE().one_minus_var(t)  # what the best prediction leaves of Normal data
    exact = make_proposal(VPSDE(), Weighting.LL, "is", 1e-2).integral(Weighting.LL)
    assert float((objective.weights(t)[1] * h).mean()) == pytest.approx(exact, rel=1e-3)


def config(**changes: object) -> PriorConfig:
    plain = PriorConfig(
        sde=SDEConfig("ve", sigma2_min=4e-6, sigma2_max=6400.0),
        network=ScoreNetConfig(width=8, blocks=1, attention=(), embedding=8, embedding_scale=1.0),
        objective=ObjectiveConfig("edm", time_eps=0.0, sigma_data=D),
        mixing_init=None,
        preconditioning="edm",
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_a_recipe_names_it() -> None:
    prior = make_prior(config(), (1, 8, 8))
    assert isinstance(prior.network, EDMPreconditioned)
    assert (prior.network.sigma_data, prior.network.sde) == (D, EDM)
    assert make_objective(config().objective, prior).sigma_data == D
    z, t = torch.randn(2, 1, 8, 8), torch.tensor([0.2, 0.9])
    # A fresh network is almost silent, and so the prediction that for N(0, d^2) data.
    normal = EDMPreconditioned(Silent(), EDM, D)(z, t)
    torch.testing.assert_close(prior.eps(z, t), normal, rtol=0, atol=1e-3)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ConfigError, match='give sigma2-max a number, not "data"'):
        config(sde=SDEConfig("ve", sigma2_max="data"))
    with pytest.raises(ConfigError, match="sigma-data is -1"):
        ObjectiveConfig(sigma_data=-1.0)
