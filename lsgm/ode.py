r"""Initial value problems for batches: adaptive steps of each sample's own, or one grid for all.

`odeint` is Dormand-Prince 5(4). A solver that shares one step size over a batch makes the cost of a sample
depend on its batch mates. Here each row has its own time, step size and accept-or-reject decision, and rows
that have arrived leave the batch, so that a sample takes the steps it would take alone. `odeint_fixed` takes
explicit Runge-Kutta steps over times that a batch shares, at a cost that is known beforehand.

Tableau: Dormand & Prince (1980), J. Comput. Appl. Math. 6:19. Step control and first step: Hairer, Norsett &
Wanner, Solving Ordinary Differential Equations I, section II.4, with the constants that SciPy's RK45 uses, so
that a batch of one takes SciPy's steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsgm.config import require
from lsgm.errors import ConfigError, UserError, did_you_mean

Field = Callable[[Tensor, Tensor, Tensor], Tensor | tuple[Tensor, Tensor]]
"""``f(y[A, ...], t[A], rows[A]) -> dy/dt`` or ``(dy/dt, dpassenger/dt)`` of the A rows still on their way."""

Floats = NDArray[np.float64]

_STAGES = (
    (1 / 5, (1 / 5,)),
    (3 / 10, (3 / 40, 9 / 40)),
    (4 / 5, (44 / 45, -56 / 15, 32 / 9)),
    (8 / 9, (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729)),
    (1.0, (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656)),
)
_NODES = np.array([node for node, _ in _STAGES])[:, None]
_FIFTH = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
_ERROR = (-71 / 57600, 0.0, 71 / 16695, -71 / 1920, 17253 / 339200, -22 / 525, 1 / 40)
_SAFETY, _SHRINK, _GROW, _EXPONENT = 0.9, 0.2, 10.0, -1 / 5
_FIRST_ERROR = 1e-4
"""What stands for the error before the first step's, and for smaller ones (Hairer's dopri5.f)."""


class SolverError(UserError):
    """A sample whose integration cannot go on: its ``row`` in the batch, the ``t`` it had reached and why."""

    def __init__(self, row: int, t: float, reason: str) -> None:
        super().__init__(f"sample {row} stopped at t = {t:.6g}: {reason}")
        self.row, self.t, self.reason = int(row), float(t), reason


@dataclass(frozen=True)
class ODESolution:
    """Where each sample arrived and what it cost.

    ``y`` is the state at t1, ``nfe`` the evaluations of the field per sample, ``accepted`` and ``rejected``
    its steps (int64 [B]); ``passenger`` is the integral of the field's second output (float64), else None.
    """

    y: Tensor
    nfe: Tensor
    accepted: Tensor
    rejected: Tensor
    passenger: Tensor | None


@torch.no_grad()
def odeint(
    f: Field,
    y0: Tensor,
    t0: float,
    t1: float,
    *,
    rtol: float,
    atol: float,
    passenger_atol: float | None = None,
    max_steps: int = 10_000,
    first_step: float | None = None,
    damping: float = 0.0,
) -> ODESolution:
    """Integrate dy/dt = f(y, t) from y(t0) = y0 to t1, in either direction of time, one step size per sample.

    The state has the dtype of ``y0`` (float32 or float64); times and step sizes are float64. A step is
    accepted where the RMS over the sample's dimensions of error / (atol + rtol |y|) is below 1. The cost of a
    sample is 2 + 6 (accepted + rejected) evaluations, one fewer where ``first_step`` is given. If the field
    returns a pair, its second entry, [A] or [A, P], is integrated with the same weights in float64. It has no
    say in the steps unless ``passenger_atol`` is given: then the error of its mean over P, divided by
    ``passenger_atol``, must be below 1 as well. The larger of the two norms decides: one entry among the
    state's many would be diluted by their number.

    ``damping`` b has a step's size follow the error before too, in proportion to e_k^(-1/5 + 3b/4) e_{k-1}^b:
    0.04 makes of the usual control a proportional-integral one (Hairer & Wanner, Solving Ordinary
    Differential Equations II, section IV.2), of fewer rejected steps.

    Raises ConfigError for tolerances below the spacing of the state's numbers, and SolverError (a UserError),
    with the row and t, where the field is not finite, where the tolerance asks for steps below the spacing of
    floating-point times, and after ``max_steps`` attempts.
    """
    walk = _Walk(f, y0, float(t0), float(t1), rtol, atol, passenger_atol, damping)
    if walk.rows.size and t0 != t1:
        walk.start(first_step)
        while walk.rows.size:
            walk.attempt(max_steps)
    return walk.solution()


class _Walk:
    """The rows still on their way: states on the device, clocks on the host, one exchange of them a step.

    A field without a passenger has one of no numbers, [A, 0].
    """

    def __init__(
        self,
        f: Field,
        y0: Tensor,
        t0: float,
        t1: float,
        rtol: float,
        atol: float,
        passenger_atol: float | None,
        damping: float,
    ) -> None:
        _require_float(y0)
        spacing = torch.finfo(y0.dtype).eps
        # Below it an error norm is rounding noise, and steps would shrink until max_steps ends them.
        require(
            rtol + atol >= spacing,
            f"rtol {rtol:g} and atol {atol:g} are below the spacing of {str(y0.dtype)[6:]} numbers, "
            f"{spacing:.1g}; loosen them",
        )
        require(
            passenger_atol is None or passenger_atol > 0,
            f"passenger_atol is {passenger_atol}; it must be above 0",
        )
        batch = len(y0)
        self.f, self.t1, self.rtol, self.atol, self.passenger_atol = f, t1, rtol, atol, passenger_atol
        self.sign = 1.0 if t1 >= t0 else -1.0
        self.y, self.live = y0, torch.arange(batch, device=y0.device)
        self.y_end, self.passenger_end = y0.clone(), _no_passenger(y0)
        self.rows = np.arange(batch)
        self.t, self.h = np.full(batch, t0), np.zeros(batch)
        self.retry = np.zeros(batch, dtype=bool)
        self.damping, self.before = damping, np.full(batch, _FIRST_ERROR)
        self.accepted, self.rejected = np.zeros(batch, np.int64), np.zeros(batch, np.int64)
        self.setup_nfe = 0

    def start(self, first_step: float | None) -> None:
        """Evaluate the field at t0 and choose the first step of every row (Hairer et al., section II.4)."""
        self.k1, self.p1 = self._field(self.y, self._upload(self.t))
        self.passenger, self.passenger_end = torch.zeros_like(self.p1), torch.zeros_like(self.p1)
        scale = self.y.abs().mul_(self.rtol).add_(self.atol)
        d0, d1 = _host(_rms(self.y / scale)), self._norm(self.k1 / scale, self.p1)
        bad = np.flatnonzero(~np.isfinite(d0 + d1))
        if bad.size:
            what = "drift" if np.isfinite(d0[bad[0]]) else "initial state"
            raise SolverError(
                bad[0], self.t[bad[0]], f"the {what} is not finite; check the weights or the input"
            )
        length = abs(self.t1 - self.t[0])
        self.setup_nfe = 1 if first_step else 2
        if first_step:
            self.h = np.minimum(np.full_like(self.t, first_step), length)
            return
        flat = (d0 < 1e-5) | (d1 < 1e-5)
        h0 = np.minimum(np.where(flat, 1e-6, 0.01 * d0 / np.where(flat, 1.0, d1)), length)
        y1 = self.y + _rowwise(self._upload(h0 * self.sign).to(self.y.dtype), self.y) * self.k1
        f1, rate = self._field(y1, self._upload(self.t + self.sign * h0))
        d2 = self._norm((f1 - self.k1) / scale, rate - self.p1) / h0
        steep = np.fmax(np.fmax(d1, d2), 1e-300)
        h1 = np.where((d1 <= 1e-15) & (d2 <= 1e-15), np.maximum(1e-6, h0 * 1e-3), (0.01 / steep) ** 0.2)
        self.h = np.minimum(np.minimum(100 * h0, np.where(np.isfinite(d2), h1, h0)), length)

    def attempt(self, max_steps: int) -> None:
        """Try one step of every row: six evaluations, then each row accepts or rejects for itself."""
        t_new, h = self._next_times(max_steps)
        steps = self._upload(h)
        column = _rowwise(steps.to(self.y.dtype), self.y)
        nodes = self._upload(np.concatenate([self.t + _NODES[:-1] * h, t_new[None]]))
        k, p = [self.k1], [self.p1]
        for (_, weights), t in zip(_STAGES, nodes, strict=True):
            dy, dp = self._field(torch.addcmul(self.y, column, _combine(weights, k)), t)
            k.append(dy)
            p.append(dp)
        y_new = torch.addcmul(self.y, column, _combine(_FIFTH, k))
        dy, dp = self._field(y_new, nodes[-1])
        k.append(dy)
        p.append(dp)
        scale = torch.maximum(self.y.abs(), y_new.abs()).mul_(self.rtol).add_(self.atol)
        long = _rowwise(steps, self.passenger)
        error = self._norm(_combine(_ERROR, k).mul_(column).div_(scale), _combine(_ERROR, p).mul_(long))
        good = self._control(error, t_new, h)
        # Move the accepting rows: the last evaluation of a step is the first of the next.
        mask = torch.from_numpy(good).to(self.y.device)
        wide = _rowwise(mask, self.y)
        self.y, self.k1 = torch.where(wide, y_new, self.y), torch.where(wide, dy, self.k1)
        wide = _rowwise(mask, self.passenger)
        moved = self.passenger + long * _combine(_FIFTH, p)
        self.passenger, self.p1 = torch.where(wide, moved, self.passenger), torch.where(wide, dp, self.p1)
        self._retire(good & (self.t == self.t1))

    def _norm(self, scaled: Tensor, passenger: Tensor) -> Floats:
        """Return the norm [A] of what moves the state, in units of its tolerance, and of the passenger's."""
        norm = _rms(scaled)
        if passenger.numel() and self.passenger_atol is not None:
            part = passenger.reshape(len(passenger), -1).mean(dim=1).abs() / self.passenger_atol
            norm = torch.maximum(norm, part)  # nan where one of them is
        return _host(norm)

    def _next_times(self, max_steps: int) -> tuple[Floats, Floats]:
        """Return where each row's step would end (t1 at most) and the signed step."""
        attempts = self.accepted[self.rows[0]] + self.rejected[self.rows[0]]  # the same for every live row
        if attempts >= max_steps:
            raise SolverError(
                self.rows[0], self.t[0], f"{max_steps} steps were not enough; loosen rtol and atol"
            )
        smallest = 10 * np.abs(np.nextafter(self.t, self.sign * np.inf) - self.t)
        stuck = np.flatnonzero(self.retry & (self.h < smallest))
        if stuck.size:
            reason = (
                f"rtol {self.rtol:g} and atol {self.atol:g} cannot be met there, or the drift is not finite; "
                "loosen the tolerances or move the end of the time range"
            )
            raise SolverError(self.rows[stuck[0]], self.t[stuck[0]], reason)
        t_new = self.t + self.sign * np.maximum(self.h, smallest)
        t_new = np.where(self.sign * (t_new - self.t1) > 0, self.t1, t_new)
        return t_new, t_new - self.t

    def _control(self, error: Floats, t_new: Floats, h: Floats) -> NDArray[np.bool_]:
        """Set the next step sizes from the error norms and return which rows accept theirs."""
        good = error < 1
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = _SAFETY * error**_EXPONENT
            if self.damping:
                damped = _SAFETY * error ** (_EXPONENT + 0.75 * self.damping) * self.before**self.damping
                factor = np.where(good, damped, factor)
                self.before = np.where(good, np.maximum(error, _FIRST_ERROR), self.before)
        # A trial step into overflow has error inf or nan: fmax turns that into the strongest reduction.
        most = np.where(self.retry, 1.0, _GROW)
        self.h = np.abs(h) * np.where(good, np.minimum(most, factor), np.fmax(_SHRINK, factor))
        self.t = np.where(good, t_new, self.t)
        self.retry = ~good
        self.accepted[self.rows] += good
        self.rejected[self.rows] += ~good
        return good

    def _retire(self, done: NDArray[np.bool_]) -> None:
        """Store the rows that have arrived and keep the others."""
        if not done.any():
            return
        out = torch.from_numpy(np.flatnonzero(done)).to(self.y.device)
        stay = torch.from_numpy(np.flatnonzero(~done)).to(self.y.device)
        self.y_end[self.live[out]] = self.y[out]
        self.passenger_end[self.live[out]] = self.passenger[out]
        self.y, self.k1, self.live = self.y[stay], self.k1[stay], self.live[stay]
        self.passenger, self.p1 = self.passenger[stay], self.p1[stay]
        self.rows, self.t = self.rows[~done], self.t[~done]
        self.h, self.retry, self.before = self.h[~done], self.retry[~done], self.before[~done]

    def solution(self) -> ODESolution:
        """Return the end states and the costs, on the device of the state."""
        calls = self.setup_nfe + 6 * (self.accepted + self.rejected)
        nfe, accepted, rejected = (self._upload(count) for count in (calls, self.accepted, self.rejected))
        passenger = self.passenger_end if self.passenger_end.numel() else None
        return ODESolution(self.y_end, nfe, accepted, rejected, passenger)

    def _field(self, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return _evaluate(self.f, y, t, self.live)

    def _upload(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(self.y_end.device)


def _require_float(y: Tensor) -> None:
    if y.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"the state is {y.dtype}; integrate in float32 or float64")


def _no_passenger(y: Tensor) -> Tensor:
    return y.new_empty(len(y), 0, dtype=torch.float64)


def _evaluate(f: Field, y: Tensor, t: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the state's slope in its own dtype, and the passenger's, float64."""
    out = f(y, t, rows)
    rate, extra = out if isinstance(out, tuple) else (out, _no_passenger(y))
    # float64 times promote a float32 slope.
    return rate.to(y.dtype), extra.double()


def _rowwise(values: Tensor, like: Tensor) -> Tensor:
    """Reshape [A] so that it broadcasts over the rows of ``like``."""
    return values.view(-1, *[1] * (like.dim() - 1))


def _combine(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """Return sum_j weights[j] slopes[j], elementwise, so that no row feels another (a GEMM might)."""
    total = slopes[0] * weights[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=False):
        if weight:
            total.add_(slope, alpha=weight)
    return total


def _rms(x: Tensor) -> Tensor:
    """Return the root mean square over all dimensions but the first, [A], in float64: float32 would overflow.

    A lone row is doubled: torch splits the sum over a lone row among its threads, which would give another
    rounding, and now and then another step, than the same row has in company.
    """
    flat = x.reshape(len(x), -1).double()
    pair = flat.expand(2, -1) if len(flat) == 1 else flat
    return pair.square().mean(dim=1).sqrt()[: len(flat)]


def _host(values: Tensor) -> NDArray[Any]:
    return values.cpu().numpy()


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
    _require_float(y0)
    chosen, y = METHODS[method], y0
    passenger: Tensor | float = 0.0
    grid, rows = times.tolist(), torch.arange(len(y0), device=y0.device)
    watch = _Watch(rows)
    for start, end in pairwise(grid if len(y0) else []):
        h = end - start
        slope, moved = torch.zeros_like(y), torch.zeros_like(y)
        carried: Tensor | float = 0.0
        for node, weight in zip(chosen.nodes, chosen.weights, strict=True):
            # The end itself, not start + h: rounding must not push a time past the end of the range.
            t = end if node == 1.0 else start + node * h
            point = torch.add(y, slope, alpha=node * h)
            slope, extra = _evaluate(f, point, torch.full_like(rows, t, dtype=torch.float64), rows)
            watch.see(point, slope, extra, t)
            moved.add_(slope, alpha=weight * h)
            carried = carried + extra * (weight * h)
        y, passenger = y + moved, passenger + carried
    watch.end()
    steps = torch.full_like(rows, len(grid) - 1)
    total = passenger if isinstance(passenger, Tensor) and passenger.numel() else None
    return ODESolution(y, chosen.stages * steps, steps, torch.zeros_like(steps), total)


class _Watch:
    """Notes the first time at which each row's slope, or its passenger's, was not finite.

    It is asked at the end: a question at every evaluation would let the host wait for the device each time.
    """

    def __init__(self, rows: Tensor) -> None:
        self._first = torch.full_like(rows, -1)
        self._lost = torch.zeros_like(rows, dtype=torch.bool)
        self._times: list[float] = []

    def see(self, y: Tensor, slope: Tensor, extra: Tensor, t: float) -> None:
        """Look at one evaluation."""
        finite = slope.isfinite().flatten(1).all(dim=1) & extra.isfinite()[..., None].flatten(1).all(dim=1)
        fresh = ~finite & (self._first < 0)
        self._first = torch.where(fresh, len(self._times), self._first)
        self._lost |= fresh & ~y.isfinite().flatten(1).all(dim=1)
        self._times.append(t)

    def end(self) -> None:
        """Raise SolverError for the first row of the earliest evaluation that was not finite."""
        found = [(index, row) for row, index in enumerate(self._first.tolist()) if index >= 0]
        if not found:
            return
        index, row = min(found)
        what = "state" if bool(self._lost[row]) else "drift"
        why = f"the {what} is not finite; check the weights or the input, or take more steps"
        raise SolverError(row, self._times[index], why)
