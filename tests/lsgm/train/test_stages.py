"""What the stages minimise, against the same numbers from torch's own distributions."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import tiny
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Normal

from lsgm.config import DensityConfig
from lsgm.data import test_levels
from lsgm.errors import ConfigError
from lsgm.generative import Pixels
from lsgm.model.diffusion import measure_lsgm
from lsgm.model.lsgm import LSGM, build_lsgm
from lsgm.recipes.recipe import KLConfig
from lsgm.rng import StepNoise
from lsgm.train.stage import VALIDATION_BATCH, Losses, Stage
from lsgm.train.stages import JointStep, NormalPriorStep

RECIPE = tiny.recipe({"stage1": {"kl": {"start": 0.2, "portion": 0.5}}})
BINARY = Pixels(1, 8, 8, "binary", 1)


@pytest.fixture(scope="module")
def networks() -> LSGM:
    """Fresh networks, moved away from where they start."""
    torch.manual_seed(0)
    model = build_lsgm(RECIPE, BINARY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def levels() -> Tensor:
    return test_levels(tiny.bars(), "test", 0)


def noise(step: int, rows: int) -> StepNoise:
    return StepNoise(5, step, global_batch=rows)


def log_density(law: Distribution, x: Tensor) -> Tensor:
    """Return a joint log-density of independent variables, summed per sample."""
    each: Tensor = law.log_prob(x)
    return each.flatten(1).sum(dim=1)


@pytest.mark.parametrize(("progress", "k"), [(0.0, 0.1), (0.15, 0.4), (0.3, 0.7), (0.6, 0.7), (1.0, 0.7)])
def test_the_kl_coefficient_rises_linearly_and_stays(progress: float, k: float) -> None:
    assert KLConfig(start=0.1, end=0.7, portion=0.3).at(progress) == pytest.approx(k)
    assert KLConfig(start=0.1, end=0.7, portion=0.0).at(progress) == 0.7


def test_a_kl_coefficient_that_falls_or_exceeds_the_bounds_is_refused() -> None:
    for wrong in ({"start": 0.5, "end": 0.2}, {"end": 1.5}, {"portion": 2.0}):
        with pytest.raises(ConfigError, match="kl"):
            KLConfig(**wrong)


@pytest.mark.parametrize(("progress", "k"), [(0.0, 0.2), (0.25, 0.6), (1.0, 1.0)])
def test_stage_1_is_the_bound_with_a_normal_prior(
    networks: LSGM, levels: Tensor, progress: float, k: float
) -> None:
    """-log p(x | z_0) + k (log q(z_0 | x) - log N(z_0; 0, I)) with torch's densities."""
    losses: Losses = NormalPriorStep(networks.vae, RECIPE.stage1).module(levels, noise(0, 64), progress)
    n = noise(0, 64).normal(2, 4, 4)
    mu = networks.vae.posterior(levels, lambda *shape: torch.zeros(64, *shape)).z[0]
    z_0 = networks.vae.posterior(levels, lambda *shape: n).z[0]
    sigma = networks.vae.posterior(levels, lambda *shape: torch.ones(64, *shape)).z[0] - mu
    log_q = log_density(Normal(mu, sigma), z_0)
    log_p = log_density(Normal(0.0, 1.0), z_0)
    logits = networks.vae.decoder(z_0)
    reconstruction = -log_density(Bernoulli(logits=logits), levels.float())
    expected = {
        "reconstruction": reconstruction,
        "kl": log_q - log_p,
        "nelbo": reconstruction + log_q - log_p,
    }
    # float32: sigma is the difference of two numbers of order one, so log q is good to five digits.
    for name, value in expected.items():
        torch.testing.assert_close(losses.terms[name], value.mean(), rtol=1e-4, atol=1e-3)
    total = (reconstruction + k * (log_q - log_p)).mean()
    torch.testing.assert_close(losses.total, total, rtol=1e-4, atol=1e-3)
    assert losses.total.requires_grad
    assert not any(term.requires_grad for term in losses.terms.values())


def test_stage_2_estimates_the_bound_that_is_measured_afterwards(networks: LSGM, levels: Tensor) -> None:
    """Training's noise and evaluation's are different; their means over many draws are the same number."""
    stage = JointStep(networks.vae, networks.prior, RECIPE.prior.objective, RECIPE.stage2)
    model = measure_lsgm(RECIPE.prior.objective, networks, {"name": "", "sha256": ""})
    with torch.no_grad():
        trained = torch.stack([stage.module(levels, noise(i, 64), 1.0).terms["nelbo"] for i in range(60)])
    measured = torch.stack(
        [
            model.density(levels, range(64 * i, 64 * i + 64), DensityConfig(draws=4)).nats.mean()
            for i in range(15)
        ]
    )
    error = math.sqrt(float(trained.var()) / len(trained) + float(measured.var()) / len(measured))
    assert abs(float(trained.mean()) - float(measured.mean())) < 4 * error
    # The bound is 90 nats or so, and the comparison is worth something.
    assert error < 0.02 * float(measured.mean())


def test_stage_2_trains_both_parts_in_groups_of_their_own(networks: LSGM, levels: Tensor) -> None:
    stage = JointStep(networks.vae, networks.prior, RECIPE.prior.objective, RECIPE.stage2)
    losses: Losses = stage.module(levels, noise(0, 64), 0.0)
    assert losses.terms.keys() == {"reconstruction", "kl", "nelbo", "score_loss", "active_channels"}
    assert not any(term.requires_grad for term in losses.terms.values())
    assert [group.name for group in stage.groups()] == ["vae", "prior"]
    assert networks.prior.logit is not None
    assert any(parameter is networks.prior.logit for parameter in stage.groups()[1].params)


def test_validation_is_the_same_at_every_call_and_leaves_the_global_generator_alone(
    networks: LSGM, levels: Tensor
) -> None:
    stage = NormalPriorStep(networks.vae, RECIPE.stage1)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    with torch.no_grad():
        one = stage.validate(levels, 3)
        assert torch.equal(torch.random.get_rng_state(), state)
        torch.manual_seed(2)
        assert stage.validate(levels, 3) == one
        assert stage.validate(levels, 4) != one
    assert one.keys() == {"reconstruction", "kl", "nelbo"}


def test_a_mean_over_batches_weighs_every_image_alike() -> None:
    class Ink(nn.Module):
        """The mean ink of a batch, and how far the stage is."""

        def __init__(self) -> None:
            super().__init__()
            self.nothing = nn.Parameter(torch.zeros(()))

        def forward(self, levels: Tensor, noise: StepNoise, progress: float) -> Losses:
            assert progress == 1.0
            return Losses(self.nothing, {"ink": levels.float().mean()})

    levels = torch.zeros(VALIDATION_BATCH + 10, 1, 2, 2, dtype=torch.uint8)
    levels[VALIDATION_BATCH:] = 1
    stage = SimpleNamespace(module=Ink())
    assert Stage.validate(stage, levels, 0)["ink"] == pytest.approx(10 / (VALIDATION_BATCH + 10))  # type: ignore[arg-type]
