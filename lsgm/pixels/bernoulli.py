"""Binary pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lsgm.precision import at_least_float32

__all__ = ["Bernoulli"]


class Bernoulli:
    """Binary pixels with the given logits [B, C, H, W]."""

    is_mass = True

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
