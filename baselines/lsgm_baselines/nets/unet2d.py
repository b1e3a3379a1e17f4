"""A U-Net that computes what the diffusers library's `UNet2DModel` computes and bears its tensors' names.

The features h at each resolution pass residual blocks, every output of the way down joins the way up, and
every residual block is told of the timestep by a shift (arXiv:2006.11239, appendix B).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsgm_baselines.nets.unet2d_config import UNet2DConfig
from lsgm_baselines.nets.unet2d_layers import (
    Attention,
    Double,
    FourierWaves,
    Halve,
    PositionalWaves,
    Residual,
    TimestepMLP,
    group_norm,
)

__all__ = ["UNet2D"]


class UNet2D(nn.Module):
    """x [B, C, H, W] and timesteps n [B], fractions too -> the prediction [B, C', H, W]."""

    def __init__(self, config: UNet2DConfig) -> None:
        super().__init__()
        self.config = config
        widths, levels = config.block_out_channels, len(config.block_out_channels)
        embedded = config.time_embedding_dim or 4 * widths[0]
        fourier = config.time_embedding_type == "fourier"
        self.time_proj = FourierWaves(widths[0]) if fourier else PositionalWaves(widths[0], config)
        self.time_embedding = TimestepMLP(widths[0] * (2 if fourier else 1), embedded)
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            Down(
                config,
                widths[max(i - 1, 0)],
                widths[i],
                embedded,
                attend="Attn" in config.down_block_types[i],
                halve=i < levels - 1,
            )
            for i in range(levels)
        )
        self.mid_block = Middle(config, widths[-1], embedded)
        rising = widths[::-1]
        self.up_blocks = nn.ModuleList(
            Up(
                config,
                rising[max(i - 1, 0)],
                rising[i],
                rising[min(i + 1, levels - 1)],
                embedded,
                attend="Attn" in config.up_block_types[i],
                double=i < levels - 1,
            )
            for i in range(levels)
        )
        self.conv_norm_out = group_norm(config, widths[0])
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        """Return the prediction for timesteps n, which with Fourier waves must be above 0."""
        embedded = self.time_embedding(self.time_proj(n.float()).to(x.dtype))
        h = self.conv_in(2 * x - 1 if self.config.center_input_sample else x)
        kept = [h]
        for down in self.down_blocks:
            kept += down(kept[-1], embedded)
        h = self.mid_block(kept[-1], embedded)
        for up in self.up_blocks:
            h = up(h, kept, embedded)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(h)))
        if self.config.time_embedding_type == "fourier":
            out = out / n.to(out.dtype).reshape(-1, 1, 1, 1)
        return out


class Down(nn.Module):
    """One resolution on the way down."""

    def __init__(
        self, config: UNet2DConfig, c_in: int, c_out: int, embedded: int, *, attend: bool, halve: bool
    ) -> None:
        super().__init__()
        layers = range(config.layers_per_block)
        self.resnets = nn.ModuleList(Residual(config, c_out if i else c_in, c_out, embedded) for i in layers)
        self.attentions = nn.ModuleList(Attention(config, c_out) for _ in layers if attend)
        self.downsamplers = nn.ModuleList([Halve(c_out, config.downsample_padding)] if halve else [])

    def forward(self, h: Tensor, embedded: Tensor) -> list[Tensor]:
        """Return the features after every layer, the last of which goes on."""
        kept = []
        for i, resnet in enumerate(self.resnets):
            h = resnet(h, embedded)
            h = self.attentions[i](h) if self.attentions else h
            kept.append(h)
        return kept + [halve(h) for halve in self.downsamplers]


class Middle(nn.Module):
    """The lowest resolution: residual block, attention, residual block."""

    def __init__(self, config: UNet2DConfig, channels: int, embedded: int) -> None:
        super().__init__()
        scale = config.mid_block_scale_factor
        self.resnets = nn.ModuleList(Residual(config, channels, channels, embedded, scale) for _ in range(2))
        self.attentions = nn.ModuleList(
            [Attention(config, channels, config.attn_norm_num_groups, scale)] if config.add_attention else []
        )

    def forward(self, h: Tensor, embedded: Tensor) -> Tensor:
        """Return the features."""
        h = self.resnets[0](h, embedded)
        for attention in self.attentions:
            h = attention(h)
        out: Tensor = self.resnets[1](h, embedded)
        return out


class Up(nn.Module):
    """One resolution on the way up; each layer takes one of the features that the way down has kept."""

    def __init__(
        self,
        config: UNet2DConfig,
        c_in: int,
        c_out: int,
        c_last: int,
        embedded: int,
        *,
        attend: bool,
        double: bool,
    ) -> None:
        super().__init__()
        layers = range(config.layers_per_block + 1)
        # The features kept were c_out wide, but the last, which came from the next higher resolution.
        widths = [(c_out if i else c_in) + (c_last if i == layers[-1] else c_out) for i in layers]
        self.resnets = nn.ModuleList(Residual(config, width, c_out, embedded) for width in widths)
        self.attentions = nn.ModuleList(Attention(config, c_out) for _ in layers if attend)
        self.upsamplers = nn.ModuleList([Double(c_out)] if double else [])

    def forward(self, h: Tensor, kept: list[Tensor], embedded: Tensor) -> Tensor:
        """Return the features, having taken its own from the end of ``kept``."""
        for i, resnet in enumerate(self.resnets):
            h = resnet(torch.cat([h, kept.pop()], dim=1), embedded)
            h = self.attentions[i](h) if self.attentions else h
        for double in self.upsamplers:
            h = double(h)
        return h
