"""Stage 1 by several draws of z per image: the importance-weighted bound, its terms and its gradient."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from oracles.flat_vae import flat_log_weight, importance_bound
from torch import Tensor

from lsgm.bench.cost import Forward, step_flops
from lsgm.data import test_levels
from lsgm.errors import ConfigError
from lsgm.generative import Pixels
from lsgm.kinds import recipe_from
from lsgm.model.lsgm import build_vae
from lsgm.nets.config import ConvVAEConfig, FlatVAEConfig, NVAEConfig
from lsgm.recipes.recipe import KLConfig, VAEConfig, VAEStage
from lsgm.rng import StepNoise
from lsgm.runs.checkpoint import find_checkpoint, read_weights
from lsgm.runs.directory import read_metrics
from lsgm.train.loop import train_recipe
from lsgm.train.losses import NormalPriorLoss, importance_weighted
from lsgm.train.stage import Losses
from lsgm.train.stages import NormalPriorStep
from lsgm.vae.base import VAE, normal_log_prob, sum_per_sample

BATCH, SAMPLES = 6, 5
BOUND = KLConfig(start=1.0, end=1.0, portion=0.0)
FLAT = FlatVAEConfig(hidden=(12, 10), latents=4)
KINDS: dict[str, VAEConfig] = {
    "flat": FLAT,
    "conv": ConvVAEConfig(width=4, multipliers=(1,), latent_channels=2),
    "nvae": NVAEConfig(width=4, multipliers=(1, 2), groups=2, latents=3, encoder_cells=1, decoder_cells=1),
}


def vae(config: VAEConfig = FLAT) -> VAE:
    """A model of 8 x 8 bits in float64, whose numbers are of no special value."""
    torch.manual_seed(0)
    model = build_vae(config, Pixels(1, 8, 8, "binary", 1), pad=0).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def levels() -> Tensor:
    return test_levels(tiny.bars(), "test", 0)[:BATCH]


def noise(step: int = 0, rows: slice | None = None) -> StepNoise:
    return StepNoise(5, step, global_batch=BATCH, rows=rows)


def loss(model: VAE, samples: int = SAMPLES) -> NormalPriorLoss:
    return NormalPriorLoss(model, BOUND, importance_samples=samples)


def log_weight(model: VAE, levels: Tensor, n: list[Tensor]) -> Tensor:
    """log w of one draw of each image, by the noise of every group."""
    left = iter(n)
    z, log_q = model.posterior(levels, lambda *shape: next(left))
    log_p = sum(sum_per_sample(normal_log_prob(z_l)) for z_l in z)
    reconstruction = sum_per_sample(model.likelihood(z).log_prob(levels))
    return reconstruction + log_p - torch.stack(log_q).sum(dim=0)


@pytest.mark.parametrize("kind", KINDS)
def test_one_sample_is_the_evidence_lower_bound(kind: str, levels: Tensor) -> None:
    """For K = 1 the two bounds are one number, and the loss is the mean of -log w exactly."""
    model = vae(KINDS[kind])
    losses: Losses = loss(model, samples=1)(levels, noise(), 0.5)
    draws = noise()
    log_w = log_weight(model, levels, [draws.normal(*shape) for shape in model.groups.shapes])
    assert "iw" not in losses.terms
    assert torch.equal(losses.total.detach(), losses.terms["nelbo"])
    torch.testing.assert_close(losses.total, -log_w.mean())
    assert torch.equal(importance_weighted(-log_w, 1), -log_w)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_bound_of_k_draws_for_every_kind_of_vae(kind: str, levels: Tensor) -> None:
    model = vae(KINDS[kind])
    draws = noise()
    n = [draws.normal(SAMPLES, *shape) for shape in model.groups.shapes]
    log_w = torch.stack([log_weight(model, levels, [x[:, k] for x in n]) for k in range(SAMPLES)], dim=1)
    losses: Losses = loss(model)(levels, noise(), 0.5)
    bound = -log_w.exp().mean(dim=1).log()
    # The noise and its squares are float32.
    torch.testing.assert_close(losses.total, bound.mean(), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(losses.terms["iw"], bound.mean(), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(losses.terms["nelbo"], -log_w.mean(), rtol=1e-6, atol=1e-5)
    assert not any(term.requires_grad for term in losses.terms.values())
    groups = len(model.groups.shapes)
    assert {f"kl/{group}" for group in range(groups) if groups > 1} <= losses.terms.keys()


def test_the_loss_is_that_of_the_same_weights_written_out(levels: Tensor) -> None:
    """Against matrix products, scipy's densities and scipy's logsumexp, for the 50 samples of the recipes."""
    model = vae()
    n = noise().normal(50, 4, 1, 1).view(BATCH, 50, 4).double().numpy()
    log_w = flat_log_weight(model.state_dict(), levels.flatten(1).double().numpy(), n)
    losses: Losses = loss(model, samples=50)(levels, noise(), 0.5)
    # The noise and its squares are float32, all else float64.
    np.testing.assert_allclose(losses.total.item(), importance_bound(log_w).mean(), rtol=1e-8)
    np.testing.assert_allclose(losses.terms["nelbo"].item(), -log_w.mean(), rtol=1e-8)


def test_the_gradient_is_that_of_each_draw_weighted_by_its_share_of_the_weights(levels: Tensor) -> None:
    """Equation 13 of arXiv:1509.00519: grad = -sum_k w_k / (sum_j w_j) grad log w_k, z reparametrised."""
    model = vae()
    parameters = list(model.parameters())
    loss(model)(levels[:2], StepNoise(5, 0, global_batch=2), 0.5).total.backward()
    n = StepNoise(5, 0, global_batch=2).normal(SAMPLES, 4, 1, 1)
    log_w = torch.stack([log_weight(model, levels[:2], [n[:, k]]) for k in range(SAMPLES)], dim=1)
    shares = torch.softmax(log_w.detach(), dim=1)
    # No draw has all the weight, or the test would be about one draw.
    assert shares.max() < 0.99
    expected = [torch.zeros_like(parameter) for parameter in parameters]
    for image in range(2):
        for k in range(SAMPLES):
            gradients = torch.autograd.grad(log_w[image, k], parameters, retain_graph=True)
            for sum_, gradient in zip(expected, gradients, strict=True):
                sum_ -= shares[image, k] * gradient / 2
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12)


@torch.no_grad()
def test_more_samples_give_a_tighter_bound(levels: Tensor) -> None:
    """L_1 <= L_k <= L_m in expectation, k <= m (theorem 1 of arXiv:1509.00519); L_1 <= L_k for any draws."""
    model = vae()
    means = []
    for samples in (1, 2, 16):
        terms = [loss(model, samples)(levels, noise(step), 0.5).terms for step in range(100)]
        bounds = torch.stack([term.get("iw", term["nelbo"]) for term in terms])
        assert all(term["nelbo"] >= bound for term, bound in zip(terms, bounds, strict=True))
        means.append((float(bounds.mean()), float(bounds.std()) / math.sqrt(len(bounds))))
    for (loose, error), (tight, tight_error) in pairwise(means):
        assert loose - tight > 4 * math.hypot(error, tight_error)


def test_processes_that_share_a_batch_draw_what_one_would(levels: Tensor) -> None:
    model = vae()
    whole = loss(model)(levels, noise(), 0.5).total
    parts = [loss(model)(levels[rows], noise(rows=rows), 0.5).total for rows in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


@pytest.mark.parametrize("kl", [KLConfig(), KLConfig(start=1.0, balance=True), KLConfig(start=0.5, end=0.5)])
def test_a_weighted_kl_and_weighted_samples_do_not_go_together(kl: KLConfig) -> None:
    with pytest.raises(ConfigError, match=r"set kl\.start and kl\.end to 1 and kl\.balance to false"):
        VAEStage(importance_samples=2, kl=kl)
    assert VAEStage(importance_samples=1, kl=kl).importance_samples == 1


def test_less_than_one_sample_is_refused() -> None:
    with pytest.raises(ConfigError, match="importance-samples is 0; it must be at least 1"):
        VAEStage(importance_samples=0)


def test_what_follows_the_draw_is_counted_once_a_sample() -> None:
    forward = Forward(encode=4, vae=10, prior=0, another_draw=6)
    stage = VAEStage(importance_samples=50, kl=BOUND, batch_size=2)
    assert step_flops(stage, forward) == 2 * 3 * (4 + 50 * 6)
    assert step_flops(stage, forward, frozenset({"vae"})) == 2 * 4 * (4 + 50 * 6)


def test_validation_tells_the_bound_that_is_trained_by(levels: Tensor) -> None:
    model = vae()
    stage = NormalPriorStep(model, VAEStage(importance_samples=3, kl=BOUND))
    with torch.no_grad():
        terms = stage.validate(levels, 3)
        assert stage.validate(levels, 3) == terms
    assert terms.keys() == {"reconstruction", "kl", "nelbo", "iw"}
    assert terms["iw"] < terms["nelbo"]
    assert stage.module.importance_samples == 3


def test_an_iwae_goes_on_from_the_weights_of_a_vae(tmp_path: Path) -> None:
    """`--init-from`: the two have the same networks, and differ in the bound alone."""
    stage = {**tiny.TABLES["stage1"], "kl": dataclasses.asdict(BOUND)}
    tables: dict[str, Any] = {"kind": "vae", "vae": {"kind": "flat", "hidden": [12, 10], "latents": 4}}
    first = recipe_from({**tables, "stage1": stage}, "a VAE")
    iwae = recipe_from({**tables, "stage1": {**stage, "importance_samples": 4}}, "an IWAE")
    assert train_recipe(first, tmp_path / "vae", images=tiny.bars()).finished
    train_recipe(iwae, tmp_path / "iwae", images=tiny.bars(), init_from=tmp_path / "vae", max_steps=1)
    before, after = (read_weights(find_checkpoint(tmp_path / name), "ema") for name in ("vae", "iwae"))
    assert before.keys() == after.keys()
    # One step, whose rate the warm-up has at 0.
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert train_recipe(iwae, tmp_path / "iwae", images=tiny.bars(), init_from=tmp_path / "vae").finished
    rows = list(read_metrics(tmp_path / "iwae" / "metrics.jsonl"))
    assert all(row["iw"] == row["total"] < row["nelbo"] for row in rows)
    assert rows[-1]["val_iw"] < rows[-1]["val_nelbo"]
