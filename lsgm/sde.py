"""The forward diffusion dz = f(t) z dt + g(t) dw for t in [0, 1] and what its Gaussian kernel implies.

Everything that depends on which diffusion it is stands here, as an attribute or a method of its class: its
name in recipes, the grid of its samplers, the times of its densities, the proposals that match its training.
A package adds one by a subclass of `SDE`, or of `VPLike`, in the entry-point group ``lsgm.sdes``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from lsgm.config import SDEConfig, require
from lsgm.discovery import offers
from lsgm.errors import ConfigError, did_you_mean

Names = Mapping[str, str]


class SDE(ABC):
    r"""A linear diffusion with kernel q(z_t | z_0) = N(m_t z_0, \sigma_t^2 I), arXiv:2106.05931 section 2.

    Every function of time takes a tensor t of any shape, dtype and device and returns float64 of that shape
    on that device. ``sigma2_0`` is the variance already present at t = 0; where unit variance is assumed of
    the latents, it is that of z at t = 0, noise included: Var(z_0) = 1 - sigma2_0.
    """

    name: ClassVar[str] = ""
    """What recipes call it; empty where it is made of more than a recipe's numbers."""
    is_vp_like: ClassVar[bool] = False
    """Whether g^2 = (d sigma_t^2/dt) / (1 - sigma_t^2), so that unit variance stays unit variance."""
    grid: ClassVar[str] = "uniform"
    """The grid of `lsgm.sampling.grids` that suits its samplers."""
    proposals: ClassVar[Names] = {}
    """By weighting, the entry of `lsgm.times.PROPOSALS` in proportion to lambda(t) Var(eps | z_t)."""
    fits_data: ClassVar[bool] = False
    """Whether its largest variance may be found from the data (`with_largest`); weights then hold it."""

    @classmethod
    def of(cls, config: SDEConfig) -> Self:
        """Return the SDE of a recipe's numbers; ConfigError for one out of range or without meaning here."""
        raise ConfigError(f"{cls.__name__} is made of more than a recipe's numbers")

    @property
    @abstractmethod
    def sigma2_0(self) -> float:
        """Variance already present at t = 0."""

    @property
    def prior_var(self) -> float:
        """Variance of the prior p(z_1) = N(0, prior_var I)."""
        return 1.0

    @property
    def guide(self) -> SDE:
        """The SDE whose variance shapes the times that training draws by importance."""
        return self

    def with_largest(self, value: float) -> SDE:
        """Return the SDE with another largest variance. Raises ConfigError where it is not to be found."""
        raise ConfigError("only the ve SDE takes its sigma2-max from the data; give the others a number")

    def flow_times(self, steps: int, start: float) -> Tensor | None:
        """Return steps + 1 rising times of a density's fixed steps; None: those of the samplers' grid."""
        return None

    @abstractmethod
    def f(self, t: Tensor) -> Tensor:
        """Coefficient of the linear drift f(t) z, in 1/time; f = d ln m_t/dt."""

    @abstractmethod
    def g2(self, t: Tensor) -> Tensor:
        """Squared diffusion coefficient g(t)^2."""

    @abstractmethod
    def mean(self, t: Tensor) -> Tensor:
        """Coefficient m_t of z_0 in the mean of q(z_t | z_0)."""

    @abstractmethod
    def var(self, t: Tensor) -> Tensor:
        """Variance sigma_t^2 of q(z_t | z_0)."""

    @abstractmethod
    def dvar(self, t: Tensor) -> Tensor:
        """Time derivative of the variance: d sigma_t^2/dt = 2 f sigma_t^2 + g^2."""

    def inv_var(self, v: Tensor) -> Tensor:
        """Time t at which sigma_t^2 = v. Raises NotImplementedError where no inverse is known."""
        raise NotImplementedError(f"{type(self).__name__} has no inverse of its variance; its guide may")

    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation sigma_t of q(z_t | z_0)."""
        return self.var(t).sqrt()

    def one_minus_var(self, t: Tensor) -> Tensor:
        """1 - sigma_t^2, free of cancellation near t = 1 where the class knows a closed form."""
        return 1.0 - self.var(t)

    def marginal_var(self, t: Tensor) -> Tensor:
        """Variance of z_t when z at t = 0 has unit variance: m_t^2 (1 - sigma2_0) + sigma_t^2."""
        return (1.0 - self.sigma2_0) * self.mean(t).square() + self.var(t)

    def unit_eps_coef(self, t: Tensor) -> Tensor:
        """c(t) in E[eps | z_t] = c(t) z_t for Normal latents: the mixed score's Normal part, section 3.2."""
        return self.sigma(t) / self.marginal_var(t)

    def unit_eps_var(self, t: Tensor) -> Tensor:
        """Var(eps | z_t) per dimension for Normal latents: the smallest E(eps - eps_theta)^2, appendix B."""
        return (1.0 - self.sigma2_0) * self.mean(t).square() / self.marginal_var(t)

    @cached_property
    def _terminal(self) -> tuple[float, float]:
        """m_1^2 / prior_var and x - log(1 + x), where x = sigma_1^2 / prior_var - 1 is tiny."""
        one = torch.ones((), dtype=torch.float64)
        unit = self.prior_var == 1.0
        x = -self.one_minus_var(one).item() if unit else self.var(one).item() / self.prior_var - 1.0
        return self.mean(one).item() ** 2 / self.prior_var, x - math.log1p(x)

    def terminal_kl(self, z0: Tensor) -> Tensor:
        r"""KL(q(z_1 | z_0) || p(z_1)) in nats per dimension, float64, shape of z0.

        .. math:: \tfrac12 (m_1^2 z_0^2 + \sigma_1^2 - 1 - \log \sigma_1^2) \quad \text{for unit prior\_var}

        Theorem 1 of arXiv:2106.05931 assumes that it is 0; with it the cross entropy is exact.
        """
        signal, variance = self._terminal
        return 0.5 * (signal * z0.double().square() + variance)

    def log_prior(self, z1: Tensor) -> Tensor:
        """Log N(z1; 0, prior_var I) in nats, float64: [B, ...] -> [B]."""
        flat = z1.double().flatten(1)
        log_norm = flat.shape[1] * math.log(2.0 * math.pi * self.prior_var)
        return -0.5 * (flat.square().sum(dim=1) / self.prior_var + log_norm)

    def entropy_const(self, time_eps: float) -> float:
        """Entropy of q(z_t | z_0) at time_eps, nats per dimension: (1 + log(2 pi sigma_t^2)) / 2, Theorem 1.

        Raises ConfigError where the variance at time_eps is 0.
        """
        variance = self.var(torch.tensor(time_eps, dtype=torch.float64)).item()
        require(
            variance > 0.0,
            f"time-eps is {time_eps}, where there is no noise yet; give a time above 0 or a sigma2-0 above 0",
        )
        return 0.5 * (1.0 + math.log(2.0 * math.pi * variance))


