"""The residual cells: a tenth of a branch beside a skip connection that resamples on its own."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsgm.nets.layers import WeightNormConv2d
from lsgm.vae.cells import (
    BilinearUp,
    BNSwishConv,
    Branch,
    Resampling,
    ResidualCell,
    ShiftedDown,
    SqueezeExcite,
)

BRANCHES: tuple[Branch, ...] = ("plain", "bottleneck3", "bottleneck6")


def picture(*shape: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize(("way", "c_out", "side"), [("keep", 8, 6), ("down", 16, 3), ("up", 4, 12)])
def test_a_cell_is_its_skip_and_a_tenth_of_its_gated_branch(
    branch: Branch, way: Resampling, c_out: int, side: int
) -> None:
    cell, x = ResidualCell(branch, 8, c_out, way, squeeze_excite=True).double(), picture(2, 8, 6, 6)
    out = cell(x)
    assert out.shape == (2, c_out, side, side)
    torch.testing.assert_close(out, cell.skip(x) + cell.gate(cell.branch(x)) / 10)


def test_a_cell_that_keeps_its_side_skips_by_identity() -> None:
    cell, x = ResidualCell("bottleneck6", 8, 8, squeeze_excite=False).double(), picture(2, 8, 6, 6)
    assert cell.skip(x) is x
    branch = cell.branch(x)
    assert cell.gate(branch) is branch


def test_the_shifted_skip_sees_every_pixel_of_each_patch_once() -> None:
    """With kernels that copy channel 0, the quarters are the four sub-lattices of swish(x)."""
    skip, x = ShiftedDown(3, 4).double(), picture(2, 3, 6, 8)
    with torch.no_grad():
        for quarter in skip.quarters:
            conv = cast(WeightNormConv2d, quarter)
            conv.weight.copy_(torch.tensor([1.0, 0.0, 0.0])[None, :, None, None])
            conv.log_weight_norm.copy_(torch.log1p(torch.tensor(1e-5, dtype=torch.float64)))
            conv.bias.zero_()  # type: ignore[union-attr]
    patches = F.pixel_unshuffle(F.silu(x[:, :1]), 2)  # offsets (0, 0), (0, 1), (1, 0), (1, 1)
    torch.testing.assert_close(skip(x), patches[:, [0, 3, 1, 2]])


def test_the_shifted_skip_gives_any_number_of_channels() -> None:
    assert ShiftedDown(5, 7)(torch.randn(1, 5, 4, 4)).shape == (1, 7, 2, 2)


def test_the_doubling_skip_keeps_the_corners_of_a_linear_picture() -> None:
    skip = BilinearUp(1, 1).double()
    slope = torch.linspace(0, 1, 4, dtype=torch.float64).expand(1, 1, 4, 4)
    scale = float(skip.conv.effective_weight().detach())
    torch.testing.assert_close(skip(slope)[0, 0, 3], scale * torch.linspace(0, 1, 8, dtype=torch.float64))


@pytest.mark.parametrize(("channels", "hidden"), [(8, 4), (64, 4), (128, 8), (512, 32)])
def test_squeeze_and_excite_gates_channels_by_their_means(channels: int, hidden: int) -> None:
    gate, x = SqueezeExcite(channels).double(), picture(3, channels, 4, 4)
    assert gate.squeeze.out_features == hidden
    mlp = nn.Sequential(gate.squeeze, nn.ReLU(), gate.excite, nn.Sigmoid())
    torch.testing.assert_close(gate(x), torch.einsum("bchw,bc->bchw", x, mlp(x.mean(dim=(2, 3)))))


def test_gates_are_computed_in_float32_under_autocast() -> None:
    """The mean over a large map of bfloat16 would lose the digits that the gate turns on."""
    gate, x = SqueezeExcite(8), torch.randn(2, 8, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = gate(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), gate(x.bfloat16().float()), rtol=1e-2, atol=0)


def test_doubling_stands_between_swish_and_convolution() -> None:
    layer, x = BNSwishConv(4, 4, "up").double().eval(), picture(1, 4, 3, 3)
    swished = F.silu(x / (1 + layer.norm.eps) ** 0.5)
    repeated = swished.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(layer(x), layer.conv(repeated))


@pytest.mark.parametrize("branch", BRANCHES)
def test_no_cell_mixes_samples_in_evaluation(branch: Branch) -> None:
    cell, x = (
        ResidualCell(branch, 8, 8, squeeze_excite=True).double().eval(),
        picture(3, 8, 6, 6).requires_grad_(),
    )
    (gradient,) = torch.autograd.grad(cell(x)[1].sum(), x)
    assert torch.equal(gradient[[0, 2]], torch.zeros_like(gradient[[0, 2]]))


@pytest.mark.parametrize(("branch", "expansion"), [("bottleneck3", 3), ("bottleneck6", 6)])
@pytest.mark.parametrize("way", ["keep", "up"])
def test_the_size_of_an_inverted_bottleneck(branch: Branch, expansion: int, way: Resampling) -> None:
    """e C^2 up, 25 e C across, e C^2 down, two numbers per normalised channel; nothing else is learned."""
    c, e = 8, expansion
    cell = ResidualCell(branch, c, c, way, squeeze_excite=False)
    size = sum(p.numel() for p in cell.branch.parameters())
    assert size == 2 * e * c * c + 25 * e * c + 2 * (c + e * c + e * c + c)
