"""The forward diffusion dz = f(t) z dt + g(t) dw for t in [0, 1] and what its Gaussian kernel implies."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lsgm.config import SDEConfig, require
from lsgm.errors import ConfigError, did_you_mean

__all__ = [
    "SDE",
    "VESDE",
    "VPSDE",
    "GeometricVPSDE",
    "LinearBeta",
    "Schedule",
    "SubVPSDE",
    "TabulatedVPSDE",
    "VPLike",
    "ddpm_betas",
    "make_sde",
]


class SDE(ABC):
    r"""A linear diffusion with kernel q(z_t | z_0) = N(m_t z_0, \sigma_t^2 I), arXiv:2106.05931 section 2.

    Every function of time takes a tensor t of any shape, dtype and device and returns float64 of that shape
    on that device. ``sigma2_0`` is the variance already present at t = 0; where unit variance is assumed of
    the latents, it is that of z at t = 0, noise included: Var(z_0) = 1 - sigma2_0.
    """

    is_vp_like: ClassVar[bool] = False
    """Whether g^2 = (d sigma_t^2/dt) / (1 - sigma_t^2), so that unit variance stays unit variance."""

    @property
    @abstractmethod
    def sigma2_0(self) -> float:
        """Variance already present at t = 0."""

    @property
    def prior_var(self) -> float:
        """Variance of the prior p(z_1) = N(0, prior_var I)."""
        return 1.0

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

    @abstractmethod
    def inv_var(self, v: Tensor) -> Tensor:
        """Time t at which sigma_t^2 = v. Raises NotImplementedError where there is no inverse."""

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


# The variance preserving SDE with a linear beta(t)


@dataclass(frozen=True)
class LinearBeta:
    """beta(t) = beta_start + (beta_end - beta_start) t and its integral B(t).

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

    def beta(self, t: Tensor) -> Tensor:
        """beta(t), in 1/time."""
        return self.beta_start + (self.beta_end - self.beta_start) * t.double()

    def beta_integral(self, t: Tensor) -> Tensor:
        """B(t) = integral of beta over [0, t]."""
        t = t.double()
        return t * (self.beta_start + 0.5 * (self.beta_end - self.beta_start) * t)

    def inv_beta_integral(self, total: Tensor) -> Tensor:
        """The t with B(t) = total, by the root formula that neither cancels at 0 nor needs beta to grow."""
        slope = self.beta_end - self.beta_start
        return 2.0 * total / (self.beta_start + (self.beta_start**2 + 2.0 * slope * total).sqrt())


@dataclass(frozen=True)
class VPSDE(LinearBeta, VPLike):
    r"""Variance preserving SDE (Song et al., arXiv:2011.13456; arXiv:2106.05931 appendix B).

    .. math:: f = -\beta/2, \; g^2 = \beta, \; \sigma_t^2 = 1 - (1-\sigma_0^2) e^{-B(t)}, \; m_t = e^{-B(t)/2}
    """

    def g2(self, t: Tensor) -> Tensor:
        """beta(t)."""
        return self.beta(t)

    def mean(self, t: Tensor) -> Tensor:
        """exp(-B/2)."""
        return (-0.5 * self.beta_integral(t)).exp()

    def var(self, t: Tensor) -> Tensor:
        """1 - (1 - sigma2_0) exp(-B), written so that nothing cancels near t = 0."""
        return self.sigma2_0 - (1.0 - self.sigma2_0) * torch.expm1(-self.beta_integral(t))

    def one_minus_var(self, t: Tensor) -> Tensor:
        """(1 - sigma2_0) exp(-B)."""
        return (1.0 - self.sigma2_0) * (-self.beta_integral(t)).exp()

    def dvar(self, t: Tensor) -> Tensor:
        """beta (1 - sigma_t^2)."""
        return self.beta(t) * self.one_minus_var(t)

    def inv_var(self, v: Tensor) -> Tensor:
        """B(t) = -log((1 - v) / (1 - sigma2_0)), solved for t; v in [sigma2_0, 1)."""
        excess = (v.double() - self.sigma2_0) / (1.0 - self.sigma2_0)
        return self.inv_beta_integral(-torch.log1p(-excess))