class VPLike(SDE):
    """Diffusions that keep unit variance: g^2 = (d sigma_t^2/dt) / (1 - sigma_t^2), appendix B."""

    is_vp_like: ClassVar[bool] = True
    proposals: ClassVar[Names] = {"ll": "log-variance", "re": "variance", "edm": "lognormal"}

    def f(self, t: Tensor) -> Tensor:
        """-g^2/2: the drift that undoes the diffusion of a unit variance."""
        return -0.5 * self.g2(t)

    def mean(self, t: Tensor) -> Tensor:
        """m_t = sqrt((1 - sigma_t^2) / (1 - sigma2_0))."""
        return (self.one_minus_var(t) / (1.0 - self.sigma2_0)).sqrt()

    def marginal_var(self, t: Tensor) -> Tensor:
        """1 at all times."""
        return torch.ones_like(t, dtype=torch.float64)

    def unit_eps_coef(self, t: Tensor) -> Tensor:
        """c(t) = sigma_t."""
        return self.sigma(t)

    def unit_eps_var(self, t: Tensor) -> Tensor:
        """1 - sigma_t^2."""
        return self.one_minus_var(t)


class BetaSDE(SDE):
    """The SDEs of the drift f = -beta/2, by beta(t) and its integral B(t): m_t = exp(-B(t)/2)."""

    @abstractmethod
    def beta(self, t: Tensor) -> Tensor:
        """beta(t), in 1/time."""

    @abstractmethod
    def beta_integral(self, t: Tensor) -> Tensor:
        """B(t) = integral of beta over [0, t]."""

    def f(self, t: Tensor) -> Tensor:
        """-beta/2."""
        return -0.5 * self.beta(t)

    def mean(self, t: Tensor) -> Tensor:
        """exp(-B/2)."""
        return (-0.5 * self.beta_integral(t)).exp()


