"""Batch normalisation is torch's own on one process, that of the whole batch on two, and can look away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from beside import two
from torch import nn
from worker import normalise_a_share, normalised_network

from lsgm.nets.layers import BatchNorm, statistics_frozen


def pair() -> tuple[BatchNorm, nn.BatchNorm2d]:
    torch.manual_seed(0)
    ours, torchs = BatchNorm(3).double(), nn.BatchNorm2d(3, momentum=0.05).double()
    nn.init.normal_(ours.weight)
    nn.init.normal_(ours.bias)
    torchs.load_state_dict(ours.state_dict())
    return ours, torchs


def test_on_one_process_it_is_torchs() -> None:
    ours, torchs = pair()
    for _ in range(3):
        x = 3.0 * torch.randn(4, 3, 5, 5, dtype=torch.double) + 2.0
        assert torch.equal(ours(x), torchs(x))
    ours.eval()
    torchs.eval()
    # Ours moves its statistics by r + m (b - r), torch by (1 - m) r + m b: the same but for roundings.
    torch.testing.assert_close(ours(x), torchs(x), rtol=1e-13, atol=1e-13)
    assert list(ours.state_dict()) == list(torchs.state_dict())
    for key, value in torchs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-13, atol=1e-15)


def test_without_a_momentum_it_holds_the_mean_over_all_batches() -> None:
    norm = BatchNorm(3, momentum=None).double()
    batches = torch.randn(6, 4, 3, 5, 5, dtype=torch.double)
    for x in batches:
        norm(x)
    torch.testing.assert_close(norm.running_mean, batches.mean(dim=(0, 1, 3, 4)))


def test_frozen_statistics_change_no_output_and_come_loose_again() -> None:
    ours, torchs = pair()
    x = torch.randn(4, 3, 5, 5, dtype=torch.double)
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    with statistics_frozen(), statistics_frozen():
        assert torch.equal(ours(x), torchs(x))
    with pytest.raises(ZeroDivisionError), statistics_frozen():
        _ = 1 / 0
    assert all(torch.equal(before[key], value) for key, value in ours.state_dict().items())
    ours(x)
    assert int(ours.num_batches_tracked) == 1


def test_low_precision_activations_have_float32_statistics() -> None:
    """Of bfloat16 numbers around 100, whose own spacing is 0.5: a bfloat16 mean could not be this close."""
    norm = BatchNorm(3)
    x = (torch.randn(16, 3, 8, 8) + 100).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = norm(x)
    assert y.dtype == torch.bfloat16
    assert norm.running_mean.dtype == torch.float32
    # Float32 sums of 1,024 numbers near 100.
    torch.testing.assert_close(
        norm.running_mean.double() / 0.05, x.double().mean(dim=(0, 2, 3)), rtol=1e-6, atol=0
    )


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")
def test_two_processes_normalise_as_one(tmp_path: Path) -> None:
    """Outputs, gradients of weights and of inputs, and running statistics of two steps."""
    two(normalise_a_share, tmp_path, folder=tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    net, x = normalised_network()
    losses = []
    for _ in range(2):
        net.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        losses.append(loss.detach())
    # Float64 sums in another order, through two normalisations and back.
    close: dict[str, Any] = {"rtol": 1e-11, "atol": 1e-14}
    torch.testing.assert_close((first["losses"] + second["losses"]) / 2, torch.stack(losses), **close)
    for name, parameter in net.named_parameters():
        assert torch.equal(first["gradients"][name], second["gradients"][name])
        torch.testing.assert_close(first["gradients"][name], parameter.grad, **close)
    for name, buffer in net.named_buffers():
        assert torch.equal(first["buffers"][name], second["buffers"][name])
        torch.testing.assert_close(first["buffers"][name], buffer, **close)
    # A process's input has the gradient of both losses' sum, which is twice their mean.
    halves = torch.cat([first["input"], second["input"]]) / 2
    torch.testing.assert_close(halves, x.grad, **close)
