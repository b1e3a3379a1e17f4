"""How far a tensor lies from its reference: one measure that decides, two numbers that explain it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Deviation", "deviation", "worst"]


class Deviation(NamedTuple):
    """The distance of a tensor from its reference; NaN where either is not finite."""

    error: float
    """max |ours - golden| / max(1, max |golden|): what is compared with the tolerance."""
    absolute: float
    """max |ours - golden|."""
    relative: float
    """max |ours - golden| / max(|ours|, |golden|) by entry; large next to zeros, where it says little."""

    @property
    def finite(self) -> bool:
        """Whether both tensors were finite."""
        return math.isfinite(self.error)

    def within(self, tolerance: float) -> bool:
        """Return whether the error is at most the tolerance; never so for what is not finite."""
        return self.finite and self.error <= tolerance


def deviation(ours: Tensor, golden: Tensor) -> Deviation:
    """Compare two tensors of one shape, in float64."""
    assert ours.shape == golden.shape, "shapes are compared before values are"
    a, b = ours.detach().double().flatten(), golden.double().flatten()
    if a.numel() == 0:
        return Deviation(0.0, 0.0, 0.0)
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        return Deviation(math.nan, math.nan, math.nan)
    gap = (a - b).abs()
    size = torch.maximum(a.abs(), b.abs())
    relative = torch.where(gap > 0, gap / size, 0.0)
    absolute = float(gap.max())
    return Deviation(absolute / max(1.0, float(b.abs().max())), absolute, float(relative.max()))


def worst(deviations: dict[str, Deviation]) -> tuple[str, Deviation]:
    """Return the name of the largest error, and every measure's maximum; what is not finite comes first."""
    name = max(deviations, key=lambda key: _rank(deviations[key].error))
    if not deviations[name].finite:
        return name, deviations[name]
    return name, Deviation(*(max(values) for values in zip(*deviations.values(), strict=True)))


def _rank(error: float) -> float:
    return math.inf if math.isnan(error) else error
