"""Layers that VAE and score network share: convolutions, resampling, residual blocks, attention."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsgm.nets.fir import FIR, Direction

__all__ = [
    "Attention",
    "Head",
    "ResBlock",
    "Resample",
    "conv",
    "group_norm",
    "linear",
    "scaled_init",
    "sides_of",
]

TINY_INIT = 1e-10
"""Variance scale of layers that start as (almost) zero, so that a block starts as the identity."""


def scaled_init(
    layer: nn.Conv2d | nn.Linear, scale: float = 1.0, *, parts: Sequence[int] | None = None
) -> None:
    """Initialise with variance scaling, fan average, uniform, as score_sde's networks do; zero biases.

    ``parts`` gives the outputs of each of several layers that are stacked in this one and have fans of their
    own.
    """
    for weight in torch.split(layer.weight, list(parts or layer.weight.shape[:1])):
        nn.init.xavier_uniform_(weight, gain=math.sqrt(max(scale, TINY_INIT)))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def sides_of(resolution: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of a resolution, which is these or the side of a square."""
    return (resolution, resolution) if isinstance(resolution, int) else resolution


def conv(c_in: int, c_out: int, kernel: int = 3, *, stride: int = 1, scale: float = 1.0) -> nn.Conv2d:
    """Return a convolution that keeps (or with a stride divides) the side, initialised by `scaled_init`."""
    layer = nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=(kernel - 1) // 2)
    scaled_init(layer, scale)
    return layer


def linear(d_in: int, d_out: int, *, scale: float = 1.0) -> nn.Linear:
    """Return a dense layer initialised by `scaled_init`."""
    layer = nn.Linear(d_in, d_out)
    scaled_init(layer, scale)
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """Return GroupNorm with as many groups as divide the channels, at most min(C / 4, 32)."""
    groups = max(1, min(channels // 4, 32))
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels, eps=1e-6)


class Head(nn.Sequential):
    """GroupNorm, SiLU and a 3 x 3 convolution: [B, C_in, H, W] -> [B, C_out, H, W]."""

    def __init__(self, c_in: int, c_out: int, *, scale: float = 1.0) -> None:
        super().__init__(group_norm(c_in), nn.SiLU(), conv(c_in, c_out, scale=scale))


class Resample(nn.Module):
    """Halve the side by 2 x 2 means ("down") or double it by repetition ("up"): [B, C, H, W] -> H', W'."""

    def __init__(self, direction: Direction) -> None:
        super().__init__()
        self.direction = direction

    def forward(self, x: Tensor) -> Tensor:
        """Return the features at half or twice the side."""
        if self.direction == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2.0, mode="nearest")


class ResBlock(nn.Module):
    """BigGAN residual block: [B, C_in, H, W] and a shift by the time [B, C_out] -> [B, C_out, H', W'].

    h = conv(drop(SiLU(GN(conv(resample(SiLU(GN(x)))) + shift)))), out = (skip(resample(x)) + h) / sqrt(2).
    The last convolution starts at zero. Without a shift it is the VAE's block.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        direction: Direction | None = None,
        fir: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.width = c_out
        self.norm1 = group_norm(c_in)
        self.resample = nn.Identity() if direction is None else (FIR if fir else Resample)(direction)
        self.conv1 = conv(c_in, c_out)
        self.norm2 = group_norm(c_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv(c_out, c_out, scale=0.0)
        self.skip = conv(c_in, c_out, 1) if c_in != c_out or direction is not None else nn.Identity()

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """Return the block's output."""
        h = self.conv1(self.resample(F.silu(self.norm1(x))))
        if shift is not None:
            h = h + shift[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        skipped: Tensor = self.skip(self.resample(x))
        out: Tensor = (skipped + h) * math.sqrt(0.5)
        return out


class Attention(nn.Module):
    """Single-head self-attention over positions, [B, C, H, W] -> same; out = (x + attention) / sqrt(2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = conv(channels, 3 * channels, 1)
        scaled_init(self.qkv, 0.1, parts=[channels] * 3)
        self.out = conv(channels, channels, 1, scale=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return x plus what its positions say to one another."""
        channels = x.shape[1]
        # [B, head, position, channel], the layout that the fused kernels take.
        stacked = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).unsqueeze(1)
        h = F.scaled_dot_product_attention(*stacked.split(channels, dim=-1))
        mixed: Tensor = self.out(h.squeeze(1).transpose(1, 2).reshape(x.shape))
        return (x + mixed) * math.sqrt(0.5)
