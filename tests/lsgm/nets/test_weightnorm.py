"""A weight-normalised kernel has the norms that its parameters say, whatever w is."""

from __future__ import annotations

import argparse
import math

import pytest
import torch
from golden import GOLDEN, needs_golden
from torch import nn

from lsgm.nets.layers import WeightNormConv2d


def layer(gain: float = 1.0, **kwargs: object) -> WeightNormConv2d:
    torch.manual_seed(0)
    return WeightNormConv2d(4, 6, 3, padding=1, gain=gain, **kwargs).double()  # type: ignore[arg-type]


def test_every_output_channels_norm_is_its_own_parameter() -> None:
    conv = layer()
    nn.init.normal_(conv.log_weight_norm)
    norms = conv.effective_weight().flatten(1).norm(dim=1)
    raw = conv.weight.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, conv.log_weight_norm.flatten().exp() * raw / (raw + 1e-5))


def test_the_scale_of_w_does_not_matter() -> None:
    """But for the 1e-5 next to norms of about 0.3."""
    conv = layer()
    before = conv.effective_weight().detach()
    conv.weight.data *= 10.0
    torch.testing.assert_close(conv.effective_weight(), before, rtol=1e-4, atol=0)


def test_it_starts_close_to_the_plain_convolution() -> None:
    """w_eff = w (||w|| + 0.01) / (||w|| + 0.00001), times the gain."""
    for gain in (1.0, 0.1):
        conv = layer(gain)
        norm = conv.weight.flatten(1).norm(dim=1)[:, None, None, None]
        expected = gain * conv.weight * (norm + 1e-2) / (norm + 1e-5)
        # The log and exponential of a float32 number.
        torch.testing.assert_close(conv.effective_weight(), expected, rtol=1e-6, atol=0)


def test_it_convolves_with_that_kernel() -> None:
    conv = WeightNormConv2d(4, 6, 3, stride=2, padding=2, groups=2).double()
    x = torch.randn(2, 4, 9, 9, dtype=torch.double)
    plain = nn.Conv2d(4, 6, 3, stride=2, padding=2, groups=2).double()
    plain.load_state_dict({"weight": conv.effective_weight(), "bias": conv.state_dict()["bias"]})
    assert torch.equal(conv(x), plain(x))


def test_a_mask_comes_before_the_norm_and_is_in_no_checkpoint() -> None:
    mask = torch.ones(6, 4, 3, 3).tril()
    conv = layer(mask=mask)
    norms = conv.effective_weight().flatten(1).norm(dim=1)
    raw = (conv.weight * mask).flatten(1).norm(dim=1)
    # Its masked part alone has the norm: a float32 log and exponential again.
    torch.testing.assert_close(norms, raw * (raw + 1e-2) / (raw + 1e-5), rtol=1e-6, atol=0)
    assert torch.equal(conv.effective_weight() == 0, mask == 0)
    assert set(conv.state_dict()) == {"weight", "bias", "log_weight_norm"}


def test_a_kernel_that_its_mask_leaves_empty_is_zero_and_has_finite_gradients() -> None:
    conv = layer(mask=torch.zeros(6, 4, 3, 3))
    conv(torch.randn(1, 4, 5, 5, dtype=torch.double)).sum().backward()
    assert conv.weight.grad is not None
    assert torch.equal(conv.weight.grad, torch.zeros_like(conv.weight))


@needs_golden
def test_the_authors_models_start_the_same_way() -> None:
    """Their untrained log-norms, of plain kernels and of a masked one that sees all of its inputs."""
    assert GOLDEN is not None
    with torch.serialization.safe_globals([argparse.Namespace]):
        state = torch.load(GOLDEN / "cifar10_nll" / "checkpoint.pt", weights_only=True)["vae_state_dict"]
    for name, row, gain in (("stem", 0, 1.0), ("eps_conv.0", 0, 1.0), ("nf_cells.0.cell1.mu.conv_0", 2, 0.1)):
        norm = float(state[f"{name}.weight"][row].norm())
        found = float(state[f"{name}.log_weight_norm"][row])
        assert found == pytest.approx(math.log(norm + 1e-2) + math.log(gain), abs=1e-5)
