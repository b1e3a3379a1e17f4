"""Squeeze and excitation: channels gated by their own means."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lsgm.precision import at_least_float32

__all__ = ["SqueezeExcite"]


class SqueezeExcite(nn.Module):
    """y = x sigmoid(W_2 relu(W_1 mean(x))), a gate per channel, [B, C, h, w] -> the same (arXiv:1709.01507).

    The means over a whole map and the gates are float32 or better whatever the autocast dtype.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 4)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated x."""
        with torch.autocast(x.device.type, enabled=False):
            means = at_least_float32(x).mean(dim=(2, 3))
            gates = torch.sigmoid(self.excite(torch.relu(self.squeeze(means))))
        return x * gates[:, :, None, None].to(x.dtype)
