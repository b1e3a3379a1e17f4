"""Weight-normalised convolutions, plain and masked."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["WeightNormConv2d", "normalised"]

NORM_EPS = 1e-5
"""Added to ||w|| where it divides."""
INIT_EPS = 1e-2
"""Added to ||w|| where the first log-norm is taken."""


class WeightNormConv2d(nn.Conv2d):
    """Convolution by w_eff = exp(g_c) w / (||w|| + 1e-5), norms per output channel (arXiv:1602.07868).

    g is ``log_weight_norm``, [C_out, 1, 1, 1], initialised as log(||w|| + 1e-2) + log(gain): a gain below 1
    starts the layer that much quieter and is no part of it afterwards. A ``mask`` of 0s and 1s that
    broadcasts against w multiplies it before the norm is taken; it is a constant, kept in no checkpoint.
    """

    mask: Tensor | None

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        mask: Tensor | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__(
            c_in, c_out, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=bias
        )
        self.register_buffer("mask", None if mask is None else mask.to(self.weight), persistent=False)
        first = (_norm(self.masked_weight()) + INIT_EPS).log() + math.log(gain)
        self.log_weight_norm = nn.Parameter(first.detach().clone())

    def effective_weight(self) -> Tensor:
        """Return the kernel that convolves, [C_out, C_in / groups, k, k]."""
        return normalised(self.masked_weight(), self.log_weight_norm)

    def forward(self, x: Tensor) -> Tensor:
        """Return x convolved with the effective kernel, [B, C_out, H', W']."""
        y: Tensor = self._conv_forward(x, self.effective_weight(), self.bias)
        return y

    def masked_weight(self) -> Tensor:
        """Return w times the mask where there is one, [C_out, C_in / groups, k, k]."""
        return self.weight if self.mask is None else self.weight * self.mask


def normalised(w: Tensor, log_norm: Tensor) -> Tensor:
    """Return exp(g) w / (||w|| + 1e-5) for kernels [..., C_out, C_in, k, k] and g [..., C_out, 1, 1, 1]."""
    return w * (log_norm.exp() / (_norm(w) + NORM_EPS))


def _norm(w: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(w, dim=(-3, -2, -1), keepdim=True)
    return norm
