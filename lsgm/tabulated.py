"""The variance preserving SDE through a table of betas, as DDPMs are trained with (arXiv:2006.11239)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from lsgm.config import require
from lsgm.sde import BetaVP

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
class TabulatedVPSDE(BetaVP):
    r"""A continuous VP SDE that at t = n / N has the kernel of a DDPM after its first n of N steps.

    .. math:: B(n/N) = -\sum_{k \le n} \log(1 - \beta_k)

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

    def _cubics_on(self, device: torch.device) -> Tensor:
        # Kept there: a copy in every step is one that the host waits for.
        return self._copies.setdefault(device, self._cubics.to(device))

    @cached_property
    def _copies(self) -> dict[torch.device, Tensor]:
        return {}

    def _at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cubic of each t, [..., 4], and the place x in its interval."""
        place = t.double() * self.steps
        index = place.floor().clamp(0, self.steps - 1)
        return self._cubics_on(t.device)[index.long()], place - index

    def beta(self, t: Tensor) -> Tensor:
        """B'(t), in 1/time."""
        cubic, x = self._at(t)
        _, a, b, c = cubic.unbind(-1)
        return self.steps * (a + x * (2 * b + 3 * c * x))

    def beta_integral(self, t: Tensor) -> Tensor:
        """B(t) = -log alpha-bar."""
        return _cubic(*self._at(t))

    def inv_var(self, v: Tensor) -> Tensor:
        """B(t) = -log(1 - v) solved for t by bisection within its interval; v in [0, sigma_1^2]."""
        total = -torch.log1p(-v.double())
        cubics = self._cubics_on(v.device)
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
