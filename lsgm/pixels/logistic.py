"""Logistics integrated over bins: one per sub-pixel, and the probability of a bin that mixtures share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lsgm.precision import at_least_float32

__all__ = ["LEAST_LOG_SCALE", "DiscretizedLogistic", "draw_levels", "log_mass", "on_interval"]

LEAST_LOG_SCALE = -7.0
"""Log-scales are clamped from below here, where a bin of 8 bits is eight scales wide."""


def on_interval(levels: Tensor, count: int, like: Tensor) -> Tensor:
    """Map levels 0..count-1 to [-1, 1] in the dtype of ``like``."""
    return levels.to(like) * (2.0 / (count - 1)) - 1.0


def log_mass(levels: Tensor, count: int, centre: Tensor, log_scale: Tensor) -> Tensor:
    """Return log(F(x + h) - F(x - h)) of a logistic at levels 0..count-1 on [-1, 1], h = 1 / (count - 1).

    The outermost bins reach to infinity, so that all levels sum to one. Written through log-sigmoids, which
    stays exact in the far tails: F(b) - F(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)). Arguments broadcast.
    """
    x, half_bin = on_interval(levels, count, centre), 1.0 / (count - 1)
    inverse_scale = torch.exp(-log_scale)
    above = F.logsigmoid((x + half_bin - centre) * inverse_scale)
    not_below = F.logsigmoid((centre - x + half_bin) * inverse_scale)
    # From the bin's width, not from the difference of its edges, which cancels in the far tails.
    middle = above + not_below + torch.log(-torch.expm1(-2 * half_bin * inverse_scale))
    return torch.where(levels == 0, above, torch.where(levels == count - 1, not_below, middle))


def draw_levels(uniform: Tensor, count: int, centre: Tensor, log_scale: Tensor) -> Tensor:
    """Return levels 0..count-1 in the centre's dtype: centre + scale logit(u), rounded and clipped."""
    u = uniform.to(centre).clamp(1e-6, 1 - 1e-6)
    x = centre + torch.exp(log_scale) * torch.logit(u)
    return ((x + 1) / 2 * (count - 1)).round().clamp(0, count - 1)


class DiscretizedLogistic:
    """One logistic per sub-pixel, integrated over bins of 2 / (levels - 1) on [-1, 1] (arXiv:1606.04934).

    ``parameters`` [B, 2 C, H, W] holds means and log-scales; the outermost bins reach to infinity, so that
    the probabilities of all levels sum to one.
    """

    is_mass = True

    def __init__(self, parameters: Tensor, levels: int) -> None:
        mean, log_scale = at_least_float32(parameters).chunk(2, dim=1)
        self.centre = mean
        self.log_scale = log_scale.clamp(min=LEAST_LOG_SCALE)
        self.levels = levels

    def log_prob(self, levels: Tensor) -> Tensor:
        """Return log(F(x + half bin) - F(x - half bin)) per sub-pixel, in nats."""
        return log_mass(levels, self.levels, self.centre, self.log_scale)

    def mean(self) -> Tensor:
        """Return the logistic's centre, clipped to [0, 1]: what the field displays."""
        return (self.centre.clamp(-1, 1) + 1) / 2

    def sample(self, uniform: Tensor) -> Tensor:
        """Return centre + scale logit(uniform), rounded to a level and clipped."""
        return draw_levels(uniform, self.levels, self.centre, self.log_scale) / (self.levels - 1)
