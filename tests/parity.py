"""Small networks, and what holds their numbers on one device to those on the CPU in float64."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from tiny import bars, recipe
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from lsgm.distributed import join, leave
from lsgm.generative import Pixels
from lsgm.model.lsgm import LSGM
from lsgm.nets.config import NVAEConfig
from lsgm.rng import StepNoise
from lsgm.runs.checkpoint import read_state
from lsgm.runs.load import fresh_networks
from lsgm.train.loop import train_recipe
from lsgm.train.optim import WeightAverage, build_optimizer, clip_gradients
from lsgm.train.stages import second_step
from lsgm.vae.hierarchical import HierarchicalVAE

EXACT = 1e-10
"""Of float64: a few thousand roundings of 1e-16, in another order, times what a tiny network amplifies."""
SINGLE = 1e-4
"""Of float32: sums of some hundred products, in a dozen layers, each off by a few roundings of 6e-8, and
amplified by normalisations of groups whose spread is small beside their mean."""

DTYPES = [(torch.float64, EXACT), (torch.float32, SINGLE)]
in_both_dtypes = pytest.mark.parametrize(("dtype", "tolerance"), DTYPES, ids=["float64", "float32"])


class Carried(StepNoise):
    """The CPU's noise of a step, on another device: generators of two devices draw different numbers."""

    def __init__(self, size: int, device: torch.device) -> None:
        super().__init__(1, 0, global_batch=size)
        self._to = device

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return super().normal(*shape, dtype=dtype).to(self._to)

    def stratified(self) -> Tensor:
        return super().stratified().to(self._to)


def moved(networks: Any, seed: int = 0) -> Any:
    """Return networks whose parameters are off their start, where layers that begin at zero hide others."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in networks.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return networks


def tiny_lsgm() -> LSGM:
    networks = moved(fresh_networks(recipe(), Pixels(1, 8, 8, "binary", 1)))
    assert isinstance(networks, LSGM)
    return networks.eval()


def nvae() -> HierarchicalVAE:
    torch.manual_seed(0)
    config = NVAEConfig(width=8, latents=2, pre_cells=1, post_cells=1)
    vae: HierarchicalVAE = moved(HierarchicalVAE(config, Pixels(1, 16, 16, "binary")))
    return vae.eval()


def levels(count: int = 8) -> Tensor:
    return (bars().split("train")[:count] > 100).to(torch.uint8)


def distance(found: Tensor, truth: Tensor) -> float:
    """Return the largest difference relative to the largest entry."""
    found, truth = found.detach().double().cpu(), truth.detach().double()
    return float((found - truth).abs().max() / truth.abs().max().clamp(min=1e-30))


def compare(
    compute: Callable[[Any, torch.device], dict[str, Tensor]],
    networks: Any,
    device: torch.device,
    dtype: torch.dtype,
    tolerance: float,
    truth: torch.dtype = torch.float64,
) -> None:
    """Hold what networks compute on a device in a dtype to the same on the CPU in another."""
    expected = compute(copy.deepcopy(networks).to(truth), torch.device("cpu"))
    found = compute(copy.deepcopy(networks).to(device, dtype), device)
    assert found.keys() == expected.keys()
    far = {name: distance(found[name], expected[name]) for name in expected}
    assert max(far.values()) <= tolerance, {name: value for name, value in far.items() if value > tolerance}


class Stepper:
    """An LSGM with its optimisers, clipping and average, stepped as the engine steps them."""

    def __init__(self, networks: LSGM, device: torch.device, *, low: bool = False) -> None:
        config = recipe().stage2
        self._stage = second_step(networks.vae, networks.prior, recipe().prior.objective, config)
        self._device, self._low = device, low
        self.module = self._stage.module.to(device).train()
        self._groups = self._stage.groups()
        self._optimizers = [build_optimizer(group) for group in self._groups]
        self._average = WeightAverage(self.module, ("",), 0.9)

    def compile(self, backend: str) -> None:
        """Compile what the stage compiles, by one of torch's backends."""
        for name in self._stage.compile_of:
            self.module.get_submodule(name).compile(backend=backend)

    def backward(self, images: Tensor, noise: StepNoise, module: torch.nn.Module | None = None) -> Tensor:
        """Go forward and backward; return the loss."""
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._low):
            total: Tensor = (module or self.module)(images, noise, 0.5).total
        total.backward()
        return total.detach()

    def step(self, images: Tensor, noise: StepNoise) -> None:
        """Make a step."""
        self.backward(images, noise)
        for group, optimizer in zip(self._groups, self._optimizers, strict=True):
            clip_gradients(group.params, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._average.update()

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients of either part, as one vector."""
        return {
            part: torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
            for part, module in (("vae", self.module.vae), ("prior", self.module.prior))
        }


def gradients(
    networks: LSGM, device: torch.device, *, low: bool = False, backend: str = ""
) -> dict[str, Tensor]:
    """Return the loss of a joint step and its gradients by part, on the CPU's noise."""
    stepper = Stepper(networks, device, low=low)
    if backend:
        stepper.compile(backend)
    total = stepper.backward(levels().to(device), Carried(8, device))
    return {"total": total, **stepper.gradients()}


def one_rank(folder: Path, device: str) -> None:
    """Be a world of one: wrap, sum, train and resume; tell what came of it in ``told.json``."""
    place = torch.device(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo")
    world = join(place)
    alone = gradients(tiny_lsgm(), place)
    stepper = Stepper(tiny_lsgm(), place)
    wrapped = DistributedDataParallel(stepper.module, device_ids=None if place.type == "cpu" else [0])
    stepper.backward(levels().to(place), Carried(8, place), wrapped)
    total = torch.arange(8.0, device=place)
    dist.all_reduce(total)
    steps = {"stage1": {"steps": 3}, "stage2": {"steps": 3}}
    first = train_recipe(recipe(steps), folder / "run", device=place, images=bars(), max_steps=2)
    last = train_recipe(recipe(steps), folder / "run", device=place, images=bars())
    told = {
        "backend": dist.get_backend(),
        "sum": float(total.sum()),
        "apart": max(distance(x, alone[name].cpu()) for name, x in stepper.gradients().items()),
        "resumed": last.step if first.step == 2 and last.finished else None,
        "checkpoint": read_state(last.checkpoint)["step"],
        "world": world.size,
    }
    (folder / "told.json").write_text(json.dumps(told))
    leave()
