"""Samples by every way to run a score network: recorded bit for bit, compiled and in bfloat16 nearly."""

from __future__ import annotations

import pytest
import torch
from parity import moved
from tiny import recipe
from torch import Tensor

from lsgm.config import Execution, SamplerConfig
from lsgm.distributed import World
from lsgm.generative import Pixels
from lsgm.model.diffusion import ScoreBasedModel, measure_lsgm
from lsgm.model.running import StaticScore, in_bfloat16, prepare, settle
from lsgm.rng import SeededNoise
from lsgm.runs.load import fresh_networks
from lsgm.sampling import draw


def model_on(device: torch.device) -> ScoreBasedModel:
    """Networks whose last layers, zero when fresh, have been moved."""
    settings = recipe({"prior": {"mixing_init": 0.0}})
    networks = fresh_networks(settings, Pixels(1, 8, 8, "binary")).eval().requires_grad_(False)
    moved(networks.get_submodule("prior"))
    state = {"name": "tiny", "sha256": "0" * 64, "stage": "stage2", "step": 1, "meta": {}}
    return measure_lsgm(settings.prior.objective, networks.to(device), state)  # type: ignore[arg-type]


def drawn(model: ScoreBasedModel, name: str, device: torch.device, count: int = 4) -> Tensor:
    config = SamplerConfig(name=name, steps=4, rtol=1e-3, atol=1e-3, time_end=0.01)
    score = model.running.score(model.prior, config, adaptive=name == "dopri5")
    return draw(score, model.coder.latent_shape, SeededNoise(range(count), device=device), config).z


@pytest.mark.cuda
@pytest.mark.parametrize("execution", ["graphs", "compiled", "compiled-graphs"])
@pytest.mark.parametrize("name", ["heun", "ancestral", "unipc-3", "dopri5"])
def test_every_way_draws_the_same(gpu: torch.device, execution: Execution, name: str) -> None:
    model = model_on(gpu)
    eager = drawn(model, name, gpu)
    prepare(model, execution, 4)
    assert model.running.execution == execution
    found = [drawn(model, name, gpu) for _ in range(2)]
    assert torch.equal(*found)
    if execution == "graphs" and name != "dopri5":  # whose batches shrink to sizes with kernels of their own
        assert torch.equal(found[0], eager)
    # Roundings of float32 through some evaluations; of dopri5 a step may be another one within its tolerance.
    near = 1e-2 if name == "dopri5" else 1e-4
    torch.testing.assert_close(found[0], eager, rtol=near, atol=near)
    torch.testing.assert_close(drawn(model, name, gpu, 3), eager[:3], rtol=near, atol=near)


def test_bfloat16_is_near_float32(device: torch.device) -> None:
    model = model_on(device)
    z = torch.randn(8, *model.coder.latent_shape, generator=torch.Generator().manual_seed(1)).to(device)
    t = torch.full((8,), 0.5, dtype=torch.float64, device=device)
    exact, near = model.prior.drift(z, t), in_bfloat16(model.prior).drift(z, t)
    # Eight bits of a significand, 2^-9 of each product, over the few layers of a tiny network.
    assert 1e-5 < float((near - exact).norm() / exact.norm()) < 2e-2


@pytest.mark.cuda
def test_bfloat16_is_recorded_too(gpu: torch.device) -> None:
    model = model_on(gpu)
    config = SamplerConfig(steps=4, precision="bfloat16")
    plain = model.sample(range(4), config).images
    prepare(model, "graphs", 4)
    assert isinstance(model.running.score(model.prior, config, adaptive=False), StaticScore)
    assert torch.equal(model.sample(range(4), config).images, plain)


def test_the_batch_that_is_found_changes_no_image(device: torch.device) -> None:
    model = model_on(device)
    before = model.sample(range(6), SamplerConfig(steps=2)).images
    assert settle([model], "eager", "auto", World(0, 1, device)) >= 1
    assert torch.equal(model.sample(range(6), SamplerConfig(steps=2)).images, before)
