"""Fixed-step Runge-Kutta: the order of each method, its passenger, its costs, and what it says when stuck."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lsgm.errors import ConfigError
from lsgm.ode import METHODS, SolverError, odeint, odeint_fixed


def grid(steps: int, start: float = 0.0, end: float = 1.0) -> Tensor:
    return torch.linspace(start, end, steps + 1, dtype=torch.float64)


def pendulum(y: Tensor, t: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """A nonlinear, non-autonomous field, and a passenger that rides on its state."""
    angle, speed = y[:, 0], y[:, 1]
    return torch.stack([speed, -angle.sin() + t.to(y.dtype)], dim=1), (angle * speed)[:, None]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reverse", [False, True])
def test_halving_the_step_divides_the_error_by_two_to_the_order(method: str, reverse: bool) -> None:
    y0 = torch.tensor([[1.0, 0.0], [-0.5, 2.0]], dtype=torch.float64)
    ends = (2.0, 0.0) if reverse else (0.0, 2.0)
    truth = odeint(pendulum, y0, *ends, rtol=1e-12, atol=1e-12)
    assert truth.passenger is not None
    errors = []
    for steps in (64, 128):
        found = odeint_fixed(pendulum, y0, grid(steps, *ends), method=method)
        assert found.passenger is not None
        both = torch.cat([found.y - truth.y, found.passenger - truth.passenger], dim=1)
        errors.append(both.abs().amax(dim=0))
    # The next order's term is smaller by the step of 1/64 times a constant: 10 per cent of log2 is ample.
    order = torch.log2(errors[0] / errors[1])
    torch.testing.assert_close(order, torch.full_like(order, METHODS[method].order), rtol=0.1, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_one_step_of_a_linear_field_is_the_taylor_polynomial(method: str) -> None:
    h = 0.3
    found = odeint_fixed(
        lambda y, t, rows: -y,
        torch.ones(1, 1, dtype=torch.float64),
        torch.tensor([0.0, h]).double(),
        method=method,
    )
    polynomial = sum((-h) ** k / math.factorial(k) for k in range(METHODS[method].order + 1))
    assert float(found.y) == pytest.approx(polynomial, rel=1e-7)
    assert found.passenger is None


def test_a_polynomial_in_time_is_integrated_exactly() -> None:
    """RK4 of a field of t alone is Simpson's rule, exact for cubics, on any spacing of the grid."""
    times = torch.tensor([0.0, 0.1, 0.5, 1.0], dtype=torch.float64)
    found = odeint_fixed(lambda y, t, rows: (y * 0, 4 * t**3), torch.ones(2, 1), times, method="rk4")
    assert found.passenger is not None
    torch.testing.assert_close(found.passenger, torch.ones(2, dtype=torch.float64), rtol=1e-14, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_the_cost_is_known_beforehand_and_counted(method: str) -> None:
    calls: list[tuple[list[int], float]] = []

    def field(y: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        calls.append((rows.tolist(), float(t[0])))
        assert t.dtype == torch.float64
        return -y

    found = odeint_fixed(field, torch.ones(3, 2), grid(5, 1e-5, 1.0), method=method)
    stages = METHODS[method].stages
    assert len(calls) == 5 * stages
    assert found.nfe.tolist() == [5 * stages] * 3
    assert found.accepted.tolist() == [5] * 3
    assert found.rejected.tolist() == [0] * 3
    assert found.y.dtype == torch.float32
    assert all(rows == [0, 1, 2] and 1e-5 <= t <= 1.0 for rows, t in calls)


def test_a_row_moves_as_it_would_alone() -> None:
    y0 = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    many = odeint_fixed(pendulum, y0, grid(7), method="rk4")
    one = odeint_fixed(pendulum, y0[3:4], grid(7), method="rk4")
    torch.testing.assert_close(one.y[0], many.y[3], rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("which", ["state", "passenger"])
def test_a_field_that_is_not_finite_names_its_row_and_time(which: str) -> None:
    def field(y: Tensor, t: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        hole = torch.where((rows == 1) & (t >= 0.5), torch.nan, 0.0)
        return y + (hole[:, None] if which == "state" else 0), hole if which == "passenger" else t

    with pytest.raises(SolverError, match=r"sample 1 stopped at t = 0\.5: the drift is not finite") as caught:
        odeint_fixed(field, torch.ones(3, 2), grid(4), method="heun")
    assert (caught.value.row, caught.value.t) == (1, 0.5)


def test_a_state_that_is_not_finite_is_said_to_be_the_cause() -> None:
    y0 = torch.tensor([[1.0], [torch.inf]])
    with pytest.raises(SolverError, match="sample 1 stopped at t = 0: the state is not finite"):
        odeint_fixed(lambda y, t, rows: -y, y0, grid(2), method="euler")


def test_an_empty_batch_and_an_unknown_method() -> None:
    assert odeint_fixed(pendulum, torch.zeros(0, 2), grid(3), method="rk4").y.shape == (0, 2)
    with pytest.raises(ConfigError, match="unknown solver 'rk5'; did you mean 'rk4'"):
        odeint_fixed(pendulum, torch.zeros(1, 2), grid(3), method="rk5")
    with pytest.raises(ValueError, match="float16"):
        odeint_fixed(pendulum, torch.zeros(1, 2).half(), grid(3), method="rk4")