# The sub-VP SDE, whose variance never exceeds that of the VP SDE with the same beta(t)


@dataclass(frozen=True)
class SubVPSDE(LinearBeta, SDE):
    r"""Sub-variance preserving SDE (Song et al., arXiv:2011.13456), with E = exp(-B(t)).

    .. math:: f = -\beta/2, \; g^2 = \beta (1-E^2), \; \sigma_t^2 = (1-E)^2 + \sigma_0^2 E, \; m_t = \sqrt{E}

    With sigma2_0 > 0 the variance first falls, so it has no inverse; times are drawn for the VP SDE instead.
    """

    @cached_property
    def vp(self) -> VPSDE:
        """The VP SDE with the same beta and sigma2_0, whose variance lends itself to importance sampling."""
        return VPSDE(self.beta_start, self.beta_end, self.sigma2_0)

    def f(self, t: Tensor) -> Tensor:
        """-beta/2."""
        return -0.5 * self.beta(t)

    def g2(self, t: Tensor) -> Tensor:
        """beta (1 - E^2)."""
        return -self.beta(t) * torch.expm1(-2.0 * self.beta_integral(t))

    def mean(self, t: Tensor) -> Tensor:
        """exp(-B/2)."""
        return (-0.5 * self.beta_integral(t)).exp()

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

    def inv_var(self, v: Tensor) -> Tensor:
        """Not available: raises NotImplementedError."""
        raise NotImplementedError(
            "the variance of the sub-VP SDE has no inverse in general; use that of SubVPSDE.vp"
        )


# The variance exploding SDE with a geometric variance


@dataclass(frozen=True)
class VESDE(SDE):
    r"""Variance exploding SDE (arXiv:2011.13456; arXiv:2106.05931 appendix B), sigma2_0 = sigma2_min.

    .. math:: f = 0, \; g^2 = R \sigma_t^2, \; \sigma_t^2 = \sigma_{min}^2 e^{R t}, \; m_t = 1, \;
              R = \log(\sigma_{max}^2/\sigma_{min}^2)

    The prior at t = 1 is N(0, sigma2_max I), so sigma2_max should be the largest squared distance between two
    latents. Raises ConfigError for values out of range.
    """

    sigma2_min: float = 1e-4
    sigma2_max: float = 0.99

    def __post_init__(self) -> None:
        low, high = self.sigma2_min, self.sigma2_max
        require(0.0 < low < 1.0, f"sigma2-min is {low}; give a variance between 0 and 1")
        require(
            low < high < math.inf, f"sigma2-max is {high}; it must be finite and above sigma2-min = {low}"
        )

    @property
    def sigma2_0(self) -> float:
        """sigma2_min."""
        return self.sigma2_min

    @property
    def prior_var(self) -> float:
        """sigma2_max."""
        return self.sigma2_max

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


# The geometric VP SDE: variance preserving, with a variance that grows geometrically as in the VE SDE


@dataclass(frozen=True)
class GeometricVPSDE(VPLike):
    r"""Geometric VPSDE, arXiv:2106.05931 section 3.4 and appendix B, with S(t) = sigma2_min e^{R t}.

    .. math:: f = -g^2/2, \; g^2 = R S / (1 - \sigma_t^2), \; \sigma_t^2 = S - \sigma_{min}^2 + \sigma_0^2

    With sigma2_0 = sigma2_min, d log sigma_t^2/dt = R is constant, and uniform t is the optimal proposal of
    the likelihood weighting. Raises ConfigError for values out of range.
    """

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


# The variance preserving SDE through a table of betas, as DDPMs are trained with (arXiv:2006.11239)

Schedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
"""Even in beta (arXiv:2006.11239), even in its root (arXiv:2112.10752), a cosine (arXiv:2102.09672)."""

LARGEST_BETA = 0.999
"""Where the cosine schedule is cut off (arXiv:2102.09672, section 3.2)."""


