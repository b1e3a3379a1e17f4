"""Binary pixels: torch's Bernoulli, and draws at its rate."""

from __future__ import annotations

import torch
from torch import distributions

from lsgm.pixels import Bernoulli


def test_bernoulli_is_the_binary_cross_entropy_and_its_mean_the_rate_of_its_draws() -> None:
    logits = torch.tensor([-2.0, 0.0, 3.0]).reshape(1, 1, 1, 3)
    distribution = Bernoulli(logits)
    p = torch.sigmoid(logits)
    ones = torch.ones_like(logits, dtype=torch.uint8)
    torch.testing.assert_close(distribution.log_prob(ones), p.log())
    torch.testing.assert_close(distribution.log_prob(1 - ones), (1 - p).log())
    torch.manual_seed(0)
    rate = distribution.sample(torch.rand(100_000, 1, 1, 3)).mean(dim=0, keepdim=True)
    # Four standard errors of a rate over 100,000 draws.
    assert bool(((rate - p).abs() < 4 * (p * (1 - p) / 100_000).sqrt()).all())


def test_bernoulli_is_torchs_far_into_the_tails() -> None:
    logits = torch.linspace(-90, 90, 19, dtype=torch.float64).reshape(1, 1, 1, 19)
    law = distributions.Bernoulli(logits=logits)  # type: ignore[no-untyped-call]
    for level in (0, 1):
        levels = torch.full((1, 1, 1, 19), level, dtype=torch.uint8)
        expected = law.log_prob(levels.double())  # type: ignore[no-untyped-call]
        torch.testing.assert_close(Bernoulli(logits).log_prob(levels), expected)
