"""What the blocks of the score network are told of the time: waves of t, an MLP, one shift per block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsgm.nets.layers import linear, scaled_init

__all__ = ["TimeEmbedding", "TimeShifts"]


class TimeEmbedding(nn.Module):
    r"""Waves of t through a two-layer MLP: t [B] -> [B, hidden], activated.

    The E waves are sin and cos of angles :math:`\omega_i t`. "positional": geometric frequencies,
    :math:`\omega_i = s \, 10^{-4 i / (E/2 - 1)}` (arXiv:2006.11239). "fourier": random ones, drawn once and
    saved, :math:`\omega_i = 2 \pi w_i` with :math:`w_i \sim N(0, s^2)` (arXiv:2006.10739).

    The angles are computed in float64, since at scale 1000 float32 would blur t at the sixth digit, and the
    MLP in its own precision under any autocast. ``hidden`` is 4 E where it is left out.
    """

    frequencies: Tensor

    def __init__(
        self,
        size: int,
        scale: float,
        kind: Literal["positional", "fourier"] = "positional",
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        half = size // 2
        if kind == "fourier":
            self.unit = 2 * math.pi
            self.register_buffer("frequencies", scale * torch.randn(half))
        else:
            self.unit = 1.0
            exponents = torch.arange(half, dtype=torch.float64) / max(half - 1, 1)
            self.register_buffer("frequencies", scale * 10000.0**-exponents, persistent=False)
        width = 4 * size if hidden is None else hidden
        self.first = linear(size, width)
        self.second = linear(width, width)

    def forward(self, t: Tensor) -> Tensor:
        """Return SiLU of the embedding, ready for `TimeShifts`."""
        angles = t.to(torch.float64)[:, None] * self.frequencies.to(t.device, torch.float64) * self.unit
        waves = torch.cat([angles.sin(), angles.cos()], dim=1).to(self.first.weight.dtype)
        with torch.autocast(t.device.type, enabled=False):
            return F.silu(self.second(F.silu(self.first(waves))))


class TimeShifts(nn.Linear):
    """Every block's own dense layer on the time embedding, [B, hidden] -> one [B, C_i] each, in one product.

    Each part is initialised as the layer that it is: a fan of all blocks together would make them small.
    """

    def __init__(self, size: int, widths: Sequence[int]) -> None:
        super().__init__(size, sum(widths))
        self.widths = list(widths)
        scaled_init(self, parts=self.widths)

    def shifts(self, embedded: Tensor) -> tuple[Tensor, ...]:
        """Return what each block adds to its features, in the order of the widths."""
        return tuple(self(embedded).split(self.widths, dim=1))
