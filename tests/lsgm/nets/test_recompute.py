"""A step with recomputed activations is the step without."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from lsgm.nets.layers import BatchNorm, WeightNormConv2d, recompute


def network() -> nn.Sequential:
    torch.manual_seed(0)
    first, second = WeightNormConv2d(3, 6, 3, padding=1), WeightNormConv2d(6, 3, 3, padding=1)
    return nn.Sequential(first, BatchNorm(6), nn.SiLU(), nn.Dropout(0.3), second, BatchNorm(3))


def step(net: nn.Module, x: Tensor, *, again: bool) -> Tensor:
    torch.manual_seed(1)
    y: Tensor = recompute(net, x) if again else net(x)
    y.pow(3).sum().backward()
    return y.detach()


@pytest.mark.parametrize("training", [True, False])
def test_outputs_gradients_and_statistics_are_the_same_bit_for_bit(training: bool) -> None:
    plain = network().train(training)
    saving = copy.deepcopy(plain)
    x = torch.randn(4, 3, 5, 5)
    for _ in range(2):
        assert torch.equal(step(plain, x, again=False), step(saving, x, again=True))
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad, b.grad)
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), saving.buffers(), strict=True))


def test_backward_may_run_twice_through_one_graph() -> None:
    net, x = network().eval(), torch.randn(4, 3, 5, 5)
    loss = recompute(net, x).pow(2).sum()
    loss.backward(retain_graph=True)
    once = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    loss.backward()
    twice = [p.grad for p in net.parameters() if p.grad is not None]
    assert once
    assert all(torch.equal(2 * a, b) for a, b in zip(once, twice, strict=True))


def test_fewer_activations_are_kept() -> None:
    net, x = network(), torch.randn(4, 3, 5, 5)
    kept: dict[bool, int] = {}
    for again in (False, True):
        sizes: list[int] = []

        def keep(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            recompute(net, x) if again else net(x)
        kept[again] = sum(sizes)
    assert kept[True] < kept[False] / 10


def test_without_gradients_it_is_the_function() -> None:
    net, x = network().eval(), torch.randn(4, 3, 5, 5)
    with torch.no_grad():
        assert torch.equal(recompute(net, x), net(x))
