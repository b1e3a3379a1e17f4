"""What the two processes of a test run: a module of its own, which they can import."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lsgm.cli import main
from lsgm.config import SamplerConfig
from lsgm.distributed import join
from lsgm.nets.layers import BatchNorm, recompute
from lsgm.runs.load import load_model

__all__ = ["SAMPLER", "SEEDS", "command_into", "normalise_a_share", "normalised_network", "sample_a_share"]

SEEDS, SAMPLER = range(8), SamplerConfig("heun", steps=3)


def command_into(words: list[str], said: Path) -> int:
    """Run a command whose standard output goes to the end of a file."""
    with said.open("a") as file, contextlib.redirect_stdout(file):
        return main(words)


def sample_a_share(run: Path, folder: Path) -> None:
    """Draw every second seed, gather what the other process drew, and let the first one keep all."""
    world = join("cpu")
    images = load_model(run).sample(SEEDS[world.rank :: 2], SAMPLER).images
    shares = [torch.empty_like(images) for _ in range(2)]
    dist.all_gather(shares, images)
    if world.main:
        torch.save(torch.stack(shares, dim=1).flatten(0, 1), folder / "images.pt")


class Recomputed(nn.Sequential):
    """Layers whose activations are computed again in the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layers make of x."""
        out: Tensor = recompute(super().forward, x)
        return out


def normalised_network() -> tuple[nn.Module, Tensor]:
    """Return a network with two batch norms, one of them recomputed, and a batch of unequal halves."""
    torch.manual_seed(0)
    deep = Recomputed(nn.Conv2d(3, 5, 3), nn.SiLU(), BatchNorm(5))
    net = nn.Sequential(BatchNorm(3), deep, nn.SiLU(), nn.Conv2d(5, 2, 3)).double()
    x = torch.randn(8, 3, 6, 6, dtype=torch.double)
    x[4:] = 3.0 * x[4:] + 2.0
    return net, x.requires_grad_()


def normalise_a_share(folder: Path) -> None:
    """Train on half of the batch for two steps and write what came of it."""
    world = join("cpu")
    net, batch = normalised_network()
    x = batch.detach()[world.rows(len(batch))].clone().requires_grad_()
    wrapped, losses = world.wrap(net), []
    for _ in range(2):
        net.zero_grad()
        loss = wrapped(x).square().mean()
        loss.backward()
        losses.append(loss.detach())
    result = {
        "losses": torch.stack(losses),
        "gradients": {name: p.grad for name, p in net.named_parameters()},
        "buffers": dict(net.named_buffers()),
        "input": x.grad,
    }
    torch.save(result, folder / f"{world.rank}.pt")
