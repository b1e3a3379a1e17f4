"""The ways round a residual cell: nothing, half the side, or twice the side."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsgm.nets.weightnorm import WeightNormConv2d

__all__ = ["BilinearUp", "Resampling", "ShiftedDown", "skip_path"]

Resampling = Literal["keep", "down", "up"]
"""What a cell does to the side of its input: nothing, halve it, double it."""


class ShiftedDown(nn.Module):
    """[B, C_in, 2 h, 2 w] -> [B, C_out, h, w]: every pixel of a 2 x 2 patch gives a quarter of the channels.

    Four 1 x 1 convolutions of stride 2 see swish(x) from the offsets (row, column) = (0, 0), (1, 1), (0, 1)
    and (1, 0); the last takes what C_out / 4 leaves over.
    """

    OFFSETS = ((0, 0), (1, 1), (0, 1), (1, 0))

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        quarter = c_out // 4
        widths = (quarter, quarter, quarter, c_out - 3 * quarter)
        self.quarters = nn.ModuleList(WeightNormConv2d(c_in, width, 1, stride=2) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        """Return the halved map."""
        x = F.silu(x)
        views = (x[:, :, row:, column:] for row, column in self.OFFSETS)
        return torch.cat([conv(view) for conv, view in zip(self.quarters, views, strict=True)], dim=1)


class BilinearUp(nn.Module):
    """[B, C_in, h, w] -> [B, C_out, 2 h, 2 w]: bilinear with corners aligned, then a 1 x 1 convolution."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = WeightNormConv2d(c_in, c_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the doubled map."""
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        out: Tensor = self.conv(x)
        return out


def skip_path(c_in: int, c_out: int, resampling: Resampling) -> nn.Module:
    """Return a cell's skip connection, [B, c_in, h, w] -> [B, c_out, h', w']; "keep" needs c_in = c_out."""
    if resampling == "down":
        return ShiftedDown(c_in, c_out)
    if resampling == "up":
        return BilinearUp(c_in, c_out)
    assert c_in == c_out, "a cell that keeps the side keeps the channels"
    return nn.Identity()