class BetaVP(BetaSDE, VPLike):
    r"""Variance preserving SDEs by beta(t) and its integral B(t), from the variance sigma2_0 on.

    .. math:: f = -\beta/2, \; g^2 = \beta, \; \sigma_t^2 = 1 - (1-\sigma_0^2) e^{-B(t)}, \; m_t = e^{-B(t)/2}
    """

    def g2(self, t: Tensor) -> Tensor:
        """beta(t)."""
        return self.beta(t)

    def var(self, t: Tensor) -> Tensor:
        """1 - (1 - sigma2_0) exp(-B), written so that nothing cancels near t = 0."""
        return self.sigma2_0 - (1.0 - self.sigma2_0) * torch.expm1(-self.beta_integral(t))

    def one_minus_var(self, t: Tensor) -> Tensor:
        """(1 - sigma2_0) exp(-B)."""
        return (1.0 - self.sigma2_0) * (-self.beta_integral(t)).exp()

    def dvar(self, t: Tensor) -> Tensor:
        """beta (1 - sigma_t^2)."""
        return self.beta(t) * self.one_minus_var(t)


@dataclass(frozen=True)
class LinearBeta(BetaSDE):
    """The SDEs of a linear beta(t) = beta_start + (beta_end - beta_start) t, with its integral B(t).

    Raises ConfigError for values out of range.
    """

    beta_start: float = 0.1
    beta_end: float = 20.0
    sigma2_0: float = 0.0

    def __post_init__(self) -> None:
        b0, b1 = self.beta_start, self.beta_end
        require(b0 > 0.0, f"beta-start is {b0}; it must be above 0")
        require(b1 >= b0, f"beta-end is {b1}; it must be at least beta-start = {b0}")
        # Beyond this 1 - sigma_1^2 = exp(-B(1)) is lost in the rounding of sigma_1^2 itself.
        require(b0 + b1 <= 60.0, f"beta-start + beta-end is {b0 + b1}; give betas that sum to at most 60")
        require(0.0 <= self.sigma2_0 < 1.0, f"sigma2-0 is {self.sigma2_0}; give a variance in [0, 1)")

    @classmethod
    def of(cls, config: SDEConfig) -> Self:
        """Return the SDE with the recipe's betas; without its sigma2-0, from 0 on."""
        for name, value in (("sigma2-min", config.sigma2_min), ("sigma2-max", config.sigma2_max)):
            require(
                value is None,
                f"{name} has no meaning for the {config.kind} SDE; leave it out or choose ve or geometric",
            )
        return cls(config.beta_start, config.beta_end, 0.0 if config.sigma2_0 is None else config.sigma2_0)

    def flow_times(self, steps: int, start: float) -> Tensor:
        """Return times even in u = sqrt(t): Heun and RK4 are ten and four times more accurate than even in t.

        There the velocity 2 u dz/dt stays smooth where dz/dt grows as sigma_t^-1 ~ t^-1/2, and half of the
        steps lie below t = 1/4, where data keep their shape. (The factors are those of Gaussian worlds.)
        """
        times = torch.linspace(start**0.5, 1.0, steps + 1, dtype=torch.float64).square()
        times[0] = start
        return times

    def beta(self, t: Tensor) -> Tensor:
        """beta(t), in 1/time."""
        return self.beta_start + (self.beta_end - self.beta_start) * t.double()

    def beta_integral(self, t: Tensor) -> Tensor:
        """B(t) = integral of beta over [0, t]."""
        t = t.double()
        return t * (self.beta_start + 0.5 * (self.beta_end - self.beta_start) * t)


@dataclass(frozen=True)
class VPSDE(LinearBeta, BetaVP):
    """Variance preserving SDE (Song et al., arXiv:2011.13456; arXiv:2106.05931 appendix B): `BetaVP`."""

    name: ClassVar[str] = "vp"
    proposals: ClassVar[Names] = {**VPLike.proposals, "un": "truncated-normal"}

    def inv_var(self, v: Tensor) -> Tensor:
        """B(t) = -log((1 - v) / (1 - sigma2_0)), solved for t; v in [sigma2_0, 1)."""
        excess = (v.double() - self.sigma2_0) / (1.0 - self.sigma2_0)
        total, slope = -torch.log1p(-excess), self.beta_end - self.beta_start
        # The root formula that neither cancels at 0 nor needs beta to grow.
        return 2.0 * total / (self.beta_start + (self.beta_start**2 + 2.0 * slope * total).sqrt())


