"""The coder of data-space score models: an exact posterior over levels, and a bound on discrete data."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import special, stats
from torch import Tensor, nn

from lsgm.config import DensityConfig
from lsgm.generative import Density, Pixels
from lsgm.model.diffusion import ScoreBasedModel, likelihood_bound
from lsgm.recipes.recipe import ObjectiveConfig
from lsgm.score import ScoreModel
from lsgm.sde import VPSDE
from lsgm_baselines import sgm as pixels_module
from lsgm_baselines.sgm import NoisyPixels, RoundedPixels

LEVELS = 32
M, VAR = 0.98, 0.01


def every_level(z: Tensor, levels: int = LEVELS) -> tuple[Tensor, Tensor]:
    """Return noisy pixels repeated for each level, and the levels."""
    return z.expand(levels, *z.shape[1:]), torch.arange(levels, dtype=torch.uint8).reshape(
        -1, 1, 1, 1
    ).expand(levels, *z.shape[1:])


def posterior(z: float, levels: int = LEVELS) -> NDArray[np.float64]:
    """Bayes with a flat prior over the levels, in float64."""
    x = np.arange(levels) * 2 / (levels - 1) - 1
    log_p = np.asarray(stats.norm(M * x, math.sqrt(VAR)).logpdf(z))
    p: NDArray[np.float64] = np.exp(log_p - special.logsumexp(log_p))
    return p


@pytest.mark.parametrize("levels", [2, 32, 256])
def test_the_probabilities_of_all_levels_sum_to_one(levels: int) -> None:
    z = torch.linspace(-3, 3, 13).reshape(1, 1, 1, 13)
    log_p = RoundedPixels(*(every_level(z, levels)[:1]), M, VAR, levels).log_prob(every_level(z, levels)[1])
    # float32: the log-softmax of exponents up to 10^3 is good to 1e-4.
    torch.testing.assert_close(log_p.exp().sum(dim=0), torch.ones(1, 1, 13), rtol=1e-4, atol=0)


@pytest.mark.parametrize("z", [-1.4, -0.3, 0.0, 0.51, 1.0])
def test_log_prob_and_mean_are_those_of_the_gaussian_posterior(z: float) -> None:
    rows, levels = every_level(torch.tensor(z).reshape(1, 1, 1, 1))
    distribution = RoundedPixels(rows, M, VAR, LEVELS)
    expected = posterior(z)
    # float32 exponents of up to 600 are good to 4e-5.
    np.testing.assert_allclose(distribution.log_prob(levels).flatten().exp(), expected, rtol=2e-4, atol=1e-7)
    mean = (np.arange(LEVELS) / (LEVELS - 1) * expected).sum()
    np.testing.assert_allclose(distribution.mean().flatten(), mean, atol=1e-5)


def test_draws_follow_the_posterior() -> None:
    n, z = 100_000, 0.51
    distribution = RoundedPixels(torch.full((n, 1, 1, 1), z), M, VAR, LEVELS)
    uniform = (torch.arange(n).double() + 0.5).div(n).float().reshape(n, 1, 1, 1)
    drawn = distribution.sample(uniform).flatten()
    counts = np.bincount((drawn * (LEVELS - 1)).round().int().numpy(), minlength=LEVELS)
    # Evenly spaced uniforms: a level's share is its probability to one count at each of its ends, and to
    # float32's rounding of the distribution function.
    np.testing.assert_allclose(counts / n, posterior(z), atol=2 / n + 1e-5)
    assert bool((drawn.diff() >= 0).all())


def test_a_draw_is_a_level_even_at_the_ends_of_the_uniform() -> None:
    rows = torch.tensor([-5.0, 5.0, -5.0, 5.0]).reshape(4, 1, 1, 1)
    uniform = torch.tensor([0.0, 0.0, 1 - 2**-24, 1 - 2**-24]).reshape(4, 1, 1, 1)
    drawn = RoundedPixels(rows, M, VAR, LEVELS).sample(uniform).flatten()
    assert drawn.tolist()[2:] == [0.0, 1.0]
    assert bool(((drawn >= 0) & (drawn <= 1)).all())


def test_large_batches_in_pieces_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.randn(7, 3, 2, 2)
    levels = torch.randint(0, LEVELS, z.shape, dtype=torch.uint8)
    uniform = torch.rand(z.shape)

    def all_three() -> list[Tensor]:
        distribution = RoundedPixels(z, M, VAR, LEVELS)
        return [distribution.log_prob(levels), distribution.mean(), distribution.sample(uniform)]

    whole = all_three()
    monkeypatch.setattr(pixels_module, "CHUNK", 2 * z[0].numel() * LEVELS)
    assert all(torch.equal(a, b) for a, b in zip(whole, all_three(), strict=True))


PAIRS = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
P = torch.tensor([0.4, 0.1, 0.05, 0.45], dtype=torch.float64)
"""A world of two pixels that prefer to agree."""
ENTROPY = float(-(P * P.log()).sum())


class ExactNoise(nn.Module):
    """E[eps | z_t] of the noised points, in closed form: what a perfect network predicts. No parameters."""

    def __init__(self, sde: VPSDE) -> None:
        super().__init__()
        self.sde = sde

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        m, var = self.sde.mean(t)[:, None], self.sde.var(t)[:, None]
        z = z_t.double().flatten(1)
        square = (z[:, None] - m[..., None] * PAIRS).square().sum(dim=2)
        weights = torch.softmax(P.log() - square / (2 * var), dim=1)
        noise: Tensor = (z - m * (weights @ PAIRS)) / var.sqrt()
        return noise.reshape(z_t.shape).to(z_t.dtype)


def world(time_eps: float) -> ScoreBasedModel:
    sde, shape = VPSDE(), Pixels(1, 1, 2, "binary", 1)
    prior = ScoreModel(sde, ExactNoise(sde))
    bound = likelihood_bound(prior, ObjectiveConfig(time_eps=time_eps))
    return ScoreBasedModel(coder=NoisyPixels(sde, shape, time_eps), prior=prior, bound=bound)


def expectation(density: Density, counts: Tensor) -> tuple[float, float]:
    """Return the mean over the world of nats per image, and its standard error."""
    parts = torch.split(density.nats, counts.tolist())
    mean = sum(float(p) * float(x.mean()) for p, x in zip(P, parts, strict=True))
    var = sum(float(p) ** 2 * float(x.var()) / len(x) for p, x in zip(P, parts, strict=True))
    return mean, math.sqrt(var)


def scored(model: ScoreBasedModel, config: DensityConfig, per_state: int) -> tuple[float, float]:
    states = ((PAIRS + 1) / 2).to(torch.uint8).reshape(4, 1, 1, 2)
    levels = states.repeat_interleave(per_state, dim=0)
    density = model.density(levels, range(len(levels)), config)
    return expectation(density, torch.full((4,), per_state))


def rounding_gap(time_eps: float) -> float:
    """E_z KL(P(x | z_e) || p(x | z_e)): what rounding each pixel on its own, under a flat prior, costs.

    By quadrature on a grid of z_e that reaches eight standard deviations.
    """
    sde, t = VPSDE(), torch.tensor(time_eps, dtype=torch.float64)
    m, var = float(sde.mean(t)), float(sde.var(t))
    axis = torch.linspace(-m - 8 * var**0.5, m + 8 * var**0.5, 1201, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    log_lik = -(z[:, None] - m * PAIRS).square().sum(dim=2) / (2 * var) - math.log(2 * math.pi * var)
    log_joint = log_lik + P.log()
    true = log_joint.log_softmax(dim=1)
    rounded = log_lik.log_softmax(dim=1)  # a flat prior over all four pairs makes the pixels independent
    cell = float(axis[1] - axis[0]) ** 2
    return float((log_joint.exp() * (true - rounded)).sum()) * cell


@pytest.mark.parametrize("time_eps", [1e-2, 0.15])
@pytest.mark.parametrize("method", ["nelbo", "ode"])
def test_the_bound_on_discrete_data_is_one_and_exact_to_the_rounding(method: str, time_eps: float) -> None:
    """With the exact score both bounds are the entropy plus the cost of rounding, and nothing else."""
    model = world(time_eps)
    if method == "nelbo":
        mean, error = scored(model, DensityConfig(draws=16), 1500)
        slack = 0.0
    else:
        config = DensityConfig("ode", rtol=1e-6, atol=1e-6, divergence="exact")
        mean, error = scored(model, config, 100)
        slack = 1e-3  # the solver's: 4e-4 at this tolerance, 1e-4 at a hundredth of it
    gap = rounding_gap(time_eps)
    assert mean > ENTROPY - 4 * error - slack
    assert abs(mean - ENTROPY - gap) < 4 * error + slack
    # Sharp enough to see the gap at the larger time, where it is 0.046 nats, and its absence at the smaller.
    assert error < 0.02
    assert (gap < 1e-6) == (time_eps == 1e-2)


def test_draws_of_an_image_are_rows_one_after_the_other() -> None:
    """Each as if it were alone with its noise; only the noise differs between them."""
    coder = NoisyPixels(VPSDE(), Pixels(1, 2, 2, "discrete", 5), 0.05)
    levels = torch.randint(0, 32, (2, 1, 2, 2), dtype=torch.uint8)
    n = torch.randn(6, 1, 2, 2)
    together = coder.encode(levels, lambda *shape: n, 3)
    alone = coder.encode(levels[[0, 0, 0, 1, 1, 1]], lambda *shape: n)
    for ours, theirs in zip(together[:5], alone[:5], strict=True):
        assert torch.equal(ours, theirs)
    assert len(together.log_q.unique()) == 6


def test_a_worse_score_gives_a_larger_bound() -> None:
    model = world(1e-2)

    class Biased(ExactNoise):
        def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
            return 0.8 * super().forward(z_t, t)

    worse = replace(model, prior=ScoreModel(model.prior.sde, Biased(VPSDE())))
    mean, error = scored(worse, DensityConfig(draws=16), 500)
    assert mean > ENTROPY + 10 * error
