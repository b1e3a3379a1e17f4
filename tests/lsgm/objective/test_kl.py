"""Balancing weights groups as NVAE does, and channels in use are those with information."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ladder import Ladder
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from lsgm.objective.kl import active_channels, balanced, group_shares, normal_kl
from lsgm.recipes.recipe import KLConfig
from lsgm.rng import StepNoise
from lsgm.train.losses import NormalPriorLoss
from lsgm.vae.base import LatentDraw, LatentGroups, normal_log_prob, sum_per_sample


def test_shares_grow_with_the_pixels_and_fall_with_the_groups_of_a_scale() -> None:
    """Equal numbers of groups: 1, 4, 16, as the authors' code has them."""
    three = LatentGroups(((5, 2, 2),) * 2 + ((5, 4, 4),) * 2 + ((5, 8, 8),) * 2, top=2)
    assert group_shares(three) == [1, 1, 4, 4, 16, 16]
    uneven = LatentGroups(((5, 2, 2),) * 2 + ((5, 4, 4),) * 8, top=2)
    assert group_shares(uneven) == [1] * 10


def test_balanced_groups_pay_in_proportion_to_their_use() -> None:
    kl = torch.tensor([[3.0, 0.0], [5.0, 0.0]], dtype=torch.float64, requires_grad=True)
    weighted = balanced(kl, [1.0, 1.0], everywhere=False)
    used = torch.tensor([4.01, 0.01], dtype=torch.float64)
    gamma = used / used.mean()
    assert torch.allclose(weighted, kl.detach() @ gamma, rtol=1e-14)
    (gradient,) = torch.autograd.grad(weighted.sum(), kl)
    assert torch.allclose(gradient, gamma.expand(2, 2), rtol=1e-14)  # no gradient through gamma


def test_equal_groups_pay_equally() -> None:
    kl = torch.full((3, 4), 2.5, dtype=torch.float64)
    torch.testing.assert_close(balanced(kl, [1.0] * 4, everywhere=False), kl.sum(dim=1))


@pytest.mark.parametrize("k", [0.4, 1.0])
def test_stage_1_is_balanced_while_k_is_below_1(k: float) -> None:
    vae: Any = Ladder().double()
    levels = (torch.arange(96) * 37 % 5 < 2).to(torch.uint8).reshape(6, 1, 4, 4)

    def noise() -> StepNoise:
        return StepNoise(0, 0, global_batch=6)

    losses = NormalPriorLoss(vae, KLConfig(k, k, 0.0, balance=True))(levels, noise(), 0.5)
    z, log_q = vae.posterior(levels, noise().normal)
    kl = torch.stack([q - sum_per_sample(normal_log_prob(x)) for q, x in zip(log_q, z, strict=True)], dim=1)
    used = (kl.abs().mean(dim=0) + 0.01) / torch.tensor([1.0, 1.0, 8.0])
    gamma = used / used.mean() if k < 1 else torch.ones(3)
    reconstruction = -sum_per_sample(vae.likelihood(z).log_prob(levels))
    expected = (reconstruction + k * (kl * gamma).sum(dim=1)).mean()
    torch.testing.assert_close(losses.total, expected, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(losses.terms["nelbo"], (reconstruction + kl.sum(dim=1)).mean().detach())
    assert [float(losses.terms[f"kl/{i}"]) for i in range(3)] == pytest.approx(kl.mean(dim=0).tolist())


def drawn(mu: Tensor, sigma: Tensor) -> LatentDraw:
    law = Normal(mu, sigma)
    z = law.sample()
    return LatentDraw(z, law.log_prob(z))


def test_one_draw_per_image_estimates_the_kl_by_channels() -> None:
    """Against the closed form for two Normals; 0.1 nat over the pixels is the line."""
    torch.manual_seed(0)
    mu = torch.zeros(40_000, 3, 2, 2, dtype=torch.float64)
    sigma = torch.ones_like(mu)
    mu[:, 1], sigma[:, 1] = 0.3, 0.9  # 0.2 nat over the pixels
    mu[:, 2] = 0.1  # 0.02 nat
    kl = normal_kl(drawn(mu, sigma))
    exact = kl_divergence(Normal(mu, sigma), Normal(0.0, 1.0)).flatten(2).sum(dim=2)[0]
    error = kl.std(dim=0) / 200
    assert ((kl.mean(dim=0) - exact).abs() <= 4 * error + 1e-12).all()
    assert active_channels(kl, everywhere=False).tolist() == [False, True, False]