@dataclass(frozen=True)
class SubVPSDE(LinearBeta):
    r"""Sub-variance preserving SDE (Song et al., arXiv:2011.13456), with E = exp(-B(t)).

    .. math:: f = -\beta/2, \; g^2 = \beta (1-E^2), \; \sigma_t^2 = (1-E)^2 + \sigma_0^2 E, \; m_t = \sqrt{E}

    Its variance never exceeds that of the VP SDE. With sigma2_0 > 0 it first falls, so that it has no
    inverse; times are drawn for the VP SDE instead, for which its own weights stay exact.
    """

    name: ClassVar[str] = "subvp"

    @cached_property
    def guide(self) -> VPSDE:
        """The VP SDE with the same beta and sigma2_0, whose variance lends itself to importance sampling."""
        return VPSDE(self.beta_start, self.beta_end, self.sigma2_0)

    def g2(self, t: Tensor) -> Tensor:
        """beta (1 - E^2)."""
        return -self.beta(t) * torch.expm1(-2.0 * self.beta_integral(t))

    def var(self, t: Tensor) -> Tensor:
        """(1 - E)^2 + sigma2_0 E."""
        total = self.beta_integral(t)
        return torch.expm1(-total).square() + self.sigma2_0 * (-total).exp()

    def one_minus_var(self, t: Tensor) -> Tensor:
        """E (2 - E - sigma2_0)."""
        decay = (-self.beta_integral(t)).exp()
        return decay * (2.0 - decay - self.sigma2_0)

    def dvar(self, t: Tensor) -> Tensor:
        """beta E (2 (1 - E) - sigma2_0)."""
        total = self.beta_integral(t)
        return self.beta(t) * (-total).exp() * (-2.0 * torch.expm1(-total) - self.sigma2_0)


