"""Where a module's numbers live, also of modules that hold none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lsgm.config import SamplerConfig
from lsgm.devices import device_of, dtype_of
from lsgm.sampling import draw
from lsgm.score import ScoreModel
from lsgm.sde import VPSDE
from lsgm.vae.hierarchical import StateMemory


class Known(nn.Module):
    """A closed form, as a network: nothing to learn."""

    def forward(self, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return z * torch.sigmoid(t.reshape(-1, 1, 1, 1).to(z.dtype))


def test_parameters_tell_before_buffers_and_floats_before_counts() -> None:
    norm = nn.BatchNorm2d(3, affine=False).double()  # the count of batches is an integer
    assert dtype_of(norm) == torch.float64
    assert dtype_of(nn.Sequential(nn.Conv2d(3, 3, 1), norm)) == torch.float32
    assert device_of(nn.BatchNorm2d(3, affine=False, device="meta")) == torch.device("meta")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_module_that_holds_nothing_computes_by_torchs_default(dtype: torch.dtype) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        assert dtype_of(Known()) == dtype
    finally:
        torch.set_default_dtype(before)
    assert device_of(Known()) == torch.device("cpu")


def test_a_score_network_without_parameters_draws() -> None:
    prior = ScoreModel(VPSDE(), Known())
    assert not list(prior.parameters())
    drawn = draw(prior, (1, 2, 2), range(3), SamplerConfig("ddim", steps=4))
    assert bool(drawn.z.isfinite().all())


def test_a_state_is_kept_for_a_module_without_parameters() -> None:
    memory, module, z = StateMemory(), Known(), (torch.zeros(1),)
    memory.keep(module, z, torch.ones(1))
    assert memory.take(module, z) is not None
