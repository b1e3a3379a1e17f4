"""Distributions of pixels given a decoder's output: log-probability of levels, mean, draws."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from lsgm.generative import Pixels
from lsgm.nets.config import Decoder
from lsgm.precision import at_least_float32

__all__ = [
    "Bernoulli",
    "DiscretizedLogistic",
    "PixelDistribution",
    "network_input",
    "outputs_for",
    "pixel_distribution",
]


class PixelDistribution(Protocol):
    """p(x | z) of images whose sub-pixels are levels, uint8 [B, C, H, W]."""

    def log_prob(self, levels: Tensor) -> Tensor:
        """Return log p per sub-pixel in nats, float32 [B, C, H, W]."""
        ...

    def mean(self) -> Tensor:
        """Return the expected image in [0, 1]."""
        ...

    def sample(self, uniform: Tensor) -> Tensor:
        """Return a draw in [0, 1], a function of ``uniform`` [B, `uniforms_for` (...), H, W] alone."""
        ...


class Bernoulli:
    """Binary pixels with the given logits [B, C, H, W]."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = at_least_float32(logits)

    def log_prob(self, levels: Tensor) -> Tensor:
        """Return x log p + (1 - x) log(1 - p) per pixel."""
        return -F.binary_cross_entropy_with_logits(self.logits, levels.to(self.logits), reduction="none")

    def mean(self) -> Tensor:
        """Return p."""
        return torch.sigmoid(self.logits)

    def sample(self, uniform: Tensor) -> Tensor:
        """Return 1 where uniform < p, else 0."""
        return (uniform < self.mean()).float()


class DiscretizedLogistic:
    """One logistic per sub-pixel, integrated over bins of 2 / (levels - 1) on [-1, 1] (arXiv:1606.04934).

    ``parameters`` [B, 2 C, H, W] holds means and log-scales; the outermost bins reach to infinity, so that
    the probabilities of all levels sum to one.
    """

    def __init__(self, parameters: Tensor, levels: int) -> None:
        mean, log_scale = at_least_float32(parameters).chunk(2, dim=1)
        self.centre = mean
        self.log_scale = log_scale.clamp(min=-7.0)
        self.levels = levels

    def log_prob(self, levels: Tensor) -> Tensor:
        """Return log(F(x + half bin) - F(x - half bin)) per sub-pixel, in nats.

        Written as log F(b) + log(1 - exp(...)) through log-sigmoids, which stays exact in the far tails:
        F(b) - F(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)).
        """
        x = levels.to(self.centre) * (2.0 / (self.levels - 1)) - 1.0
        half_bin = 1.0 / (self.levels - 1)
        inverse_scale = torch.exp(-self.log_scale)
        above = (x + half_bin - self.centre) * inverse_scale
        below = (x - half_bin - self.centre) * inverse_scale
        middle = F.logsigmoid(above) + F.logsigmoid(-below) + torch.log(-torch.expm1(below - above))
        lowest, highest = levels == 0, levels == self.levels - 1
        return torch.where(lowest, F.logsigmoid(above), torch.where(highest, F.logsigmoid(-below), middle))

    def mean(self) -> Tensor:
        """Return the logistic's centre, clipped to [0, 1]: what the field displays."""
        return (self.centre.clamp(-1, 1) + 1) / 2

    def sample(self, uniform: Tensor) -> Tensor:
        """Return centre + scale logit(uniform), rounded to a level and clipped."""
        u = uniform.clamp(1e-6, 1 - 1e-6)
        x = self.centre + torch.exp(self.log_scale) * (torch.log(u) - torch.log1p(-u))
        index = ((x + 1) / 2 * (self.levels - 1)).round().clamp(0, self.levels - 1)
        return index / (self.levels - 1)


def outputs_for(pixels: Pixels, decoder: Decoder = "auto") -> int:
    """Return how many channels a decoder must put out for these pixels."""
    return pixels.channels if pixels.kind == "binary" else 2 * pixels.channels


def pixel_distribution(parameters: Tensor, pixels: Pixels, decoder: Decoder = "auto") -> PixelDistribution:
    """Return p(x | z) of these pixels from the decoder's output."""
    if pixels.kind == "binary":
        return Bernoulli(parameters)
    return DiscretizedLogistic(parameters, pixels.levels)


def network_input(levels: Tensor, pixels: Pixels) -> Tensor:
    """Map levels uint8 0..L-1 to the float32 interval [-1, 1] that networks see."""
    return levels.float() * (2.0 / (pixels.levels - 1)) - 1.0
