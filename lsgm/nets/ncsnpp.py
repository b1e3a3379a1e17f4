"""The score network NCSN++ (arXiv:2011.13456, appendix H), for latents and pixels alike.

Pyramids grow beside the features of a U-Net. On the way down one of ever smaller copies of the input meets
the features behind each halving; on the way up one of ever larger outputs grows beside them, one step at the
end of each level. Every join is a module (pyramid, h) -> (pyramid, h); where there is no pyramid, or nothing
to join, it is `Apart`.

At [B, C, H, W] for the features h, the pyramid is [B, P, H, W] with P the input's channels, or C in the
residual variants.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lsgm.errors import ConfigError
from lsgm.nets.config import ScoreNetConfig
from lsgm.nets.layers import (
    FIR,
    Attention,
    Direction,
    FIRConv,
    Head,
    Resample,
    ResBlock,
    TimeEmbedding,
    TimeShifts,
    conv,
    scaled_init,
    sides_of,
)

Pair = tuple[Tensor | None, Tensor]


class NCSNpp(nn.Module):
    """A U-Net of residual blocks whose every feature map on the way down is met again on the way up.

    z_t [B, C, H, W] and t [B] -> [B, C, H, W]. The output convolution starts at (almost) zero, so that with
    a mixed score the prior starts as the Normal one. ``resolution`` is a side or (H, W); a level has
    attention where its shorter side is among the configuration's. Raises ConfigError where a level's side is
    odd.

    `down`, `middle` and `up` hold the blocks in the order of execution; `joins_down` and `joins_up` hold, for
    each block, what the pyramids do behind it.
    """

    def __init__(self, config: ScoreNetConfig, *, channels: int, resolution: int | tuple[int, int]) -> None:
        super().__init__()
        sides = _sides(config, resolution)
        self.recompute = config.recompute
        self.embed = TimeEmbedding(
            config.embedding, config.embedding_scale, config.embedding_kind, config.time_width
        )
        self.stem = conv(channels, config.width)
        widths = self._build_down(config, channels, sides)
        current = widths[-1]
        self.middle = nn.ModuleList(
            [_stack(config, current, current, attend=True), _stack(config, current, current)]
        )
        current = self._build_up(config, channels, sides, widths)
        skips = config.progressive == "output_skip"
        self.head = nn.Identity() if skips else Head(current, channels, scale=0.0)
        blocks = [stack.block.width for stack in (*self.down, *self.middle, *self.up)]
        self.shifts = TimeShifts(config.time_width, blocks)

    def _build_down(self, config: ScoreNetConfig, channels: int, sides: list[int]) -> list[int]:
        """Add the way down; return the width of every feature map that the way up meets again."""
        self.down, self.joins_down = nn.ModuleList(), nn.ModuleList()
        widths = [config.width]
        pyramid = channels
        for level, side in enumerate(sides):
            width = config.width * config.multipliers[level]
            for _ in range(config.blocks):
                self.down.append(_stack(config, widths[-1], width, attend=side in config.attention))
                self.joins_down.append(Apart())
                widths.append(width)
            if level + 1 < len(sides):
                self.down.append(_stack(config, width, width, direction="down"))
                join = _join_input(config, pyramid, width)
                self.joins_down.append(join)
                widths.append(width if isinstance(join, Apart) else join.width)
                pyramid = width if config.progressive_input == "residual" else channels
        return widths

    def _build_up(self, config: ScoreNetConfig, channels: int, sides: list[int], widths: list[int]) -> int:
        """Add the way up, which takes the widths from the last to the first; return the width of its end."""
        self.up, self.joins_up = nn.ModuleList(), nn.ModuleList()
        skips = list(widths)
        current = pyramid = widths[-1]
        for level in reversed(range(len(sides))):
            width = config.width * config.multipliers[level]
            for block in range(config.blocks + 1):
                attend = block == config.blocks and sides[level] in config.attention
                self.up.append(_stack(config, current + skips.pop(), width, attend=attend, meets=True))
                self.joins_up.append(Apart())
                current = width
            self.joins_up[-1] = _join_output(config, channels, pyramid, width, first=level + 1 == len(sides))
            pyramid = width
            if level > 0:
                self.up.append(_stack(config, current, current, direction="up"))
                self.joins_up.append(Apart())
        return current

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the network's noise prediction NN(z_t, t), before any mixing."""
        # What each block, in the order of execution, is told of the time.
        shifts = iter(self.shifts.shifts(self.embed(t)))
        # Down: blocks, and the input's pyramid behind each halving; every feature map is kept.
        pyramid: Tensor | None = z_t
        h = self.stem(z_t)
        seen = [h]
        for stack, join in zip(self.down, self.joins_down, strict=True):
            pyramid, h = join(pyramid, self._run(stack, h, next(shifts)))
            seen.append(h)
        for stack in self.middle:
            h = self._run(stack, h, next(shifts))
        # Up: blocks that meet these maps again, the last one first, and the pyramid of outputs.
        pyramid = None
        for stack, join in zip(self.up, self.joins_up, strict=True):
            met = seen.pop() if stack.meets else None
            pyramid, h = join(pyramid, self._run(stack, h, next(shifts), met))
        # The output is the pyramid's own, or a head's on the last features.
        if pyramid is not None and isinstance(self.head, nn.Identity):
            return pyramid
        out: Tensor = self.head(h)
        return out

    def _run(self, stack: nn.Module, h: Tensor, shift: Tensor, met: Tensor | None = None) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            # Without the guard of `lsgm.nets.layers`: it is for batch statistics, and cannot be compiled.
            out: Tensor = checkpoint(stack, h, shift, met, use_reentrant=False)
        else:
            out = stack(h, shift, met)
        return out