def ddpm_betas(
    schedule: Schedule, steps: int = 1000, start: float = 1e-4, end: float = 0.02
) -> tuple[float, ...]:
    """Return the ``steps`` betas of a published schedule; the cosine has no use for ``start`` and ``end``.

    The cosine's are 1 - a((n + 1) / N) / a(n / N), at most 0.999, with
    a(t) = cos^2(pi/2 (t + 0.008) / 1.008). Raises ConfigError for no steps or betas outside of (0, 1).
    """
    require(steps >= 1, f"the schedule has {steps} steps; it needs at least 1")
    if schedule == "squaredcos_cap_v2":
        cosines = [math.cos(math.pi / 2 * (n / steps + 0.008) / 1.008) ** 2 for n in range(steps + 1)]
        return tuple(min(1 - cosines[n + 1] / cosines[n], LARGEST_BETA) for n in range(steps))
    require(0 < start <= end < 1, f"betas from {start} to {end} must lie between 0 and 1 and not fall")
    if schedule == "scaled_linear":
        return tuple(root**2 for root in _even(math.sqrt(start), math.sqrt(end), steps))
    return _even(start, end, steps)


@dataclass(frozen=True)
class TabulatedVPSDE(VPLike):
    r"""A continuous VP SDE that at t = n / N has the kernel of a DDPM after its first n of N steps.

    .. math:: \sigma_t^2 = 1 - e^{-B(t)}, \quad m_t = e^{-B(t)/2}, \quad g^2 = B'(t), \quad
              B(n/N) = -\sum_{k \le n} \log(1 - \beta_k)

    so that exp(-B) is alpha-bar, whose n-th value (counted from 0) belongs to t = (n + 1) / N, and t = 0 to
    the data. In between B is the cubic of Fritsch and Butland (SIAM J. Sci. Stat. Comput. 5, 1984), which
    never falls: beta(t) is continuous and above 0. Raises ConfigError for an empty table or a beta outside of
    (0, 1): with beta = 1 nothing of the data would be left, and the reverse process could not begin.
    """

    betas: tuple[float, ...]

    def __post_init__(self) -> None:
        require(len(self.betas) >= 1, "the table of betas is empty; give one beta for every training step")
        for n, beta in enumerate(self.betas):
            require(0 < beta < 1, f"beta {n} of the table is {beta}; every beta must lie between 0 and 1")

    @property
    def sigma2_0(self) -> float:
        """0."""
        return 0.0

    @property
    def steps(self) -> int:
        """N, the number of training times."""
        return len(self.betas)

    @cached_property
    def _cubics(self) -> Tensor:
        """Coefficients [N, 4] of B on each interval, as polynomials of x in [0, 1], constant first."""
        # On the CPU whatever the default device: networks are also built as shapes alone.
        rise = -torch.log1p(-torch.tensor(self.betas, dtype=torch.float64, device="cpu"))
        start = torch.cat([rise.new_zeros(1), rise.cumsum(0)[:-1]])
        slope = torch.empty_like(torch.cat([rise, rise[:1]]))
        slope[1:-1] = 2 * rise[:-1] * rise[1:] / (rise[:-1] + rise[1:])
        slope[0], slope[-1] = _end_slope(rise), _end_slope(rise.flip(0))
        left, right = slope[:-1], slope[1:]
        return torch.stack([start, left, 3 * rise - 2 * left - right, left + right - 2 * rise], dim=1)

    def _at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cubic of each t, [..., 4], and the place x in its interval."""
        place = t.double() * self.steps
        index = place.floor().clamp(0, self.steps - 1)
        return self._cubics.to(t.device)[index.long()], place - index

    def beta(self, t: Tensor) -> Tensor:
        """B'(t), in 1/time."""
        cubic, x = self._at(t)
        _, a, b, c = cubic.unbind(-1)
        return self.steps * (a + x * (2 * b + 3 * c * x))

    def beta_integral(self, t: Tensor) -> Tensor:
        """B(t) = -log alpha-bar."""
        return _cubic(*self._at(t))

    def g2(self, t: Tensor) -> Tensor:
        """beta(t)."""
        return self.beta(t)

    def mean(self, t: Tensor) -> Tensor:
        """exp(-B/2)."""
        return (-0.5 * self.beta_integral(t)).exp()

    def var(self, t: Tensor) -> Tensor:
        """1 - exp(-B), written so that nothing cancels near t = 0."""
        return -torch.expm1(-self.beta_integral(t))

    def one_minus_var(self, t: Tensor) -> Tensor:
        """exp(-B)."""
        return (-self.beta_integral(t)).exp()

    def dvar(self, t: Tensor) -> Tensor:
        """beta (1 - sigma_t^2)."""
        return self.beta(t) * self.one_minus_var(t)

    def inv_var(self, v: Tensor) -> Tensor:
        """B(t) = -log(1 - v) solved for t by bisection within its interval; v in [0, sigma_1^2]."""
        total = -torch.log1p(-v.double())
        cubics = self._cubics.to(v.device)
        index = torch.searchsorted(cubics[:, 0].contiguous(), total, right=True).sub(1).clamp(min=0)
        chosen = cubics[index]
        low, high = torch.zeros_like(total), torch.ones_like(total)
        for _ in range(60):  # 2^-60 of an interval: more than float64 keeps of t
            middle = 0.5 * (low + high)
            late = _cubic(chosen, middle) > total
            low, high = torch.where(late, low, middle), torch.where(late, middle, high)
        return (index + 0.5 * (low + high)) / self.steps


