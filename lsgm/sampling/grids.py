r"""Grids of times for fixed-step samplers, from t = 1 down: a choice separate from the solver.

Each is even in one coordinate of the diffusion, and each serves every SDE: where the coordinate is not t
itself its times are found by bisection, so that no SDE needs an inverse.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lsgm.config import require
from lsgm.errors import ConfigError, did_you_mean
from lsgm.sde import SDE

__all__ = [
    "GRIDS",
    "OPTIMISED",
    "edm_grid",
    "geometric_grid",
    "log_snr",
    "log_snr_grid",
    "make_grid",
    "quadratic_grid",
    "time_end_of",
    "times_at",
    "uniform_grid",
]

OPTIMISED = "optimised"
"""The grid that is made for a model: `lsgm.sampling.optimised_grid`."""


def time_end_of(sde: SDE, time_end: float | None = None) -> float:
    """Return the smallest time at which the model is asked: ``time_end``, or the SDE's own default.

    The default is 0 where there is noise at t = 0 and 1e-5 where there is none, since eps_theta / sigma_t is
    singular there. Raises ConfigError for a time outside [0, 1) or without noise.
    """
    noisy = _var(sde, 0.0) > 0
    if time_end is None:
        return 0.0 if noisy else 1e-5
    require(0 <= time_end < 1, f"time-end is {time_end}; it must lie in [0, 1)")
    require(
        _var(sde, time_end) > 0,
        f"time-end is {time_end}, where {type(sde).__name__} has no noise yet; give a time above 0, say 1e-5",
    )
    return time_end


def log_snr(sde: SDE, t: Tensor) -> Tensor:
    """Return log(m_t^2 / sigma_t^2), which falls with t under every SDE; float64, shape of t."""
    return 2 * sde.mean(t).log() - sde.var(t).log()


def times_at(coordinate: Callable[[Tensor], Tensor], target: Tensor, time_end: float) -> Tensor:
    """Return the times in [time_end, 1] at which a ``coordinate`` that grows with t reaches ``target``.

    By bisection; beyond either end it is that end. Float64, shape and device of ``target``.
    """
    low, high = torch.full_like(target, time_end, dtype=torch.float64), torch.ones_like(target).double()
    for _ in range(60):  # 2^-60: below the spacing of float64 on [1e-2, 1], and beyond need under that
        middle = 0.5 * (low + high)
        late = coordinate(middle) > target
        low, high = torch.where(late, low, middle), torch.where(late, middle, high)
    return 0.5 * (low + high)


def uniform_grid(sde: SDE, steps: int, time_end: float, rho: float = 7.0) -> Tensor:
    """Return steps + 1 times from 1 to ``time_end``, equally spaced in t."""
    return _exact(_even(1.0, time_end, steps), time_end)


def quadratic_grid(sde: SDE, steps: int, time_end: float, rho: float = 7.0) -> Tensor:
    """Return steps + 1 times from 1 to ``time_end``, equally spaced in sqrt(t) (arXiv:2010.02502, D.3)."""
    return _exact(_even(1.0, time_end**0.5, steps).square(), time_end)


def log_snr_grid(sde: SDE, steps: int, time_end: float, rho: float = 7.0) -> Tensor:
    """Return steps + 1 times from 1 to ``time_end``, equally spaced in log(m_t^2 / sigma_t^2)."""
    return _between(lambda t: -log_snr(sde, t), lambda first, last: _even(first, last, steps), time_end)


def geometric_grid(sde: SDE, steps: int, time_end: float, rho: float = 7.0) -> Tensor:
    """Return steps + 1 times from 1 to ``time_end``, equally spaced in log(sigma_t^2): a constant ratio.

    Under the sub-VP SDE with sigma2_0 > 0 the variance dips before it grows; every value above the one at
    ``time_end`` is still met once.
    """
    return _between(lambda t: sde.var(t).log(), lambda first, last: _even(first, last, steps), time_end)


def edm_grid(sde: SDE, steps: int, time_end: float, rho: float = 7.0) -> Tensor:
    """Return steps + 1 times from 1 to ``time_end``, equally spaced in (sigma_t / m_t)^(1 / rho).

    Equation 5 of arXiv:2206.00364, without its last step to 0; rho = 1 is even in s = sigma_t / m_t itself.
    """

    def levels(first: float, last: float) -> Tensor:
        return _even(math.exp(first / (2 * rho)), math.exp(last / (2 * rho)), steps).log() * (2 * rho)

    return _between(lambda t: -log_snr(sde, t), levels, time_end)


GRIDS: dict[str, Callable[[SDE, int, float, float], Tensor]] = {
    "uniform": uniform_grid,
    "quadratic": quadratic_grid,
    "logsnr": log_snr_grid,
    "edm": edm_grid,
    "geometric": geometric_grid,
}


def make_grid(sde: SDE, name: str, steps: int, time_end: float, rho: float = 7.0) -> Tensor:
    """Return the grid called ``name``: float64 [steps + 1], falling from 1; ``rho`` is edm's exponent.

    Raises ConfigError for an unknown name, and for ``optimised``, which no SDE alone determines.
    """
    require(
        name != OPTIMISED,
        f"the grid {OPTIMISED} is made for a model, not for an SDE; let `draw` make it or give its times",
    )
    if name not in GRIDS:
        names = (*GRIDS, OPTIMISED)
        raise ConfigError(f"unknown grid '{name}'{did_you_mean(name, names)}; available: {', '.join(names)}")
    return GRIDS[name](sde, steps, time_end, rho)


def _between(
    coordinate: Callable[[Tensor], Tensor], levels: Callable[[float, float], Tensor], time_end: float
) -> Tensor:
    """Return the times at which the coordinate takes ``levels`` of its values at 1 and at ``time_end``."""
    first, last = coordinate(torch.tensor([1.0, time_end], dtype=torch.float64)).tolist()
    return _exact(times_at(coordinate, levels(first, last), time_end), time_end)


def _even(first: float, last: float, steps: int) -> Tensor:
    return torch.linspace(first, last, steps + 1, dtype=torch.float64)


def _exact(times: Tensor, time_end: float) -> Tensor:
    times[0], times[-1] = 1.0, time_end
    return times


def _var(sde: SDE, t: float) -> float:
    return float(sde.var(torch.tensor(t, dtype=torch.float64)))
