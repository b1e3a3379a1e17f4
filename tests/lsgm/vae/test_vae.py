"""The VAE: its posterior is the Gaussian it says it is, and padding is never scored."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal

from lsgm.generative import Pixels
from lsgm.nets.config import ConvVAEConfig
from lsgm.vae.base import normal_log_prob, repeated, sum_per_sample
from lsgm.vae.small import ConvVAE

CONFIG = ConvVAEConfig(width=8, multipliers=(1, 1), latent_channels=2)
BINARY = Pixels(1, 12, 12, "binary")


def vae(pad: int = 0) -> ConvVAE:
    torch.manual_seed(0)
    return ConvVAE(CONFIG, BINARY, pad=pad)


def test_log_q_is_the_density_of_the_drawn_latent() -> None:
    model = vae()
    levels = torch.randint(0, 2, (3, 1, 12, 12), dtype=torch.uint8)
    noise = torch.randn(3, *model.groups.z_0)
    (z,), (log_q,) = model.posterior(levels, lambda *shape: noise)
    (mu,), _ = model.posterior(levels, lambda *shape: torch.zeros(3, *shape))
    sigma = (z - mu) / noise
    expected = sum_per_sample(Normal(mu, sigma).log_prob(z))
    torch.testing.assert_close(log_q, expected, rtol=1e-4, atol=1e-3)


def test_several_draws_of_an_image_share_one_pass_of_the_encoder() -> None:
    model, batches = vae(), list[int]()
    levels = torch.randint(0, 2, (3, 1, 12, 12), dtype=torch.uint8)
    noise = torch.randn(12, *model.groups.z_0)
    (z,), (log_q,) = model.posterior(repeated(levels, 4), lambda *shape: noise)
    model.encoder.register_forward_pre_hook(lambda _, arguments: batches.append(len(arguments[0])))
    (z_shared,), (log_q_shared,) = model.posterior(levels, lambda *shape: noise, 4)
    assert batches == [3]
    torch.testing.assert_close(z_shared, z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(log_q_shared, log_q, rtol=1e-5, atol=1e-4)


def test_means_and_scales_are_bounded() -> None:
    """mu = 5 tanh(mu / 5) and sigma in [e^-5, e^5] whatever the encoder says."""
    model = vae()
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.mul_(100)
    levels = torch.randint(0, 2, (3, 1, 12, 12), dtype=torch.uint8)
    (mu,), _ = model.posterior(levels, lambda *shape: torch.zeros(3, *shape))
    (z,), _ = model.posterior(levels, lambda *shape: torch.ones(3, *shape))
    assert float(mu.detach().abs().max()) <= 5.0
    assert float((z - mu).detach().max()) <= math.exp(5) * 1.01


def test_padding_is_seen_by_the_encoder_and_never_scored() -> None:
    model = vae(pad=2)
    assert model.groups.z_0 == (2, 4, 4)
    levels = torch.randint(0, 2, (3, 1, 12, 12), dtype=torch.uint8)
    posterior = model.posterior(levels, lambda *shape: torch.zeros(3, *shape))
    assert model.likelihood(posterior.z).log_prob(levels).shape == levels.shape


def test_autocast_leaves_latents_and_densities_in_float32() -> None:
    model = vae()
    levels = torch.randint(0, 2, (3, 1, 12, 12), dtype=torch.uint8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (z,), (log_q,) = model.posterior(levels, lambda *shape: torch.randn(3, *shape))
        log_p = model.likelihood((z,)).log_prob(levels)
    assert z.dtype == log_q.dtype == log_p.dtype == torch.float32


@pytest.mark.parametrize(("mean", "log_sigma"), [(0.0, 0.0), (0.7, -1.3)])
def test_normal_log_prob_is_torchs(mean: float, log_sigma: float) -> None:
    z = torch.randn(10, dtype=torch.float64)
    ours = normal_log_prob(z, mean, log_sigma)
    law = Normal(torch.tensor(mean).double(), torch.tensor(log_sigma).double().exp())
    torch.testing.assert_close(normal_log_prob(z, law.loc, law.scale.log()), law.log_prob(z))
    torch.testing.assert_close(ours, law.log_prob(z), rtol=1e-6, atol=1e-6)
