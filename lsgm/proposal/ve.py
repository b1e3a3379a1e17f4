"""Importance-sampled times for the variance exploding SDE, arXiv:2106.05931 appendix B.

N(t) = 1 - sigma2_min + sigma_t^2 is the variance of z_t for latents of unit variance at t = 0, and
Var(eps | z_t) = (1 - sigma2_min) / N(t).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lsgm.proposal.base import TimeProposal
from lsgm.sde import VESDE
from lsgm.weighting import Weighting

__all__ = ["LogMarginal", "LogNoiseShare"]


@dataclass(frozen=True)
class LogNoiseShare(TimeProposal):
    """log(sigma_t^2 / N(t)) uniform: matched to the likelihood and the unweighted objective."""

    sde: VESDE

    @property
    def name(self) -> str:
        """is-ll."""
        return "is-ll"

    def warp(self, t: Tensor) -> Tensor:
        """log(sigma_t^2 / N)."""
        return -torch.log1p((1.0 - self.sde.sigma2_min) / self.sde.var(t))

    def unwarp(self, w: Tensor) -> Tensor:
        """The time at which sigma_t^2 = (1 - sigma2_min) q / (1 - q), q = exp(w)."""
        return self.sde.inv_var((1.0 - self.sde.sigma2_min) / torch.expm1(-w))

    def slope(self, t: Tensor) -> Tensor:
        """R (1 - sigma2_min) / N."""
        return self.sde.log_ratio * self.sde.unit_eps_var(t)

    def integral(self, weighting: Weighting) -> float | None:
        """C/2 for the likelihood weighting, C/(2R) for the unweighted, C the span of log(sigma_t^2 / N)."""
        match weighting:
            case Weighting.LL:
                return 0.5 * self.span
            case Weighting.UN:
                return 0.5 * self.span / self.sde.log_ratio
            case _:
                return None


@dataclass(frozen=True)
class LogMarginal(TimeProposal):
    """log N(t) uniform: matched to the reweighted objective."""

    sde: VESDE

    @property
    def name(self) -> str:
        """is-re."""
        return "is-re"

    def warp(self, t: Tensor) -> Tensor:
        """Log N."""
        return torch.log1p(self.sde.var(t) - self.sde.sigma2_min)

    def unwarp(self, w: Tensor) -> Tensor:
        """The time at which sigma_t^2 = sigma2_min + exp(w) - 1."""
        return self.sde.inv_var(self.sde.sigma2_min + torch.expm1(w))

    def slope(self, t: Tensor) -> Tensor:
        """R sigma_t^2 / N."""
        return self.sde.dvar(t) / self.sde.marginal_var(t)

    def integral(self, weighting: Weighting) -> float | None:
        """(1 - sigma2_min) log(N(1)/N(time_eps)) / 2 for the reweighted objective."""
        return 0.5 * (1.0 - self.sde.sigma2_min) * self.span if weighting is Weighting.RE else None