@dataclass(frozen=True)
class VESDE(SDE):
    r"""Variance exploding SDE (arXiv:2011.13456; arXiv:2106.05931 appendix B), sigma2_0 = sigma2_min.

    .. math:: f = 0, \; g^2 = R \sigma_t^2, \; \sigma_t^2 = \sigma_{min}^2 e^{R t}, \; m_t = 1, \;
              R = \log(\sigma_{max}^2/\sigma_{min}^2)

    The prior at t = 1 is N(0, sigma2_max I), so sigma2_max should be the largest squared distance between two
    latents. Raises ConfigError for values out of range.
    """

    name: ClassVar[str] = "ve"
    fits_data: ClassVar[bool] = True
    proposals: ClassVar[Names] = {"ll": "share", "un": "share", "re": "marginal", "edm": "lognormal"}

    sigma2_min: float = 1e-4
    sigma2_max: float = 0.99

    def __post_init__(self) -> None:
        low, high = self.sigma2_min, self.sigma2_max
        require(0.0 < low < 1.0, f"sigma2-min is {low}; give a variance between 0 and 1")
        require(
            low < high < math.inf, f"sigma2-max is {high}; it must be finite and above sigma2-min = {low}"
        )

    @classmethod
    def of(cls, config: SDEConfig) -> Self:
        """Return the SDE with the recipe's variances; the largest may still be found from the data."""
        low = cls.sigma2_min if config.sigma2_min is None else config.sigma2_min
        start = low if config.sigma2_0 is None else config.sigma2_0
        require(
            start == low,
            f"sigma2-0 is {start}, but the ve SDE needs sigma2-0 = sigma2-min = {low}; leave sigma2-0 out",
        )
        return cls(low, config.sigma2_max if isinstance(config.sigma2_max, float) else cls.sigma2_max)

    @property
    def sigma2_0(self) -> float:
        """sigma2_min."""
        return self.sigma2_min

    @property
    def prior_var(self) -> float:
        """sigma2_max."""
        return self.sigma2_max

    def with_largest(self, value: float) -> VESDE:
        """Return the SDE with another sigma2_max."""
        return replace(self, sigma2_max=value)

    @cached_property
    def log_ratio(self) -> float:
        """R = log(sigma2_max / sigma2_min), the constant d log sigma_t^2/dt."""
        return math.log(self.sigma2_max / self.sigma2_min)

    def f(self, t: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(t, dtype=torch.float64)

    def g2(self, t: Tensor) -> Tensor:
        """R sigma_t^2."""
        return self.log_ratio * self.var(t)

    def mean(self, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t, dtype=torch.float64)

    def var(self, t: Tensor) -> Tensor:
        """sigma2_min exp(R t)."""
        return self.sigma2_min * (self.log_ratio * t.double()).exp()

    def dvar(self, t: Tensor) -> Tensor:
        """R sigma_t^2."""
        return self.g2(t)

    def inv_var(self, v: Tensor) -> Tensor:
        """log(v / sigma2_min) / R."""
        return (v.double() / self.sigma2_min).log() / self.log_ratio

    def marginal_var(self, t: Tensor) -> Tensor:
        """N(t) = 1 - sigma2_min + sigma_t^2."""
        return 1.0 + self.sigma2_min * torch.expm1(self.log_ratio * t.double())


@dataclass(frozen=True)
class GeometricVPSDE(VPLike):
    r"""Geometric VPSDE, arXiv:2106.05931 section 3.4 and appendix B, with S(t) = sigma2_min e^{R t}.

    .. math:: f = -g^2/2, \; g^2 = R S / (1 - \sigma_t^2), \; \sigma_t^2 = S - \sigma_{min}^2 + \sigma_0^2

    With sigma2_0 = sigma2_min, d log sigma_t^2/dt = R is constant as with the VE SDE, and uniform t is the
    optimal proposal of the likelihood weighting. As 1 - sigma_t^2 falls by orders of magnitude in the last
    instants before t = 1, twenty Heun steps even in t miss a Gaussian by two sigmas. Raises ConfigError for
    values out of range.
    """

    name: ClassVar[str] = "geometric"
    grid: ClassVar[str] = "logsnr"

    sigma2_min: float = 3e-5
    sigma2_max: float = 0.999
    sigma2_0: float = 3e-5

    def __post_init__(self) -> None:
        low, high, start = self.sigma2_min, self.sigma2_max, self.sigma2_0
        require(0.0 < low < 1.0, f"sigma2-min is {low}; give a variance between 0 and 1")
        require(low < high < 1.0, f"sigma2-max is {high}; give a variance between sigma2-min = {low} and 1")
        require(0.0 <= start < 1.0, f"sigma2-0 is {start}; give a variance in [0, 1)")
        require(
            self._terminal_rest > 0.0,
            f"the variance at t = 1, sigma2-max - sigma2-min + sigma2-0, is {high - low + start}; "
            "it must be below 1, so lower sigma2-0 or sigma2-max",
        )

    @classmethod
    def of(cls, config: SDEConfig) -> Self:
        """Return the SDE with the recipe's variances; sigma2-0 is sigma2-min where it is left out."""
        low = cls.sigma2_min if config.sigma2_min is None else config.sigma2_min
        high = cls.sigma2_max if config.sigma2_max is None else config.sigma2_max
        if high == "data":
            raise ConfigError(
                'sigma2-max = "data" is for the ve SDE; give the geometric one a number below 1'
            )
        return cls(low, high, low if config.sigma2_0 is None else config.sigma2_0)

    @cached_property
    def log_ratio(self) -> float:
        """R = log(sigma2_max / sigma2_min)."""
        return math.log(self.sigma2_max / self.sigma2_min)

    @cached_property
    def _terminal_rest(self) -> float:
        """1 - sigma_1^2."""
        return (1.0 - self.sigma2_max) + (self.sigma2_min - self.sigma2_0)

    def g2(self, t: Tensor) -> Tensor:
        """R S / (1 - sigma_t^2)."""
        return self.dvar(t) / self.one_minus_var(t)

    def var(self, t: Tensor) -> Tensor:
        """S - sigma2_min + sigma2_0."""
        return self.sigma2_0 + self.sigma2_min * torch.expm1(self.log_ratio * t.double())

    def one_minus_var(self, t: Tensor) -> Tensor:
        """1 - sigma_t^2 as (1 - sigma_1^2) + (sigma_1^2 - sigma_t^2), so that nothing cancels near t = 1."""
        return self._terminal_rest - self.sigma2_max * torch.expm1(self.log_ratio * (t.double() - 1.0))

    def dvar(self, t: Tensor) -> Tensor:
        """R S."""
        return (self.log_ratio * self.sigma2_min) * (self.log_ratio * t.double()).exp()

    def inv_var(self, v: Tensor) -> Tensor:
        """log((v + sigma2_min - sigma2_0) / sigma2_min) / R."""
        return torch.log1p((v.double() - self.sigma2_0) / self.sigma2_min) / self.log_ratio


OWN = {kind.name: kind for kind in (VPSDE, SubVPSDE, VESDE, GeometricVPSDE)}


def make_sde(config: SDEConfig) -> SDE:
    """Build the SDE that a configuration names: one of the house, or of a package that offers one.

    Raises ConfigError for an unknown kind, an option that the kind does not have, or a value out of range.
    """
    if config.kind in OWN:
        return OWN[config.kind].of(config)
    others = offers("lsgm.sdes")
    if config.kind not in others:
        names = (*OWN, *others)
        hint = did_you_mean(config.kind, names)
        raise ConfigError(f"unknown SDE '{config.kind}'{hint}; available: {', '.join(names)}")
    kind: type[SDE] = others[config.kind].load()
    return kind.of(config)
