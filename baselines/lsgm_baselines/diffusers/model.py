"""A U-Net that computes what `UNet2DModel` does and bears its tensors' names, and its score model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsgm.generative import Pixels
from lsgm.model.diffusion import ScoreBasedModel
from lsgm.model.lsgm import parameter_counts
from lsgm.objective.bound import Objective
from lsgm.score import ScoreModel, per_sample
from lsgm.tabulated import TabulatedVPSDE, ddpm_betas
from lsgm.times import LogVariance, Weighting
from lsgm_baselines.diffusers.recipe import BetaConfig, DDPMRecipe, UNet2DConfig
from lsgm_baselines.sgm import DequantisedPixels, NoisyPixels

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


class SelfAttention(nn.Module):
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


# A U-Net that computes what the diffusers library's `UNet2DModel` computes and bears its tensors' names


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
        self.attentions = nn.ModuleList(SelfAttention(config, c_out) for _ in layers if attend)
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
            [SelfAttention(config, channels, config.attn_norm_num_groups, scale)]
            if config.add_attention
            else []
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
        self.attentions = nn.ModuleList(SelfAttention(config, c_out) for _ in layers if attend)
        self.upsamplers = nn.ModuleList([Double(c_out)] if double else [])

    def forward(self, h: Tensor, kept: list[Tensor], embedded: Tensor) -> Tensor:
        """Return the features, having taken its own from the end of ``kept``."""
        for i, resnet in enumerate(self.resnets):
            h = resnet(torch.cat([h, kept.pop()], dim=1), embedded)
            h = self.attentions[i](h) if self.attentions else h
        for double in self.upsamplers:
            h = double(h)
        return h


# A DDPM of the diffusers library as a score model: what it predicts as the noise, its coder, its bound


def sde_of(config: BetaConfig) -> TabulatedVPSDE:
    """Return the training process of a schedule. Raises ConfigError for a beta outside of (0, 1)."""
    if config.schedule == "trained":
        return TabulatedVPSDE(config.betas)
    return TabulatedVPSDE(ddpm_betas(config.schedule, config.steps, config.start, config.end))


class NoiseNetwork(nn.Module):
    r"""eps(z_t, t) of a network that is asked by timesteps n and may predict something else.

    Timestep n of N belongs to t = (n + 1) / N; below its first one the network is asked for that. With y the
    prediction, m and sigma those of t,

        epsilon: eps = y,    v_prediction: eps = m y + sigma z_t,    sample: eps = (z_t - m y) / sigma,

    (arXiv:2202.00512, appendix D). With ``clip`` the predicted z_0 = (z_t - sigma eps) / m is clamped, and
    eps is the one that belongs to it.
    """

    def __init__(self, unet: nn.Module, sde: TabulatedVPSDE, recipe: DDPMRecipe) -> None:
        super().__init__()
        self.unet = unet
        self.sde = sde
        self.prediction, self.clip, self.first = recipe.prediction, recipe.clip, recipe.first_timestep

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the noise in z_t [B, C, H, W] at times t [B]."""
        n = (t.double() * self.sde.steps - 1).clamp(min=self.first)
        y: Tensor = self.unet(z_t, n)
        if self.prediction == "epsilon" and self.clip is None:
            return y
        m, sigma = (per_sample(values, z_t) for values in (self.sde.mean(t), self.sde.sigma(t)))
        match self.prediction:
            case "sample":
                clean = y
            case "v_prediction":
                if self.clip is None:
                    return m * y + sigma * z_t
                clean = m * z_t - sigma * y
            case _:
                clean = (z_t - sigma * y) / m
        if self.clip is not None:
            clean = clean.clamp(-self.clip, self.clip)
        return (z_t - m * clean) / sigma


class DDPM(nn.Module):
    """The score model of pixels on [-1, 1] that a recipe describes."""

    def __init__(self, recipe: DDPMRecipe, pixels: Pixels) -> None:
        super().__init__()
        self.pixels = pixels
        sde = sde_of(recipe.betas)
        self.prior = ScoreModel(sde, NoiseNetwork(UNet2D(recipe.network), sde, recipe))


def measure_ddpm(recipe: DDPMRecipe, networks: DDPM, state: Mapping[str, Any]) -> ScoreBasedModel:
    """Return an imported DDPM as the harness sees it; its flow ends at the first time it was trained at."""
    prior, pixels, end = networks.prior, networks.pixels, recipe.time_end
    bound = Objective(prior.sde, Weighting.LL, LogVariance(prior.sde, end), end)
    return ScoreBasedModel(
        coder=NoisyPixels(prior.sde, pixels, end),
        prior=prior,
        bound=bound,
        name=state["name"],
        sha256=state["sha256"],
        parameters=parameter_counts(networks),
        remark=recipe.remark,
        dequantised=DequantisedPixels(pixels, end),
    )
