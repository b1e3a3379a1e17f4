"""Samples against mean, variance and independence, as standard scores."""

from __future__ import annotations

from dataclasses import replace

import torch
from oracles.gaussian import GaussianWorld
from torch import Tensor

__all__ = ["standard_scores", "wide"]


def wide(world: GaussianWorld, copies: int) -> GaussianWorld:
    """The same world many times over: one sample of it holds ``copies`` independent samples."""
    return replace(world, mu=world.mu.repeat(copies), s2=world.s2.repeat(copies))


def standard_scores(z: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """How many standard errors the samples' means, variances and correlations are from those of N(mean, var).

    z is [B, D] or, of a wide world, [B, copies D]; there are 2 D + D (D - 1) / 2 of them.
    """
    z = z.view(-1, len(mean))
    count = len(z)
    z_mean = (z.mean(0) - mean) / (var / count).sqrt()
    z_var = (z.var(0) / var - 1) / (2 / count) ** 0.5
    above = torch.ones(len(mean), len(mean)).triu(1).bool()
    return torch.cat([z_mean, z_var, torch.corrcoef(z.T)[above] * count**0.5])
