"""The mean and variance of a sampler's output without chance, where the sampler is affine in its noise.

In a Gaussian world eps is affine in z, and so is every sampler that scales its noise by numbers alone. Then
z = a + sum_i b_i n_i over the N(0, 1) numbers drawn, with mean a and variance sum_i b_i^2. A batch whose row
i has a 1 for draw i alone, and whose last row has none, gives all b_i and a in one run of the sampler itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from oracles.gaussian import GaussianWorld
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.rng import SeededNoise
from lsgm.sampling import CountedScore, find_sampler

__all__ = ["exact_moments"]


@dataclass
class _Impulses:
    """Noise whose draw i is 1 in row i and 0 elsewhere."""

    rows: int
    drawn: int = 0

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        out = torch.zeros(self.rows, *shape, dtype=dtype)
        out[self.drawn] = 1
        self.drawn += 1
        assert self.drawn < self.rows, "more draws than rows: ask for more"
        return out


def exact_moments(
    world: GaussianWorld, config: SamplerConfig, times: Tensor, *, from_prior: bool = False
) -> tuple[Tensor, Tensor]:
    """Mean and variance [D] of a sampler's output, begun at p_1, or at the prior as ``draw`` does."""
    noise = _Impulses(rows=(2 + config.corrector_steps) * len(times) + 2)
    mean, var = torch.zeros_like(world.mu), torch.full_like(world.mu, world.sde.prior_var)
    if not from_prior:
        mean, var = world.moments(1.0)
    z = mean + var.sqrt() * noise.normal(*mean.shape, dtype=torch.float64)
    score = CountedScore(world, noise.rows)
    out = find_sampler(config.name).run(score, z, times, cast(SeededNoise, noise), config)
    assert isinstance(out, Tensor)
    return out[-1], (out[:-1] - out[-1]).square().sum(0)
