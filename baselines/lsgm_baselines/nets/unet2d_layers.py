"""The layers of `UNet2D`: waves of the timestep, residual blocks, attention, resampling."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsgm_baselines.nets.unet2d_config import UNet2DConfig

__all__ = [
    "Attention",
    "Double",
    "FourierWaves",
    "Halve",
    "PositionalWaves",
    "Residual",
    "TimestepMLP",
    "group_norm",
]

FOURIER_SCALE = 16.0
"""Standard deviation of the random frequencies before training; they come with the weights."""


class PositionalWaves(nn.Module):
    """n [B] -> sin and cos of n 10^(-4 i / (E/2 - shift)), [B, E], in float32 as it was trained."""

    def __init__(self, size: int, config: UNet2DConfig) -> None:
        super().__init__()
        self.size, self.shift, self.cosine_first = size, config.freq_shift, config.flip_sin_to_cos

    def forward(self, n: Tensor) -> Tensor:
        """Return the waves, with a column of zeros at the end where E is odd."""
        half = self.size // 2
        # Its own rounding of the frequencies belongs to what the network has learnt: 999 of them make 1e-4.
        places = torch.arange(half, dtype=torch.float32, device=n.device)
        angles = n[:, None] * (-math.log(10000) * places / (half - self.shift)).exp()
        waves = (angles.cos(), angles.sin()) if self.cosine_first else (angles.sin(), angles.cos())
        return F.pad(torch.cat(waves, dim=1), (0, self.size % 2))


class FourierWaves(nn.Module):
    """n [B] > 0 -> sin and cos of 2 pi w_i log n, [B, 2 E], with random w that are not trained."""

    weight: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("weight", FOURIER_SCALE * torch.randn(size))

    def forward(self, n: Tensor) -> Tensor:
        """Return the waves."""
        angles = n.log()[:, None] * self.weight * 2 * math.pi
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class TimestepMLP(nn.Module):
    """Two layers on the waves: [B, E] -> [B, D]."""

    def __init__(self, size: int, embedded: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(size, embedded)
        self.linear_2 = nn.Linear(embedded, embedded)

    def forward(self, waves: Tensor) -> Tensor:
        """Return SiLU of the embedding, which is all that the blocks take of it."""
        return F.silu(self.linear_2(F.silu(self.linear_1(waves))))


class Residual(nn.Module):
    """out = (skip(x) + conv(drop(SiLU(GN(conv(SiLU(GN(x))) + shift))))) / scale, [B, C, H, W] -> C'."""

    def __init__(self, config: UNet2DConfig, c_in: int, c_out: int, embedded: int, scale: float = 1) -> None:
        super().__init__()
        self.scale = scale
        self.norm1 = group_norm(config, c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedded, c_out)
        self.norm2 = group_norm(config, c_out)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else None

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Return the block's output."""
        h = self.conv1(F.silu(self.norm1(x))) + self.time_emb_proj(embedded)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        out: Tensor = (x if self.conv_shortcut is None else self.conv_shortcut(x)) + h
        return out / self.scale


class Attention(nn.Module):
    """Self-attention over positions by heads of d channels, out = (x + attention) / scale."""

    def __init__(
        self, config: UNet2DConfig, channels: int, groups: int | None = None, scale: float = 1
    ) -> None:
        super().__init__()
        self.scale = scale
        self.heads = channels // (config.attention_head_dim or channels)
        self.group_norm = nn.GroupNorm(groups or config.norm_num_groups, channels, eps=config.norm_eps)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        """Return x plus what its positions say to one another."""
        places = self.group_norm(x).flatten(2).transpose(1, 2)
        q, k, v = (
            layer(places).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer in (self.to_q, self.to_k, self.to_v)
        )
        mixed = self.to_out[0](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        out: Tensor = (x + mixed.transpose(1, 2).reshape(x.shape)) / self.scale
        return out


class Halve(nn.Module):
    """Convolution with stride 2."""

    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        self.far_side = padding == 0
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, h: Tensor) -> Tensor:
        """Return the features at half the side."""
        out: Tensor = self.conv(F.pad(h, (0, 1, 0, 1)) if self.far_side else h)
        return out


class Double(nn.Module):
    """Repetition of every position, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        """Return the features at twice the side."""
        out: Tensor = self.conv(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return out


def group_norm(config: UNet2DConfig, channels: int) -> nn.GroupNorm:
    """Return GroupNorm with the configuration's groups and eps."""
    return nn.GroupNorm(config.norm_num_groups, channels, eps=config.norm_eps)