def _even(start: float, end: float, steps: int) -> tuple[float, ...]:
    return tuple(torch.linspace(start, end, steps, dtype=torch.float64, device="cpu").tolist())


def _end_slope(rise: Tensor) -> Tensor:
    """Return the slope at the left end by a parabola through three nodes, kept above 0 and monotone."""
    return (1.5 * rise[0] - 0.5 * rise[min(1, len(rise) - 1)]).clamp(0.5 * rise[0], 3 * rise[0])


def _cubic(cubic: Tensor, x: Tensor) -> Tensor:
    constant, a, b, c = cubic.unbind(-1)
    return constant + x * (a + x * (b + c * x))


# Forward diffusions: four linear SDEs with Gaussian kernels, and how a configuration names them


def make_sde(config: SDEConfig) -> SDE:
    """Build the SDE a configuration names; None there means the class's default.

    Raises ConfigError for an unknown kind, an option that the kind does not have, or a value out of range.
    """
    match config.kind:
        case "vp" | "subvp":
            return _make_linear(config)
        case "ve" | "geometric":
            return _make_geometric(config)
    kinds = ("vp", "subvp", "ve", "geometric")
    raise ConfigError(
        f"unknown SDE '{config.kind}'{did_you_mean(config.kind, kinds)}; available: {', '.join(kinds)}"
    )


def _make_linear(config: SDEConfig) -> SDE:
    for name, value in (("sigma2-min", config.sigma2_min), ("sigma2-max", config.sigma2_max)):
        require(
            value is None,
            f"{name} has no meaning for the {config.kind} SDE; leave it out or choose ve or geometric",
        )
    kind = VPSDE if config.kind == "vp" else SubVPSDE
    return kind(config.beta_start, config.beta_end, 0.0 if config.sigma2_0 is None else config.sigma2_0)


def _make_geometric(config: SDEConfig) -> SDE:
    kind = VESDE if config.kind == "ve" else GeometricVPSDE
    low = kind.sigma2_min if config.sigma2_min is None else config.sigma2_min
    require(
        config.sigma2_max != "data" or config.kind == "ve",
        'sigma2-max = "data" is for the ve SDE; give the geometric one a number below 1',
    )
    # Found from the data before the prior's first step (`ScoreModel.set_sigma2_max`).
    high = config.sigma2_max if isinstance(config.sigma2_max, float) else kind.sigma2_max
    start = low if config.sigma2_0 is None else config.sigma2_0
    if config.kind == "geometric":
        return GeometricVPSDE(low, high, start)
    require(
        start == low,
        f"sigma2-0 is {start}, but the ve SDE needs sigma2-0 = sigma2-min = {low}; leave sigma2-0 out",
    )
    return VESDE(low, high)
