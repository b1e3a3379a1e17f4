"""Importance-sampled times for variance preserving SDEs, arXiv:2106.05931 appendix B."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lsgm.proposal.base import TimeProposal
from lsgm.sde import VPSDE
from lsgm.weighting import Weighting

__all__ = ["LogVariance", "TruncatedNormal", "Variance"]


@dataclass(frozen=True)
class LogVariance(TimeProposal):
    """log sigma_t^2 uniform: r_ll, matched to the likelihood weighting of VP-like SDEs."""

    @property
    def name(self) -> str:
        """is-ll."""
        return "is-ll"

    def warp(self, t: Tensor) -> Tensor:
        """Log sigma_t^2."""
        return self.sde.var(t).log()

    def unwarp(self, w: Tensor) -> Tensor:
        """The time at which sigma_t^2 = exp(w)."""
        return self.sde.inv_var(w.exp())

    def slope(self, t: Tensor) -> Tensor:
        """d log sigma_t^2/dt."""
        return self.sde.dvar(t) / self.sde.var(t)

    def integral(self, weighting: Weighting) -> float | None:
        """log(sigma_1^2 / sigma_eps^2) / 2 for the likelihood weighting."""
        return 0.5 * self.span if weighting is Weighting.LL else None


@dataclass(frozen=True)
class Variance(TimeProposal):
    """sigma_t^2 uniform: r_re, matched to the reweighted objective of VP-like SDEs."""

    @property
    def name(self) -> str:
        """is-re."""
        return "is-re"

    def warp(self, t: Tensor) -> Tensor:
        """sigma_t^2."""
        return self.sde.var(t)

    def unwarp(self, w: Tensor) -> Tensor:
        """The time at which sigma_t^2 = w."""
        return self.sde.inv_var(w)

    def slope(self, t: Tensor) -> Tensor:
        """d sigma_t^2/dt."""
        return self.sde.dvar(t)

    def integral(self, weighting: Weighting) -> float | None:
        """(sigma_1^2 - sigma_eps^2) / 2 for the reweighted objective."""
        return 0.5 * self.span if weighting is Weighting.RE else None


@dataclass(frozen=True)
class TruncatedNormal(TimeProposal):
    r"""r_un = (1 - sigma_t^2)/Z, matched to the unweighted objective of the VP SDE (beta_end > beta_start).

    1 - sigma_t^2 is a Gaussian in t: with D = beta_end - beta_start, a = sqrt(D/2) and c = beta_start/D,

    .. math:: Z = (1-\sigma_0^2) e^{\beta_0^2/(2D)} \sqrt{\pi/(2D)}
              [\mathrm{erf}(a(1+c)) - \mathrm{erf}(a(t_\epsilon+c))]

    The authors' code has beta_start in place of its square in the exponent: 0.2 % too much by default.
    """

    sde: VPSDE

    @property
    def name(self) -> str:
        """is-un."""
        return "is-un"

    @cached_property
    def _scale(self) -> float:
        """sqrt(D): t + c in units of the Gaussian's standard deviation."""
        return math.sqrt(self.sde.beta_end - self.sde.beta_start)

    @cached_property
    def _shift(self) -> float:
        """c = beta_start / D."""
        return self.sde.beta_start / (self.sde.beta_end - self.sde.beta_start)

    @cached_property
    def normaliser(self) -> float:
        """Z, with exp(b^2/2D) erfc(a(t + c)) written as exp(-B(t)) erfcx(a(t + c)), which cannot overflow."""
        ends = torch.tensor([self.time_eps, 1.0], dtype=torch.float64)
        argument = (ends + self._shift) * (self._scale / math.sqrt(2.0))
        tails = self.sde.one_minus_var(ends) * torch.special.erfcx(argument)
        return math.sqrt(0.5 * math.pi) / self._scale * float(tails[0] - tails[1])

    def warp(self, t: Tensor) -> Tensor:
        """Minus the Gaussian's upper tail, which unlike its distribution function is precise at t = 1."""
        # torch.special.ndtr is 1 + erf there, and loses the tail.
        return -0.5 * torch.erfc((self._scale / math.sqrt(2.0)) * (t.double() + self._shift))

    def unwarp(self, w: Tensor) -> Tensor:
        """The Gaussian's quantile."""
        quantile: Tensor = torch.special.ndtri(-w)
        return -quantile / self._scale - self._shift

    def slope(self, t: Tensor) -> Tensor:
        """The Gaussian's density."""
        x = self._scale * (t.double() + self._shift)
        return self._scale / math.sqrt(2.0 * math.pi) * (-0.5 * x.square()).exp()

    def pdf(self, t: Tensor) -> Tensor:
        """(1 - sigma_t^2) / Z."""
        return self.sde.one_minus_var(t) / self.normaliser

    def integral(self, weighting: Weighting) -> float | None:
        """Z/2 for the unweighted objective."""
        return 0.5 * self.normaliser if weighting is Weighting.UN else None

    @property
    def reference_slip(self) -> float:
        """exp((beta_0 - beta_0^2) / 2D): the authors' exponent lacks a square."""
        start, slope = self.sde.beta_start, self.sde.beta_end - self.sde.beta_start
        return math.exp((start - start**2) / (2.0 * slope))
