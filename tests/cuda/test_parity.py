"""Every piece gives on a device what it gives on the CPU in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import bars, recipe
from torch import Tensor

from lsgm.config import SDEConfig
from lsgm.generative import Pixels
from lsgm.model.lsgm import LSGM, VAECoder
from lsgm.nets.config import NVAEConfig
from lsgm.objective.bound import Objective
from lsgm.rng import SeededNoise, StepNoise
from lsgm.runs.load import fresh_networks
from lsgm.sde import make_sde
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
) -> None:
    """Hold what networks compute on a device in a dtype to the same on the CPU in float64."""
    truth = compute(copy.deepcopy(networks).double(), torch.device("cpu"))
    found = compute(copy.deepcopy(networks).to(device, dtype), device)
    assert found.keys() == truth.keys()
    far = {name: distance(found[name], truth[name]) for name in truth}
    assert max(far.values()) <= tolerance, {name: value for name, value in far.items() if value > tolerance}


@pytest.mark.parametrize("kind", ["vp", "subvp", "ve", "geometric"])
def test_tables_of_an_sde(kind: str, device: torch.device) -> None:
    """The library functions of two devices differ by an ulp or two, 1 - exp(-x) near 0 by 1e-16 / x."""
    sde = make_sde(SDEConfig(kind=kind))
    t = torch.linspace(1e-5, 1.0, 200, dtype=torch.float64)
    for name in ("f", "g2", "mean", "var", "dvar", "sigma", "marginal_var", "unit_eps_coef"):
        table = getattr(sde, name)
        torch.testing.assert_close(table(t.to(device)).cpu(), table(t), rtol=1e-9, atol=1e-14, msg=name)


@in_both_dtypes
def test_a_vae_encodes_and_decodes(device: torch.device, dtype: torch.dtype, tolerance: float) -> None:
    def compute(networks: Any, device: torch.device) -> dict[str, Tensor]:
        seeded = SeededNoise(range(8), device=device)
        coder = VAECoder(networks.vae, 1e-5)
        encoded = coder.encode(levels().to(device), seeded.normal)
        decoded = coder.decode(encoded.z_0, seeded.normal).log_prob(levels().to(device))
        return {
            "z_0": encoded.z_0,
            "log_q": encoded.log_q,
            "reconstruction": encoded.reconstruction,
            "decoded": decoded,
        }

    compare(compute, tiny_lsgm(), device, dtype, tolerance)


@in_both_dtypes
def test_a_hierarchical_vae_encodes_and_decodes(
    device: torch.device, dtype: torch.dtype, tolerance: float
) -> None:
    def compute(vae: Any, device: torch.device) -> dict[str, Tensor]:
        seeded = SeededNoise(range(4), device=device)
        images = torch.nn.functional.pad(levels(4), (4, 4, 4, 4)).to(device)
        posterior = vae.posterior(images, seeded.normal)
        likelihood = vae.likelihood(posterior.z).log_prob(images)
        return {"z": posterior.z[-1], "log_q": torch.stack(posterior.log_q), "likelihood": likelihood}

    compare(compute, nvae(), device, dtype, tolerance)


@pytest.mark.parametrize("weighting", ["ll", "un", "re"])
@in_both_dtypes
def test_the_objective_and_its_gradients(
    device: torch.device, dtype: torch.dtype, tolerance: float, weighting: str
) -> None:
    def compute(networks: Any, device: torch.device) -> dict[str, Tensor]:
        noise = Carried(8, device)
        sde = networks.prior.sde
        objective = Objective.make(sde, weighting=weighting, importance_sampling=True, time_eps=1e-2)
        z, log_q = networks.vae.posterior(levels().to(device), noise.normal)
        z_0 = networks.vae.groups.stack(z)
        ce = objective.cross_entropy(networks.prior, z_0, noise.stratified(), noise.normal(*z_0.shape[1:]))
        (torch.stack(log_q).sum(dim=0) + ce.surrogate).mean().backward()
        gradients = {
            part: torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
            for part, module in networks.named_children()
        }
        return {"value": ce.value, "score_loss": ce.score_loss, **gradients}

    compare(compute, tiny_lsgm(), device, dtype, tolerance)
