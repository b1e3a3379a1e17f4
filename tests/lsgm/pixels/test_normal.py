"""Normal pixels: torch's density, and no bound on bits per dimension from it."""

from __future__ import annotations

import pytest
import torch
from torch import distributions

from lsgm.config import DensityConfig, SDEConfig
from lsgm.errors import UserError
from lsgm.generative import Pixels
from lsgm.model.diffusion import NormalPriorModel, ScoreBasedModel, likelihood_bound
from lsgm.model.lsgm import VAECoder, make_prior
from lsgm.nets.config import ConvVAEConfig, ScoreNetConfig
from lsgm.pixels import NormalPixels
from lsgm.recipes.recipe import ObjectiveConfig, PriorConfig
from lsgm.vae.small import ConvVAE


def test_normal_pixels_have_torchs_density_with_bounded_mean_and_scale() -> None:
    torch.manual_seed(0)
    parameters = torch.randn(2, 6, 3, 3).double() * 4
    levels = torch.randint(0, 32, (2, 3, 3, 3), dtype=torch.uint8)
    mu, log_sigma = (5 * torch.tanh(x / 5) for x in parameters.chunk(2, dim=1))
    law = distributions.Normal(mu, log_sigma.exp())  # type: ignore[no-untyped-call]
    expected = law.log_prob(levels.double() * 2 / 31 - 1)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(NormalPixels(parameters, 32).log_prob(levels), expected)


def test_draws_of_normal_pixels_have_their_mean_and_spread() -> None:
    torch.manual_seed(0)
    n = 100_000
    parameters = torch.tensor([0.1, -2.0]).reshape(1, 2, 1, 1).expand(n, -1, -1, -1)
    distribution = NormalPixels(parameters, 256)
    drawn = distribution.sample(torch.rand(n, 1, 1, 1)).double() * 2 - 1
    mu, sigma = float(distribution.mu[0]), float(distribution.log_sigma[0].exp())
    # Four standard errors of a mean and of a standard deviation.
    assert float(drawn.mean()) == pytest.approx(mu, abs=4 * sigma / n**0.5)
    assert float(drawn.std()) == pytest.approx(sigma, abs=4 * sigma / (2 * n) ** 0.5)
    assert float(distribution.mean()[0]) == pytest.approx((mu + 1) / 2)


def test_a_density_is_refused_where_a_probability_is_bounded() -> None:
    """At sigma = e^-5 the density of a level is above 1: nats of it would pass for less than nothing."""
    assert not NormalPixels.is_mass
    sharp = NormalPixels(torch.tensor([0.0, -50.0]).reshape(1, 2, 1, 1), 3)
    assert float(sharp.log_prob(torch.ones(1, 1, 1, 1, dtype=torch.uint8))) > 0
    pixels = Pixels(1, 8, 8, "discrete", 8)
    vae = ConvVAE(ConvVAEConfig(width=4, multipliers=(1,), latent_channels=2, decoder="normal"), pixels)
    network = ScoreNetConfig(width=8, multipliers=(1,), blocks=1, attention=(), embedding=8)
    prior = make_prior(PriorConfig(network=network, sde=SDEConfig()), vae.groups.z_0)
    bound = likelihood_bound(prior, ObjectiveConfig())
    levels = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    for model in (
        NormalPriorModel(vae, torch.device("cpu"), "bars"),
        ScoreBasedModel(VAECoder(vae, 1e-5), prior, bound, "bars"),
    ):
        with pytest.raises(UserError, match=r"^bars has a Normal decoder.*no probability"):
            model.density(levels, range(2), DensityConfig(draws=1))
