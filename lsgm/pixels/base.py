"""What every distribution of pixels offers, and the interval [-1, 1] that networks see levels on."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from lsgm.generative import Pixels

__all__ = ["PixelDistribution", "network_input"]


class PixelDistribution(Protocol):
    """p(x | z) of images whose sub-pixels are levels, uint8 [B, C, H, W]."""

    @property
    def is_mass(self) -> bool:
        """Whether `log_prob` is of levels, which bits per dimension are defined by, not a density's."""
        ...

    def log_prob(self, levels: Tensor) -> Tensor:
        """Return log p in nats, at least float32 [B, c, H, W], whose sum over c is log p of a pixel.

        c is C where sub-pixels are independent given z, and 1 where a pixel's share one component.
        """
        ...

    def mean(self) -> Tensor:
        """Return the image in [0, 1] that the field displays and scores: the mean, or what stands for it."""
        ...

    def sample(self, uniform: Tensor) -> Tensor:
        """Return a draw in [0, 1], a function of ``uniform`` [B, `lsgm.pixels.uniforms_for`, H, W] alone."""
        ...


def network_input(levels: Tensor, pixels: Pixels) -> Tensor:
    """Map levels 0..L-1 to the interval [-1, 1] that networks see, float32 unless levels are float64."""
    x = levels if levels.dtype == torch.float64 else levels.float()
    return x * (2.0 / (pixels.levels - 1)) - 1.0
