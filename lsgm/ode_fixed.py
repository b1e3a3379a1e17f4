r"""Explicit Runge-Kutta steps over a grid of times that a batch shares: a cost that is known beforehand.

With slopes k_i = f(y + h c_i k_{i-1}, t + c_i h) a step is y + h \sum_i b_i k_i. Every method here needs
the slope before only, so that two rows of numbers are its whole tableau: Hairer, Norsett & Wanner, Solving
Ordinary Differential Equations I, section II.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lsgm.errors import ConfigError, did_you_mean
from lsgm.ode import Field, ODESolution, SolverError

__all__ = ["METHODS", "Method", "odeint_fixed"]


@dataclass(frozen=True)
class Method:
    """An explicit Runge-Kutta method whose stage i starts from stage i - 1: nodes c_i and weights b_i."""

    order: int
    nodes: tuple[float, ...]
    weights: tuple[float, ...]

    @property
    def stages(self) -> int:
        """Evaluations of the field per step."""
        return len(self.nodes)


METHODS = {
    "euler": Method(1, (0.0,), (1.0,)),
    "heun": Method(2, (0.0, 1.0), (1 / 2, 1 / 2)),
    "rk4": Method(4, (0.0, 1 / 2, 1 / 2, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}


@torch.no_grad()
def odeint_fixed(f: Field, y0: Tensor, times: Tensor, *, method: str) -> ODESolution:
    """Integrate dy/dt = f(y, t) from y(times[0]) = y0 through ``times`` [S + 1], rising or falling.

    The field, the dtypes and what is returned are those of `lsgm.ode.odeint`: the state keeps the dtype of
    ``y0``, times are float64, and the second entry of a pair is integrated with the same weights in float64.
    Every row takes S steps of ``METHODS[method].stages`` evaluations; none is rejected.

    Raises ConfigError for an unknown method, SolverError with the row and t where the field is not finite.
    """
    if method not in METHODS:
        hint = did_you_mean(method, METHODS)
        raise ConfigError(f"unknown solver '{method}'{hint}; there are {', '.join(METHODS)}")
    if y0.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"the state is {y0.dtype}; integrate in float32 or float64")
    chosen, y = METHODS[method], y0
    passenger: Tensor | None = None
    grid = [float(t) for t in times]
    for start, end in pairwise(grid if len(y0) else []):
        dy, dp = _step(f, y, start, end, chosen)
        y = y + dy
        if dp is not None:
            passenger = dp if passenger is None else passenger + dp
    steps = torch.full((len(y0),), len(grid) - 1, dtype=torch.int64, device=y0.device)
    return ODESolution(y, chosen.stages * steps, steps, torch.zeros_like(steps), passenger)


def _step(f: Field, y: Tensor, start: float, end: float, method: Method) -> tuple[Tensor, Tensor | None]:
    """Return the increments of the state and of the passenger over one step."""
    h = end - start
    rows = torch.arange(len(y), device=y.device)
    slope, moved = torch.zeros_like(y), torch.zeros_like(y)
    carried: Tensor | None = None
    for node, weight in zip(method.nodes, method.weights, strict=True):
        # The end itself, not start + h: rounding must not push a time past the end of the range.
        t = end if node == 1.0 else start + node * h
        point = torch.add(y, slope, alpha=node * h)
        out = f(point, torch.full((len(y),), t, dtype=torch.float64, device=y.device), rows)
        rate, extra = out if isinstance(out, tuple) else (out, None)
        slope = rate.to(y.dtype)
        _check(point, slope, extra, t)
        moved.add_(slope, alpha=weight * h)
        if extra is not None:
            part = extra.double() * (weight * h)
            carried = part if carried is None else carried + part
    return moved, carried


def _check(y: Tensor, slope: Tensor, extra: Tensor | None, t: float) -> None:
    """Raise SolverError for the first row whose slope, or whose passenger's, is not finite."""
    finite = slope.isfinite().flatten(1).all(dim=1)
    if extra is not None:
        finite = finite & extra.isfinite().reshape(len(extra), -1).all(dim=1)
    if bool(finite.all()):
        return
    row = int((~finite).nonzero()[0])
    what = "drift" if bool(y[row].isfinite().all()) else "state"
    raise SolverError(row, t, f"the {what} is not finite; check the weights or the input, or take more steps")
