"""NCSN++ written down slowly: one function over numbered weights, as arXiv:2011.13456, appendix H draws it.

It knows nothing of the project's modules. Resampling is zero-insertion, scipy's convolution and decimation;
attention is a softmax of explicit products. Weights spring up at random where they are first asked for, under
the names that score_sde gives them, so that a forward pass also says which tensors such a network has.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lsgm.nets.config import ScoreNetConfig

__all__ = ["SlowNCSNpp", "slow_down", "slow_up"]

TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8


def _filtered(x: Tensor, before: int, after: int) -> Tensor:
    """Return x [B, C, H, W] padded with zeros and correlated with the filter, by explicit sums."""
    x = F.pad(x, (before, after, before, after))
    height, width = x.shape[2] - 3, x.shape[3] - 3
    terms = [TAPS[i] * TAPS[j] * x[:, :, i : i + height, j : j + width] for i in range(4) for j in range(4)]
    return torch.stack(terms).sum(dim=0)


def _spread(x: Tensor) -> Tensor:
    """Return x with a zero behind every pixel of every row and column."""
    out = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    out[:, :, ::2, ::2] = x
    return out


def slow_down(x: Tensor, *, fir: bool) -> Tensor:
    """Halve the side."""
    if fir:
        return _filtered(x, 1, 1)[:, :, ::2, ::2]
    return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4


def slow_up(x: Tensor, *, fir: bool) -> Tensor:
    """Double the side."""
    if fir:
        return 4 * _filtered(_spread(x), 2, 1)
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


class SlowNCSNpp:
    """`forward` in the order of score_sde's layers, counting them."""

    def __init__(self, config: ScoreNetConfig, seed: int = 0) -> None:
        self.config = config
        self.weights: dict[str, Tensor] = {}
        self.random = np.random.default_rng(seed)
        self.layer = 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the network's output, float64."""
        c = self.config
        self.layer = 0
        channels, levels, root2 = x.shape[1], len(c.multipliers), math.sqrt(2)
        temb = self.times(t)
        pyramid = x
        hs = [self.conv(x, c.width)]
        for level, multiplier in enumerate(c.multipliers):
            for _ in range(c.blocks):
                h = self.block(hs[-1], c.width * multiplier, temb)
                if h.shape[-1] in c.attention:
                    h = self.attention(h)
                hs.append(h)
            if level == levels - 1:
                continue
            h = self.block(hs[-1], hs[-1].shape[1], temb, "down")
            if c.progressive_input == "input_skip":
                pyramid = self.plain_down(pyramid)
                own = self.conv(pyramid, h.shape[1], 1, inside=".Conv_0")
                h = own + h if c.progressive_combine == "sum" else torch.cat([own, h], dim=1)
            elif c.progressive_input == "residual":
                h = pyramid = (self.conv_down(pyramid, h.shape[1]) + h) / root2
            hs.append(h)
        h = self.block(hs[-1], hs[-1].shape[1], temb)
        h = self.block(self.attention(h), h.shape[1], temb)
        for level in reversed(range(levels)):
            for _ in range(c.blocks + 1):
                h = self.block(torch.cat([h, hs.pop()], dim=1), c.width * c.multipliers[level], temb)
            if h.shape[-1] in c.attention:
                h = self.attention(h)
            deepest = level == levels - 1
            if c.progressive == "output_skip":
                below = None if deepest else self.plain_up(pyramid)
                own = self.head(h, channels)
                pyramid = own if below is None else below + own
            elif c.progressive == "residual" and deepest:
                pyramid = self.head(h, h.shape[1])
            elif c.progressive == "residual":
                h = pyramid = (self.conv_up(pyramid, h.shape[1]) + h) / root2
            if level > 0:
                h = self.block(h, h.shape[1], temb, "up")
        return pyramid if c.progressive == "output_skip" else self.head(h, channels)

    def weight(self, name: str, *shape: int) -> Tensor:
        """Return a weight, drawn where it is new and checked where it is not."""
        if name not in self.weights:
            drawn = 0.3 * torch.from_numpy(self.random.standard_normal(shape))
            self.weights[name] = drawn.requires_grad_()
        assert self.weights[name].shape == shape
        return self.weights[name]

    def name(self) -> str:
        """Return the next layer's name."""
        self.layer += 1
        return f"all_modules.{self.layer - 1}"

    def affine(self, x: Tensor, name: str, c_out: int) -> Tensor:
        return x @ self.weight(f"{name}.weight", c_out, x.shape[1]).T + self.weight(f"{name}.bias", c_out)

    def times(self, t: Tensor) -> Tensor:
        size, scale = self.config.embedding, self.config.embedding_scale
        if self.config.embedding_kind == "fourier":
            angles = 2 * math.pi * t[:, None] * self.weight("temb_fun.w", 1, size // 2)
        else:
            angles = scale * t[:, None] * 10000 ** (-torch.arange(size // 2).double() / (size // 2 - 1))
        waves = torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)
        first = self.affine(waves, self.name(), 4 * size)
        return self.affine(F.silu(first), self.name(), 4 * size)

    def conv_with(self, x: Tensor, name: str, c_out: int, kernel: int = 3, **how: int) -> Tensor:
        weight = self.weight(f"{name}.weight", c_out, x.shape[1], kernel, kernel)
        return F.conv2d(x, weight, self.weight(f"{name}.bias", c_out), **how)

    def conv(self, x: Tensor, c_out: int, kernel: int = 3, inside: str = "") -> Tensor:
        return self.conv_with(x, self.name() + inside, c_out, kernel, padding=kernel // 2)

    def norm(self, x: Tensor, name: str) -> Tensor:
        channels = x.shape[1]
        weight, bias = self.weight(f"{name}.weight", channels), self.weight(f"{name}.bias", channels)
        return F.group_norm(x, min(channels // 4, 32), weight, bias, eps=1e-6)

    def head(self, h: Tensor, c_out: int) -> Tensor:
        return self.conv(F.silu(self.norm(h, self.name())), c_out)

    def block(self, x: Tensor, c_out: int, temb: Tensor, direction: str = "") -> Tensor:
        name, c_in = self.name(), x.shape[1]
        h = F.silu(self.norm(x, f"{name}.GroupNorm_0"))
        if direction:
            resample = slow_down if direction == "down" else slow_up
            h, x = resample(h, fir=self.config.fir), resample(x, fir=self.config.fir)
        h = self.conv_with(h, f"{name}.Conv_0", c_out, padding=1)
        h = h + self.affine(F.silu(temb), f"{name}.Dense_0", c_out)[:, :, None, None]
        h = self.conv_with(F.silu(self.norm(h, f"{name}.GroupNorm_1")), f"{name}.Conv_1", c_out, padding=1)
        if direction or c_in != c_out:
            x = self.conv_with(x, f"{name}.Conv_2", c_out, kernel=1)
        return (x + h) / math.sqrt(2)

    def attention(self, x: Tensor) -> Tensor:
        name, channels = self.name(), x.shape[1]
        h = self.norm(x, f"{name}.GroupNorm_0").flatten(2)
        q, k, v = (self.nin(h, f"{name}.NIN_{i}") for i in range(3))
        among = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / math.sqrt(channels), dim=2)
        h = self.nin(torch.einsum("bij,bcj->bci", among, v), f"{name}.NIN_3")
        return (x + h.reshape(x.shape)) / math.sqrt(2)

    def nin(self, h: Tensor, name: str) -> Tensor:
        channels = h.shape[1]
        matrix = self.weight(f"{name}.W", channels, channels)
        return torch.einsum("bci,cd->bdi", h, matrix) + self.weight(f"{name}.b", channels)[:, None]

    def plain_down(self, x: Tensor) -> Tensor:
        return slow_down(x, fir=self.config.fir)

    def plain_up(self, x: Tensor) -> Tensor:
        return slow_up(x, fir=self.config.fir)

    def conv_down(self, x: Tensor, c_out: int) -> Tensor:
        if self.config.fir:
            return self.conv_with(_filtered(x, 2, 2), f"{self.name()}.Conv2d_0", c_out, stride=2)
        return self.conv_with(F.pad(x, (0, 1, 0, 1)), f"{self.name()}.Conv_0", c_out, stride=2)

    def conv_up(self, x: Tensor, c_out: int) -> Tensor:
        if not self.config.fir:
            return self.conv_with(slow_up(x, fir=False), f"{self.name()}.Conv_0", c_out, padding=1)
        name = f"{self.name()}.Conv2d_0"
        # Spread without the last zero and padded by 2: the full correlation, one pixel larger than the image.
        spread = F.pad(_spread(x)[:, :, :-1, :-1], (2, 2, 2, 2))
        plain = F.conv2d(spread, self.weight(f"{name}.weight", c_out, x.shape[1], 3, 3))
        return 4 * _filtered(plain, 1, 1) + self.weight(f"{name}.bias", c_out)[:, None, None]
