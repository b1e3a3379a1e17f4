"""One logistic per sub-pixel: its levels sum to one, its draws follow them, its tails are finite."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from lsgm.pixels import DiscretizedLogistic


@pytest.mark.parametrize("bits", [5, 8])
def test_the_levels_of_a_discretised_logistic_sum_to_one(bits: int) -> None:
    """T10: over all 2^bits levels, for centres inside, at and beyond the edges and for all scales."""
    levels = 2**bits
    centre = torch.linspace(-1.2, 1.2, 7, dtype=torch.float64)
    log_scale = torch.linspace(-7.0, 1.0, 5, dtype=torch.float64)
    grid = torch.cartesian_prod(centre, log_scale)
    parameters = grid[:, :, None, None].repeat(1, 1, 1, levels)
    every = torch.arange(levels, dtype=torch.uint8).expand(len(grid), 1, 1, levels)
    log_p = DiscretizedLogistic(parameters, levels).log_prob(every)
    torch.testing.assert_close(
        log_p.exp().sum(dim=-1), torch.ones(len(grid), 1, 1).double(), rtol=1e-12, atol=0
    )


def test_a_discretised_logistic_is_scipys_logistic_over_bins() -> None:
    centre, log_scale, levels = 0.13, -3.0, 256
    parameters = torch.tensor([centre, log_scale], dtype=torch.float64).reshape(1, 2, 1, 1)
    law = stats.logistic(loc=centre, scale=math.exp(log_scale))
    for level in (0, 1, 100, 144, 145, 254, 255):
        x = level * 2 / 255 - 1
        low = -math.inf if level == 0 else x - 1 / 255
        high = math.inf if level == 255 else x + 1 / 255
        ours = DiscretizedLogistic(parameters, levels).log_prob(
            torch.tensor([[[[level]]]], dtype=torch.uint8)
        )
        assert float(ours) == pytest.approx(math.log(law.cdf(high) - law.cdf(low)), rel=1e-9)


def test_the_far_tails_stay_finite_with_their_gradients() -> None:
    parameters = torch.tensor([-1.0, -7.0]).reshape(1, 2, 1, 1).requires_grad_()
    log_p = DiscretizedLogistic(parameters, 256).log_prob(torch.tensor([[[[200]]]], dtype=torch.uint8))
    log_p.sum().backward()
    assert log_p.isfinite().all()
    assert float(log_p.detach()) < -1000
    assert parameters.grad is not None
    assert parameters.grad.isfinite().all()


def test_the_far_tails_of_float32_are_those_of_float64() -> None:
    """Also of narrow bins far away, whose edges float32 can barely tell apart."""
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 1, 256)

    def log_prob(dtype: torch.dtype) -> Tensor:
        parameters = torch.tensor([-5.0, -4.0], dtype=dtype).reshape(1, 2, 1, 1).expand(1, 2, 1, 256)
        return DiscretizedLogistic(parameters, 256).log_prob(levels).double()

    # Arguments of some 300 with seven digits.
    torch.testing.assert_close(log_prob(torch.float32), log_prob(torch.float64), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("log_scale", [-7.0, -5.0, -3.0])
def test_width_times_density_is_less_than_the_mass_of_an_improbable_bin(log_scale: float) -> None:
    """By log(sinh(w / 2) / (w / 2)), w the bin's width in scales: what falling back to the density costs."""
    parameters = torch.tensor([-1.0, log_scale], dtype=torch.float64).reshape(1, 2, 1, 1)
    level = torch.tensor(250).reshape(1, 1, 1, 1)
    exact = float(DiscretizedLogistic(parameters, 256).log_prob(level))
    density = float(stats.logistic(loc=-1.0, scale=math.exp(log_scale)).logpdf(250 * 2 / 255 - 1))
    w = 2 / 255 * math.exp(-log_scale)
    missing = exact - (density + math.log(2 / 255))
    assert missing == pytest.approx(math.log(math.sinh(w / 2) / (w / 2)), abs=1e-9)
    assert 0 < missing < 2.16


def test_draws_of_a_discretised_logistic_have_its_probabilities() -> None:
    torch.manual_seed(0)
    n, levels = 200_000, 16
    parameters = torch.tensor([0.2, -1.5], dtype=torch.float64).reshape(1, 2, 1, 1).expand(n, 2, 1, 1)
    distribution = DiscretizedLogistic(parameters, levels)
    drawn = (distribution.sample(torch.rand(n, 1, 1, 1).double()) * (levels - 1)).round().long().flatten()
    counts = torch.bincount(drawn, minlength=levels).double()
    every = torch.arange(levels, dtype=torch.uint8)[:, None, None, None]
    expected = DiscretizedLogistic(parameters[:levels], levels).log_prob(every).exp().flatten() * n
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    assert chi2 < stats.chi2(levels - 1).ppf(1 - 1e-6)
