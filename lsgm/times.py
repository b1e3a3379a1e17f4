"""Which noise levels count how much, and at which times training asks for them.

The weighting lambda(t) of the noise-prediction error is one thing, the density r(t) that times are drawn
from another: lambda(t) / r(t) weighs the error, so that any weighting can be had under any density.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lsgm.config import require
from lsgm.errors import ConfigError
from lsgm.sde import SDE, VESDE, VPSDE

EDM_MEAN, EDM_STD = -1.2, 1.2
"""P_mean and P_std of arXiv:2206.00364, table 1: the lognormal noise levels s = sigma_t / m_t of training."""
SIGMA_DATA = 0.5
"""sigma_data of the same: the root mean square of photographs on [-1, 1]."""


class Weighting(StrEnum):
    r"""lambda(t) of the objective \int lambda(t) E||eps - eps_theta(z_t, t)||^2 dt, arXiv:2106.05931 Table 1.

    ======== ========================= ==================================================================
    name     lambda(t)                 remark
    ======== ========================= ==================================================================
    LL       g^2 / (2 sigma_t^2)       w_ll, "likelihood": Theorem 1, the cross entropy; always the VAE's
    UN       1 / 2                     w_un, "unweighted"; the authors' code has 1, twice the paper's
    RE       g^2 / 2                   w_re, "reweighted"
    RESCALE  1 / (2 (1 - sigma_t^2))   in the authors' code only
    EDM      p(log s) s'/s             arXiv:2206.00364: lognormal s_t = sigma_t / m_t; D - z_0 weighted by
             (1 + s^2 / d^2)           (s^2 + d^2) / (s d)^2, and so eps by the last factor, d = sigma_data
    ======== ========================= ==================================================================
    """

    LL = "ll"
    UN = "un"
    RE = "re"
    RESCALE = "rescale"
    EDM = "edm"

    def density(self, sde: SDE, t: Tensor, *, sigma_data: float = SIGMA_DATA) -> Tensor:
        """lambda(t), float64, shape of t; ``sigma_data`` is for EDM alone.

        Raises ConfigError for RESCALE where the variance reaches 1.
        """
        match self:
            case Weighting.LL:
                return 0.5 * sde.g2(t) / sde.var(t)
            case Weighting.UN:
                return torch.full_like(t, 0.5, dtype=torch.float64)
            case Weighting.RE:
                return 0.5 * sde.g2(t)
            case Weighting.RESCALE:
                require(
                    float(sde.one_minus_var(torch.ones((), dtype=torch.float64))) > 0.0,
                    f"weighting 'rescale' needs sigma2-max below 1, and it is {sde.prior_var}; "
                    "choose ll, un or re",
                )
                return 0.5 / sde.one_minus_var(t)
            case Weighting.EDM:
                return lognormal_pdf(sde, t) * (1 + sde.var(t) / (sigma_data * sde.mean(t)).square())


def lognormal_pdf(sde: SDE, t: Tensor) -> Tensor:
    """Density over t that makes log(sigma_t / m_t), of slope g^2 / (2 sigma_t^2), N(EDM_MEAN, EDM_STD^2).

    Float64, shape of t; what of the Normal lies outside [0, 1] is missing from its integral.
    """
    x = (0.5 * sde.var(t).log() - sde.mean(t).log() - EDM_MEAN) / EDM_STD
    return (-0.5 * x.square()).exp() / (EDM_STD * math.sqrt(2 * math.pi)) * 0.5 * sde.g2(t) / sde.var(t)


@dataclass(frozen=True)
class TimeProposal(ABC):
    r"""A density r(t) = w'(t) / (w(1) - w(t_\epsilon)) on [time_eps, 1], with w increasing and invertible.

    ``sde`` is the process whose variance shapes the density. Appendix B of arXiv:2106.05931 takes r in
    proportion to lambda(t) Var(eps | z_t), the error that the best denoiser leaves on Normal latents; for
    such latents the objective then has the same value at every t.
    """

    name: ClassVar[str]
    """Short name for tables and logs."""
    sde: SDE
    time_eps: float

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

    name: ClassVar[str] = "uniform"

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


@dataclass(frozen=True)
class LogVariance(TimeProposal):
    """log sigma_t^2 uniform: r_ll, matched to the likelihood weighting of VP-like SDEs."""

    name: ClassVar[str] = "is-ll"

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

    name: ClassVar[str] = "is-re"

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

    name: ClassVar[str] = "is-un"
    sde: VPSDE

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


@dataclass(frozen=True)
class LogNoiseShare(TimeProposal):
    """log(sigma_t^2 / N(t)) uniform: matched to the likelihood and the unweighted objective."""

    name: ClassVar[str] = "is-ll"
    sde: VESDE

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

    name: ClassVar[str] = "is-re"
    sde: VESDE

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


@dataclass(frozen=True)
class LogNormal(TimeProposal):
    r"""log s_t ~ N(-1.2, 1.2^2) for s_t = sigma_t / m_t, cut off at the times time_eps and 1.

    So EDM trains (arXiv:2206.00364, table 1), without a cut-off: for s from 0.002 to 80 a draw would fall
    outside about once in 60,000. For VP-like SDEs and those with m_t = 1.
    """

    name: ClassVar[str] = "edm"

    def warp(self, t: Tensor) -> Tensor:
        """The distribution function of log s_t."""
        log_s = 0.5 * self.sde.var(t).log() - self.sde.mean(t).log()
        below: Tensor = torch.special.ndtr((log_s - EDM_MEAN) / EDM_STD)
        return below

    def unwarp(self, w: Tensor) -> Tensor:
        """The time at which log s_t is the quantile; if VP-like, sigma_t^2 = s^2 / (s^2 + 1 - sigma2_0)."""
        s2 = (2 * (EDM_MEAN + EDM_STD * torch.special.ndtri(w))).exp()
        return self.sde.inv_var(s2 / (s2 + (1 - self.sde.sigma2_0)) if self.sde.is_vp_like else s2)

    def slope(self, t: Tensor) -> Tensor:
        """The density of log s_t times d log s_t/dt = g^2 / (2 sigma_t^2)."""
        return lognormal_pdf(self.sde, t)


def _unweighted(sde: VPSDE, time_eps: float) -> TimeProposal:
    slope = sde.beta_end - sde.beta_start
    # With beta all but constant the Gaussian's tails underflow, and r_un and r_re all but coincide.
    return TruncatedNormal(sde, time_eps) if sde.beta_start**2 < 600.0 * slope else Variance(sde, time_eps)


PROPOSALS: dict[str, Callable[[Any, float], TimeProposal]] = {
    "log-variance": LogVariance,
    "variance": Variance,
    "truncated-normal": _unweighted,
    "share": LogNoiseShare,
    "marginal": LogMarginal,
    "lognormal": LogNormal,
}
"""What `SDE.proposals` names, made of an SDE and time_eps; a package with an SDE may enter one of its own."""


def make_proposal(
    sde: SDE, weighting: Weighting, kind: Literal["uniform", "is"], time_eps: float
) -> TimeProposal:
    """Build the proposal on [time_eps, 1]: uniform, or the one matched to the weighting for Normal latents.

    It is the SDE's own, or its guide's: the sub-VP SDE borrows the times of the VP SDE with the same beta.
    Raises ConfigError where the weighting has no matched proposal (rescale, and un for the geometric SDE),
    for an unknown kind, and where time_eps leaves the likelihood weighting infinite.
    """
    require(0.0 <= time_eps < 1.0, f"time-eps is {time_eps}; give a time in [0, 1)")
    require(
        weighting is not Weighting.LL or sde.sigma2_0 > 0.0 or time_eps > 0.0,
        "weighting 'll' is infinite at time-eps = 0 without noise there; "
        "give a time-eps above 0 or a sigma2-0 above 0",
    )
    if kind == "uniform":
        return Uniform(sde, time_eps)
    if kind != "is":
        raise ConfigError(f"unknown way to draw times '{kind}'; available: uniform, is")
    matched = sde.guide.proposals
    if weighting in matched:
        return PROPOSALS[matched[weighting]](sde.guide, time_eps)
    known = [name.value for name in Weighting if name in matched]
    there = f"it exists for {', '.join(known[:-1])} and {known[-1]}, and " if len(known) > 1 else ""
    raise ConfigError(
        f"there is no importance sampling for weighting '{weighting.value}' with the {type(sde).__name__}; "
        f"{there}times = uniform works with every weighting"
    )


def importance_weight(
    sde: SDE, weighting: Weighting, proposal: TimeProposal, t: Tensor, *, sigma_data: float = SIGMA_DATA
) -> Tensor:
    r"""lambda(t)/r(t), the weight of ||eps - eps_theta||^2 at a time drawn from r: float64, shape of t.

    .. math:: E_{t \sim r}[\mathrm{weight}(t) h(t)] = \int_{t_\epsilon}^1 \lambda(t) h(t) dt

    for any weighting under any proposal, so that one t can serve two objectives. Where the two match, the
    weight is a constant over Var(eps | z_t), which is 1 - sigma_t^2 for VP-like SDEs; appendix B.
    ``sigma_data`` is for the weighting edm alone.
    """
    integral = proposal.integral(weighting) if proposal.sde == sde else None
    if integral is not None:
        return integral / sde.unit_eps_var(t)
    return weighting.density(sde, t, sigma_data=sigma_data) / proposal.pdf(t)
