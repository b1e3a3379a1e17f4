"""Resampling through the binomial filter [1, 3, 3, 1], alone and fused with a convolution (arXiv:1904.11486).

Zero-insertion, filtering and decimation, as NCSN++ (arXiv:2011.13456, appendix H) takes them from StyleGAN2,
are depthwise convolutions: one with stride 2 on the way down, a transposed one on the way up. They run in
whatever precision the network runs in; the filter's values are exact in all of them.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["FIR", "Direction", "FIRConv", "binomial"]

Direction = Literal["down", "up"]


def binomial() -> Tensor:
    """Return the outer product of [1, 3, 3, 1] with itself, normalised to sum to 1, [1, 1, 4, 4]."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return torch.outer(taps, taps)[None, None]


class FIR(nn.Module):
    """Halve the side of [B, C, H, W] behind the filter, or double it before the filter with gain 4.

    Outside of the image are zeros. On the way up the gain makes up for the zeros between the pixels.
    """

    kernel: Tensor

    def __init__(self, direction: Direction) -> None:
        super().__init__()
        self.direction = direction
        self.register_buffer("kernel", binomial() * (4 if direction == "up" else 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features at half or twice the side."""
        channels = x.shape[1]
        kernel = self.kernel.expand(channels, 1, 4, 4)
        if self.direction == "down":
            return F.conv2d(x, kernel, stride=2, padding=1, groups=channels)
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=channels)


class FIRConv(nn.Conv2d):
    """A 3 x 3 convolution fused with FIR resampling: [B, C_in, H, W] -> [B, C_out, H', W'].

    Down, it is the filter and then the convolution with stride 2; up, zero-insertion, the convolution and
    then the filter. The image is padded once, before the first of the two, and not between them.
    """

    kernel: Tensor

    def __init__(self, c_in: int, c_out: int, direction: Direction) -> None:
        super().__init__(c_in, c_out, 3)
        self.direction = direction
        self.register_buffer("kernel", binomial() * (4 if direction == "up" else 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved features at half or twice the side."""
        if self.direction == "down":
            return F.conv2d(self._filter(x, padding=2), self.weight, self.bias, stride=2)
        # A transposed convolution lays every pixel's kernel down mirrored; mirrored twice, it correlates.
        kernel = self.weight.transpose(0, 1).flip(2, 3)
        # The bias comes last: through the filter it would darken towards the border.
        filtered = self._filter(F.conv_transpose2d(x, kernel, stride=2), padding=1)
        assert self.bias is not None
        return filtered + self.bias[:, None, None]

    def _filter(self, x: Tensor, padding: int) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(x, self.kernel.expand(channels, 1, 4, 4), padding=padding, groups=channels)
