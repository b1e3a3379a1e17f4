"""A frozen twin computes what its module computes, on the same memory; gradients reach the input alone."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from lsgm.nets.layers import recompute
from lsgm.objective.kl import Frozen


class Recomputing(nn.Module):
    """A linear map whose activations are thrown away and computed again by the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = recompute(self.inner, x)
        return out


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Tanh(), nn.Linear(3, 2)).double()


def test_the_twin_is_the_module_without_gradients_of_its_own() -> None:
    module, x = network().eval(), torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    twin = Frozen(module).twin()
    (ours,) = torch.autograd.grad(twin(x).square().sum(), x)
    (plain,) = torch.autograd.grad(module(x).square().sum(), x)
    assert torch.equal(ours, plain)
    twin(x).sum().backward()
    assert all(p.grad is None for p in [*module.parameters(), *twin.parameters()])
    assert not any(p.requires_grad for p in twin.parameters())


def test_the_twin_follows_steps_moves_and_modes() -> None:
    module = network()
    frozen, x = Frozen(module), torch.randn(5, 3, dtype=torch.float64)
    first = frozen.twin()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)
    module.eval()
    assert frozen.twin() is first
    assert not first.training
    assert torch.equal(first(x), module(x))
    module.float()
    assert frozen.twin() is not first
    assert torch.equal(frozen.twin()(x.float()), module(x.float()))


def test_layers_that_recompute_stay_frozen_during_the_backward_pass() -> None:
    module = Recomputing()
    x = torch.randn(4, 3, requires_grad=True)
    Frozen(module).twin()(x).square().sum().backward()
    assert x.grad is not None
    (plain,) = torch.autograd.grad(module(x).square().sum(), x)
    torch.testing.assert_close(x.grad, plain)
    assert all(p.grad is None for p in module.parameters())


def test_a_copy_has_a_twin_of_its_own() -> None:
    pair = nn.ModuleDict({"module": network()})
    frozen = Frozen(pair["module"])
    frozen.twin()
    other, holder = copy.deepcopy((pair, frozen))
    own = next(other.parameters())
    assert next(holder.twin().parameters()).data_ptr() == own.data_ptr()
    assert next(frozen.twin().parameters()).data_ptr() != own.data_ptr()


def test_the_twin_of_a_compiled_module_is_compiled() -> None:
    module = network().eval()
    module.compile(backend="eager")
    assert Frozen(module).twin()._compiled_call_impl is not None
