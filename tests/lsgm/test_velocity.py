"""The velocity form wherever a prior is used: samplers and likelihoods do not see how eps came about.

A network that stands alone and predicts c(t) z_t + m_t F(z_t, t) is the same model; where the latents are
Normal and F is exact, samples and densities are known.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lsgm.config import SamplerConfig
from lsgm.likelihood import ode_log_prob
from lsgm.objective.bound import Objective
from lsgm.sampling import draw, find_sampler, sampler_names
from lsgm.score import NormalLatents, ScoreModel, per_sample
from lsgm.sde import SDE, VESDE, VPSDE, GeometricVPSDE, SubVPSDE

SDES = [VPSDE(), SubVPSDE(), VESDE(1e-3, 20.0), GeometricVPSDE(1e-3, 0.99, 1e-3)]
SHAPE = (2, 2, 2)


class Bend(nn.Module):
    """A smooth velocity."""

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        return 0.3 * torch.sin(z_t) + 0.2 * per_sample(t, z_t)


class Whole(nn.Module):
    """The noise that a velocity of `Bend` predicts, as one network."""

    def __init__(self, sde: SDE) -> None:
        super().__init__()
        self.sde = sde

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        c, m = per_sample(self.sde.unit_eps_coef(t), z_t), per_sample(self.sde.mean(t), z_t)
        return c * z_t + m * Bend()(z_t, t)


def both(sde: SDE) -> tuple[ScoreModel, ScoreModel]:
    return (
        ScoreModel(sde, Bend(), channels=2, parameterisation="velocity").double(),
        ScoreModel(sde, Whole(sde)).double(),
    )


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize("name", sampler_names())
def test_every_sampler_draws_what_it_draws_from_the_whole_prediction(sde: SDE, name: str) -> None:
    sampler = find_sampler(name)
    if sampler.vp_only and not sde.is_vp_like:
        pytest.skip("this sampler is for VP-like SDEs")
    config = SamplerConfig(name, steps=max(6, sampler.min_steps), rtol=1e-6, atol=1e-6, time_end=0.02)
    ours, theirs = (draw(score, SHAPE, range(3), config, dtype=torch.float64) for score in both(sde))
    assert torch.equal(ours.nfe, theirs.nfe)
    # Near t = 1 of VP-like SDEs the whole prediction's flow is a difference of large terms.
    torch.testing.assert_close(ours.z, theirs.z, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize("solver", ["dopri5", "heun"])
def test_its_flow_gives_the_density_of_the_whole_prediction(sde: SDE, solver: str) -> None:
    torch.manual_seed(0)
    z = torch.randn(3, *SHAPE, dtype=torch.float64)
    # One signed probe is the exact trace: the Jacobian of `Bend` is diagonal.
    ours, theirs = (
        ode_log_prob(
            score,
            z,
            range(3),
            rtol=1e-9,
            atol=1e-9,
            time_eps=0.02,
            solver=solver,  # type: ignore[arg-type]
            steps=40,
        ).log_p
        for score in both(sde)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize("weighting", ["ll", "re"])
def test_its_objective_is_that_of_the_whole_prediction(sde: SDE, weighting: str) -> None:
    torch.manual_seed(0)
    z, eps = torch.randn(2, 5, *SHAPE, dtype=torch.float64)
    objective = Objective.make(
        sde, weighting=weighting, importance_sampling=True, time_eps=0.02, control_variate=False
    )
    times = objective.draw(torch.rand(5, dtype=torch.float64))
    ours, theirs = (objective.cross_entropy(score, z, times, eps) for score in both(sde))
    torch.testing.assert_close(ours.value, theirs.value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.score_loss, theirs.score_loss, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
def test_the_exact_velocity_of_normal_latents_gives_their_density_and_their_samples(sde: SDE) -> None:
    """F = -gap / m of z_0 ~ N(mu, lambda): E[eps | z_t] less the standard Normal's."""
    mean, var = torch.tensor(0.4, dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64)
    law = NormalLatents(mean, var)

    class Exact(nn.Module):
        def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
            return -law.gap(sde, z_t, t) / per_sample(sde.mean(t), z_t)

    score = ScoreModel(sde, Exact(), channels=2, parameterisation="velocity").double()
    end = 0.01
    t = torch.full((3,), end, dtype=torch.float64)
    m, noise = float(sde.mean(t)[0]), float(sde.var(t)[0])
    torch.manual_seed(0)
    z = torch.randn(3, *SHAPE, dtype=torch.float64)
    found = ode_log_prob(score, z, range(3), rtol=1e-9, atol=1e-9, time_eps=end)
    # The flow ends in the prior at t = 1, which the law's own marginal is not quite: what it makes of it.
    one = torch.ones(3, dtype=torch.float64)
    at_one = law.marginal_var(sde, one).flatten()[0]
    scale = (sde.prior_var / float(at_one)) ** 0.5
    start = float(law.marginal_var(sde, t).flatten()[0])
    middle = m * float(mean) - float(sde.mean(one)[0]) * float(mean) * (start / float(at_one)) ** 0.5
    spread = start**0.5 * scale
    exact = -0.5 * (math.log(2 * math.pi * spread**2) + ((z - middle) / spread) ** 2)
    torch.testing.assert_close(found.log_p, exact.flatten(1).sum(dim=1), rtol=1e-5, atol=1e-5)
    drawn = draw(
        score,
        SHAPE,
        range(400),
        SamplerConfig("dopri5", rtol=1e-6, atol=1e-6, time_end=end),
        dtype=torch.float64,
    ).z
    error = spread / drawn.numel() ** 0.5
    assert float(drawn.mean()) == pytest.approx(middle, abs=5 * error)
    assert float(drawn.var()) == pytest.approx(spread**2, rel=5 * (2 / drawn.numel()) ** 0.5)
    assert noise > 0
