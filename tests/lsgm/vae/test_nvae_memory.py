"""The kept state: used for the very draw that made it, and for nothing else."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import Tensor, nn

from lsgm.vae.hierarchical import StateMemory


@pytest.fixture
def kept() -> tuple[StateMemory, nn.Module, tuple[Tensor, ...], Tensor]:
    memory, module = StateMemory(), nn.Linear(2, 2)
    z, state = (torch.randn(2), torch.randn(2)), torch.randn(3)
    memory.keep(module, z, state)
    return memory, module, z, state


Kept = tuple[StateMemory, nn.Module, tuple[Tensor, ...], Tensor]


def test_the_same_latents_get_it_once(kept: Kept) -> None:
    memory, module, z, state = kept
    assert memory.take(module, (z[0], z[1])) is state
    assert memory.take(module, z) is None


def test_other_latents_do_not(kept: Kept) -> None:
    memory, module, z, state = kept
    for other in [(z[0],), (z[0], z[1].clone()), (z[0].detach(), z[1]), (z[1], z[0])]:
        memory.keep(module, z, state)
        assert memory.take(module, other) is None


def test_nor_do_other_weights_modes_or_precisions(kept: Kept) -> None:
    memory, module, z, state = kept
    torch.optim.SGD(module.parameters(), lr=0.0).step()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)
    assert memory.take(module, z) is None
    memory.keep(module, z, state)
    module.eval()
    assert memory.take(module, z) is None
    memory.keep(module, z, state)
    with torch.no_grad():
        assert memory.take(module, z) is None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        memory.keep(module, z, state)
    assert memory.take(module, z) is None


def test_it_keeps_no_latent_alive() -> None:
    memory, module, z = StateMemory(), nn.Linear(2, 2), torch.randn(2)
    gone = weakref.ref(z)
    memory.keep(module, (z,), torch.randn(2))
    del z
    gc.collect()
    assert gone() is None


def test_copies_and_pickles_are_empty(kept: Kept) -> None:
    memory, module, z, _ = kept
    assert copy.deepcopy(memory).take(module, z) is None
    assert pickle.loads(pickle.dumps(memory)).take(module, z) is None