class Stack(nn.Module):
    """A residual block and, where asked for, self-attention behind it: [B, C, H, W] -> [B, C', H', W'].

    On the way up the features first meet those of the way down, stacked under them.
    """

    is_block: ClassVar[bool] = True

    def __init__(self, block: ResBlock, *, attend: bool, meets: bool) -> None:
        super().__init__()
        self.meets = meets
        self.block = block
        self.attention = Attention(block.width) if attend else nn.Identity()

    def forward(self, x: Tensor, shift: Tensor, met: Tensor | None = None) -> Tensor:
        """Return the features after the block and its attention; ``shift`` is the block's own of the time."""
        x = x if met is None else torch.cat([x, met], dim=1)
        out: Tensor = self.attention(self.block(x, shift))
        return out


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


def _sides(config: ScoreNetConfig, resolution: int | tuple[int, int]) -> list[int]:
    """Return the shorter side of each level."""
    levels = len(config.multipliers)
    for side in sides_of(resolution):
        if side % 2 ** (levels - 1):
            raise ConfigError(
                f"{levels} levels cannot halve a side of {side}; use fewer multipliers in the score network"
            )
    sides = [min(sides_of(resolution)) >> level for level in range(levels)]
    if config.progressive == "residual" and levels == 1:
        raise ConfigError(
            'a score network of one level has no pyramid of outputs; set progressive to "none" or add a level'
        )
    return sides


def _stack(
    config: ScoreNetConfig,
    c_in: int,
    c_out: int,
    *,
    attend: bool = False,
    direction: Direction | None = None,
    meets: bool = False,
) -> Stack:
    block = ResBlock(c_in, c_out, direction=direction, fir=config.fir, dropout=config.dropout)
    return Stack(block, attend=attend, meets=meets)


def _join_input(config: ScoreNetConfig, pyramid: int, width: int) -> Apart | InputSkip | InputResidual:
    match config.progressive_input:
        case "input_skip":
            return InputSkip(pyramid, width, combine=config.progressive_combine, fir=config.fir)
        case "residual":
            return InputResidual(pyramid, width, fir=config.fir)
    return Apart()


def _join_output(
    config: ScoreNetConfig, channels: int, pyramid: int, width: int, *, first: bool
) -> Apart | OutputSkip | OutputResidual:
    match config.progressive:
        case "output_skip":
            return OutputSkip(width, channels, first=first, fir=config.fir)
        case "residual":
            return OutputResidual(pyramid, width, first=first, fir=config.fir)
    return Apart()
