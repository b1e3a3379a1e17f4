"""Progressive growing of NCSN++ (arXiv:2011.13456, appendix H): pyramids beside the features of a U-Net.

On the way down a pyramid of ever smaller copies of the input meets the features behind each halving; on the
way up a pyramid of ever larger outputs grows beside them, one step at the end of each level. Every join is a
module (pyramid, h) -> (pyramid, h); where there is no pyramid, or nothing to join, it is `Apart`.

At [B, C, H, W] for the features h, the pyramid is [B, P, H, W] with P the input's channels, or C in the
residual variants.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsgm.nets.fir import FIR, Direction, FIRConv
from lsgm.nets.layers import Head, Resample, conv, scaled_init

__all__ = [
    "Apart",
    "InputResidual",
    "InputSkip",
    "OutputResidual",
    "OutputSkip",
    "RepeatConv",
    "StridedConv",
]

Pair = tuple[Tensor | None, Tensor]


def resampling(direction: Direction, *, fir: bool) -> FIR | Resample:
    """Return what halves or doubles the side without learning anything."""
    return FIR(direction) if fir else Resample(direction)


def resampling_conv(c_in: int, c_out: int, direction: Direction, *, fir: bool) -> nn.Module:
    """Return a 3 x 3 convolution that halves or doubles the side, [B, C_in, H, W] -> [B, C_out, H', W']."""
    if fir:
        fused = FIRConv(c_in, c_out, direction)
        scaled_init(fused)
        return fused
    return StridedConv(c_in, c_out) if direction == "down" else RepeatConv(c_in, c_out)


class StridedConv(nn.Conv2d):
    """A convolution with stride 2 that looks one pixel beyond the right and the lower border only."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 3, stride=2)
        scaled_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved features at half the side."""
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class RepeatConv(nn.Conv2d):
    """Repetition of every pixel, then a convolution."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 3, padding=1)
        scaled_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved features at twice the side."""
        return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Apart(nn.Module):
    """Nothing joins here."""

    def forward(self, pyramid: Tensor | None, h: Tensor) -> Pair:
        """Return both as they are."""
        return pyramid, h


class InputSkip(nn.Module):
    """The input, halved, through a 1 x 1 convolution: added to the features, or stacked under them (cat)."""

    def __init__(self, channels: int, width: int, *, combine: Literal["sum", "cat"], fir: bool) -> None:
        super().__init__()
        self.combine = combine
        self.width = width if combine == "sum" else 2 * width
        self.resample = resampling("down", fir=fir)
        self.project = conv(channels, width, 1)

    def forward(self, pyramid: Tensor, h: Tensor) -> Pair:
        """Return the halved input, and the features with it."""
        pyramid = self.resample(pyramid)
        projected: Tensor = self.project(pyramid)
        return pyramid, projected + h if self.combine == "sum" else torch.cat([projected, h], dim=1)


class InputResidual(nn.Module):
    """The pyramid, halved by a convolution, and the features become one: both are (pyramid + h) / sqrt(2)."""

    def __init__(self, channels: int, width: int, *, fir: bool) -> None:
        super().__init__()
        self.width = width
        self.resample = resampling_conv(channels, width, "down", fir=fir)

    def forward(self, pyramid: Tensor, h: Tensor) -> Pair:
        """Return the sum twice."""
        joined = (self.resample(pyramid) + h) * math.sqrt(0.5)
        return joined, joined


class OutputSkip(nn.Module):
    """A head at every level, [B, C, H, W] -> [B, P, H, W], added to the doubled sum of those before it."""

    def __init__(self, width: int, channels: int, *, first: bool, fir: bool) -> None:
        super().__init__()
        self.resample = nn.Identity() if first else resampling("up", fir=fir)
        self.head = Head(width, channels, scale=0.0)

    def forward(self, pyramid: Tensor | None, h: Tensor) -> Pair:
        """Return the output so far, and the features as they are."""
        own: Tensor = self.head(h)
        return (own if pyramid is None else self.resample(pyramid) + own), h


class OutputResidual(nn.Module):
    """The pyramid, doubled by a convolution, and the features become one, as in `InputResidual`.

    The first level, where there is no pyramid yet, starts one with a head and leaves the features alone.
    """

    def __init__(self, channels: int, width: int, *, first: bool, fir: bool) -> None:
        super().__init__()
        self.head = Head(width, width) if first else nn.Identity()
        self.resample = nn.Identity() if first else resampling_conv(channels, width, "up", fir=fir)

    def forward(self, pyramid: Tensor | None, h: Tensor) -> Pair:
        """Return the new pyramid and the features."""
        if pyramid is None:
            return self.head(h), h
        joined = (self.resample(pyramid) + h) * math.sqrt(0.5)
        return joined, joined
