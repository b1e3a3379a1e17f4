"""Autoregressive shifts: volume-preserving because no variable is moved by itself or by a later one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lsgm.vae.cells import Shift, ShiftPair, order_mask, spatial_mask

L, H, W = 3, 4, 5


def jacobian(flow: nn.Module, z: Tensor) -> Tensor:
    """d flow(z) / dz in the declared order: pixels in raster order, channels within a pixel."""
    full = torch.autograd.functional.jacobian(flow, z[None])[0, :, :, :, 0]  # type: ignore[no-untyped-call]
    return full.permute(1, 2, 0, 4, 5, 3).reshape(z.numel(), z.numel())


def loud(flow: nn.Module) -> nn.Module:
    """Weights large enough that a forbidden dependence would show."""
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return flow


def backwards_in_space(matrix: Tensor) -> Tensor:
    """Reorder rows and columns by pixels from last to first, channels still rising."""
    order = torch.arange(L * H * W).view(H * W, L).flip(0).flatten()
    return matrix[order][:, order]


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_jacobian_is_unit_triangular_in_the_declared_order(mirrored: bool) -> None:
    torch.manual_seed(0)
    shift = loud(Shift(L, mirrored=mirrored).double())
    matrix = jacobian(shift, torch.randn(L, H, W, dtype=torch.float64))
    ordered = backwards_in_space(matrix) if mirrored else matrix
    assert torch.equal(ordered.diagonal(), torch.ones(L * H * W, dtype=torch.float64))
    assert torch.equal(ordered.triu(diagonal=1), torch.zeros_like(ordered))
    other = matrix if mirrored else backwards_in_space(matrix)
    assert float(other.triu(diagonal=1).abs().max()) > 0.01, "the two orders differ"


@pytest.mark.parametrize("mirrored", [False, True])
def test_every_earlier_variable_within_reach_is_used(mirrored: bool) -> None:
    """A mask may not be stricter than the order: 3 x 3 then 5 x 5 reach two or three pixels around."""
    torch.manual_seed(0)
    matrix = jacobian(loud(Shift(L, mirrored=mirrored).double()), torch.randn(L, H, W, dtype=torch.float64))
    blocks = matrix.view(H, W, L, H, W, L)
    row, column = (1, 2) if mirrored else (2, 2)
    step = 1 if mirrored else -1
    for other in [(row, column + step), (row + step, column), (row + step, column - step)]:
        assert (blocks[row, column, :, other[0], other[1], :] != 0).all()
    own = blocks[row, column, :, row, column, :]
    assert torch.equal(own != 0, torch.ones(L, L).tril().bool()), "lower channels of the pixel, and itself"


def test_a_pair_preserves_volume_and_joins_both_directions() -> None:
    torch.manual_seed(0)
    pair = loud(ShiftPair(L).double())
    matrix = jacobian(pair, torch.randn(L, H, W, dtype=torch.float64))
    _, log_abs_det = torch.linalg.slogdet(matrix)
    # Entries of size 1 to 100 in 60 x 60: the LU loses a few digits, no more.
    assert abs(float(log_abs_det)) < 1e-6
    corner = matrix.view(H, W, L, H, W, L)[1, 1]
    assert float(corner[:, 0, 0].abs().max()) > 0
    assert float(corner[:, 2, 2].abs().max()) > 0


def test_shifts_start_close_to_the_identity() -> None:
    torch.manual_seed(0)
    z = torch.randn(8, 20, 8, 8)
    moved = (ShiftPair(20)(z) - z).detach()
    assert 0 < float(moved.std()) < 0.2


def test_masks_by_hand() -> None:
    assert spatial_mask(3, centre=False, mirrored=False).tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert spatial_mask(3, centre=True, mirrored=True).tolist() == [[0, 0, 0], [0, 1, 1], [1, 1, 1]]
    into, out = torch.arange(2), torch.tensor([0, 0, 1, 1])
    strict = order_mask(out, into, 1, strict=True, mirrored=False)
    assert strict[:, :, 0, 0].tolist() == [[0, 0], [0, 0], [1, 0], [1, 0]]
    loose = order_mask(out, into, 1, strict=False, mirrored=True)
    assert loose[:, :, 0, 0].tolist() == [[1, 0], [1, 0], [1, 1], [1, 1]]


def test_a_shift_in_bfloat16_leaves_the_latent_in_float32() -> None:
    """z' = z - M(z) with only M rounded: what M says may be coarse, z itself is not."""
    torch.manual_seed(0)
    shift, z = Shift(L, mirrored=False), torch.randn(2, L, H, W)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        shifted = shift(z)
    assert shifted.dtype == torch.float32
    # The first variable of all is moved by nothing but a bias.
    torch.testing.assert_close(
        shifted[:, 0, 0, 0] - z[:, 0, 0, 0], -shift.last.bias[0].expand(2), atol=1e-2, rtol=0
    )
