"""Densities r(t) from which training draws its times, each by one monotone change of variable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lsgm.sde import SDE
from lsgm.weighting import Weighting

__all__ = ["TimeProposal", "Uniform"]


@dataclass(frozen=True)
class TimeProposal(ABC):
    r"""A density r(t) = w'(t) / (w(1) - w(t_\epsilon)) on [time_eps, 1], with w increasing and invertible.

    ``sde`` is the process whose variance shapes the density. Appendix B of arXiv:2106.05931 takes r in
    proportion to lambda(t) Var(eps | z_t), the error that the best denoiser leaves on Normal latents; for
    such latents the objective then has the same value at every t.
    """

    sde: SDE
    time_eps: float

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name for tables and logs."""

    @abstractmethod
    def warp(self, t: Tensor) -> Tensor:
        """w(t), whose value is uniform when t is drawn from r."""

    @abstractmethod
    def unwarp(self, w: Tensor) -> Tensor:
        """The t with w(t) = w."""

    @abstractmethod
    def slope(self, t: Tensor) -> Tensor:
        """w'(t) > 0."""

    def integral(self, weighting: Weighting) -> float | None:
        """Integral of lambda(t) Var(eps | z_t) over [time_eps, 1] if r is proportional to it, else None."""
        return None

    @property
    def reference_slip(self) -> float:
        """How many times too large the authors' code has every weight under this proposal; 1 where right."""
        return 1.0

    @cached_property
    def ends(self) -> tuple[float, float]:
        """w(time_eps) and w(1)."""
        low, high = self.warp(torch.tensor([self.time_eps, 1.0], dtype=torch.float64)).tolist()
        return low, high

    @property
    def span(self) -> float:
        """w(1) - w(time_eps)."""
        low, high = self.ends
        return high - low

    def sample(self, rho: Tensor) -> Tensor:
        """Map rho uniform on [0, 1] to t distributed as r: float64, shape of rho, within [time_eps, 1]."""
        rho = rho.double()
        low, high = self.ends
        # Both ends keep their relative precision, which low + rho * span would not.
        return self.unwarp((1.0 - rho) * low + rho * high).clamp(self.time_eps, 1.0)

    def pdf(self, t: Tensor) -> Tensor:
        """r(t) for t within [time_eps, 1], where it integrates to 1: float64, shape of t."""
        return self.slope(t) / self.span


@dataclass(frozen=True)
class Uniform(TimeProposal):
    """Uniform times: r = 1 / (1 - time_eps), so that weights carry the length of the interval."""

    @property
    def name(self) -> str:
        """uniform."""
        return "uniform"

    def warp(self, t: Tensor) -> Tensor:
        """t."""
        return t.double()

    def unwarp(self, w: Tensor) -> Tensor:
        """w."""
        return w

    def slope(self, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t, dtype=torch.float64)

    @property
    def reference_slip(self) -> float:
        """1 / (1 - time_eps): the authors' weights lack the length of the interval."""
        return 1.0 / (1.0 - self.time_eps)
