"""A training step on a device: the gradients and weights of the CPU, no waiting, no growing memory."""

from __future__ import annotations

import copy
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from beside import begin
from parity import SINGLE, Carried, Stepper, compare, gradients, levels, one_rank, tiny_lsgm
from torch import Tensor, nn

from lsgm.bench.cost import recipe_pixels
from lsgm.bench.measuring import narrowed, read_recipes
from lsgm.bench.scale import kept
from lsgm.config import OptimConfig
from lsgm.devices import peak_bytes, reset_peak
from lsgm.rng import StepNoise
from lsgm.runs.load import fresh_networks
from lsgm.train.optim import ParamGroup, WeightAverage, build_optimizer, clip_gradients
from lsgm.train.stages import second_step

BFLOAT16 = 0.1
"""Of bfloat16: products off by 2^-9 of themselves, which a dozen layers forward and backward add up to a few
hundredths of a gradient's length."""


CASES = {
    "float32": (False, SINGLE, False),
    "bfloat16": (True, BFLOAT16, False),
    "compiled": (False, SINGLE, True),
    "bfloat16, compiled": (True, BFLOAT16, True),
}


@pytest.mark.parametrize("case", CASES)
def test_a_step_has_the_gradients_of_the_cpu(device: torch.device, case: str) -> None:
    """On the CPU compiling stops before code is made, which would take a minute, and once will do."""
    low, tolerance, compiled = CASES[case]
    if compiled and low and device.type == "cpu":
        pytest.skip("what is traced is the same in both dtypes")
    backend = ("inductor" if device.type == "cuda" else "eager") if compiled else ""
    networks = tiny_lsgm()
    truth = gradients(copy.deepcopy(networks).double(), torch.device("cpu"))
    found = gradients(networks.to(device), device, low=low, backend=backend)
    assert found.keys() == truth.keys()
    for name, exact in truth.items():
        apart = float((found[name].double().cpu() - exact).norm() / exact.norm())
        assert apart <= tolerance, (name, apart)


@pytest.mark.parametrize("rule", ["adam", "adamax", "adamw"])
def test_optimisers_and_the_average_move_weights_alike(device: torch.device, rule: Any) -> None:
    """Given gradients, since the first step of Adam is no more than their signs."""

    def compute(module: Any, device: torch.device) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        config = OptimConfig(name=rule, lr=1e-2, weight_decay=1e-3)
        params = list(module.parameters())
        optimizer, average = (
            build_optimizer(ParamGroup("all", params, config)),
            WeightAverage(module, ("",), 0.9),
        )
        norms = []
        for _ in range(3):
            for p in params:
                p.grad = torch.randn(p.shape, generator=generator).to(p)
            norms.append(clip_gradients(params, 1.0))
            optimizer.step()
            average.update()
        averaged = torch.cat([value.flatten() for value in average.state_dict().values()])
        return {"norms": torch.stack(norms), "weights": flat(module), "average": averaged}

    compare(compute, nn.Sequential(nn.Conv2d(2, 8, 3), nn.Linear(4, 4)), device, torch.float32, 1e-5)


def flat(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_one_rank_is_the_same_as_none(device: torch.device, tmp_path: Path) -> None:
    """gloo on the CPU and NCCL on a GPU, in a process that is a world of one: gradients, a sum, a run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "1",
        "RANK": "0",
        "LOCAL_RANK": "0",
    }
    said = tmp_path / "stderr.txt"
    process = begin(one_rank, tmp_path, str(device), said=said, **world)
    process.join(240)
    assert process.exitcode == 0, said.read_text()
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["backend"] == ("nccl" if device.type == "cuda" else "gloo")
    assert told["sum"] == 28.0
    # The same kernels on the same numbers, in another process.
    assert told["apart"] <= 1e-6
    assert told["resumed"] == told["checkpoint"] == 6


@pytest.mark.cuda
@pytest.mark.parametrize("low", [False, True], ids=["float32", "bfloat16"])
def test_a_step_waits_for_nothing(gpu: torch.device, low: bool) -> None:
    stepper = Stepper(tiny_lsgm(), gpu, low=low)
    images = levels().to(gpu)
    for number in range(3):  # libraries and the average come into being
        stepper.step(images, StepNoise(1, number, global_batch=8, device=gpu))
    torch.cuda.synchronize(gpu)
    torch.cuda.set_sync_debug_mode("error")
    try:
        stepper.step(images, StepNoise(1, 3, global_batch=8, device=gpu))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
def test_memory_does_not_grow_with_steps(gpu: torch.device) -> None:
    stepper = Stepper(tiny_lsgm(), gpu)
    images, held = levels().to(gpu), []
    for _ in range(8):
        stepper.step(images, Carried(8, gpu))
        held.append(torch.cuda.memory_allocated(gpu))
    assert len(set(held[3:])) == 1, held


@pytest.mark.cuda
def test_the_peak_is_what_is_estimated(gpu: torch.device) -> None:
    """Gradients and what forward keeps, and no more than as much again in passing and for workspaces."""
    images = 32
    settings = narrowed(read_recipes("cifar10-fid")["cifar10-fid"], 0.25, images)
    pixels = recipe_pixels(settings)
    networks: Any = fresh_networks(settings, pixels).to(gpu).train()
    weights = sum(4 * p.numel() for p in networks.parameters())
    held = kept(settings)
    loss = second_step(networks.vae, networks.prior, settings.prior.objective, settings.stage2).module.to(gpu)
    batch = torch.zeros(images, *pixels.shape, dtype=torch.uint8, device=gpu)
    before = reset_peak(gpu) or 0
    with torch.autocast("cuda", dtype=torch.bfloat16):
        total = loss(batch, StepNoise(1, 0, global_batch=images, device=gpu), 0.5).total
    total.backward()
    rise = (peak_bytes(gpu) or 0) - before
    estimate = weights + held.fixed + images * held.image
    assert 0.5 * estimate < rise < 2 * estimate, (rise, estimate)
