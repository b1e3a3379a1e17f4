"""The Dormand-Prince solver against SciPy, torchdiffeq and closed forms, and its promises about batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchdiffeq
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from torch import Tensor

from lsgm.errors import ConfigError, UserError
from lsgm.ode import Field, SolverError, odeint


def predator_prey(y: Tensor, t: Tensor, rows: Tensor) -> Tensor:
    """Lotka-Volterra with a wind that grows: a nonlinear, non-autonomous field."""
    a, b = y[:, 0], y[:, 1]
    return torch.stack([1.5 * a - a * b + 0.1 * t, a * b - 3.0 * b], dim=1)


def elementwise(y: Tensor, t: Tensor, rows: Tensor) -> Tensor:
    """A field of + and * alone: no library function whose rounding could depend on the size of the batch."""
    return 1.0 - y * y * y + 2.0 * t[:, None].to(y.dtype) * y.roll(1, 1)


def scipy_rk45(y0: list[float], t0: float, t1: float, tol: float) -> tuple[np.ndarray, int, int]:
    def field(t: float, y: np.ndarray) -> np.ndarray:
        return np.array([1.5 * y[0] - y[0] * y[1] + 0.1 * t, y[0] * y[1] - 3.0 * y[1]])

    solution = solve_ivp(field, (t0, t1), y0, method="RK45", rtol=tol, atol=tol)
    return solution.y[:, -1], solution.nfev, len(solution.t) - 1


@pytest.mark.parametrize("tol", [1e-3, 1e-5, 1e-8])
@pytest.mark.parametrize(("t0", "t1"), [(0.0, 6.0), (3.0, 0.0)])
def test_a_batch_of_one_takes_the_steps_of_scipy(tol: float, t0: float, t1: float) -> None:
    expected, nfev, accepted = scipy_rk45([1.0, 2.0], t0, t1, tol)
    y0 = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    solution = odeint(predator_prey, y0, t0, t1, rtol=tol, atol=tol)
    assert solution.nfe.tolist() == [nfev]
    assert solution.accepted.tolist() == [accepted]
    # The same arithmetic in another order: rounding, amplified by the flow, stays far below 1e-10.
    np.testing.assert_allclose(solution.y[0].numpy(), expected, rtol=1e-10, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(
    start=st.lists(st.floats(0.2, 4.0), min_size=2, max_size=2),
    tol=st.floats(-8.0, -2.0).map(lambda p: 10.0**p),
    span=st.tuples(st.floats(-2.0, 2.0), st.floats(-2.0, 2.0)).filter(lambda s: abs(s[0] - s[1]) > 1e-3),
)
def test_any_start_tolerance_and_direction_agrees_with_scipy(
    start: list[float], tol: float, span: tuple[float, float]
) -> None:
    expected, nfev, _ = scipy_rk45(start, *span, tol)
    solution = odeint(predator_prey, torch.tensor([start], dtype=torch.float64), *span, rtol=tol, atol=tol)
    assert solution.nfe.item() == nfev
    np.testing.assert_allclose(solution.y[0].numpy(), expected, rtol=1e-9, atol=1e-10)


def test_float32_agrees_with_scipy_within_its_tolerance() -> None:
    expected, nfev, _ = scipy_rk45([1.0, 2.0], 0.0, 3.0, 1e-5)
    solution = odeint(predator_prey, torch.tensor([[1.0, 2.0]]), 0.0, 3.0, rtol=1e-5, atol=1e-5)
    assert solution.y.dtype == torch.float32
    np.testing.assert_allclose(solution.y[0].numpy(), expected, rtol=1e-4)
    # Float32 rounding moves error norms by a few per cent at 1e-5, a step here or there.
    assert abs(solution.nfe.item() - nfev) <= 12


def test_damped_steps_arrive_at_the_same_place_and_fewer_are_rejected() -> None:
    y0 = torch.tensor([[1.0, 2.0], [0.5, 3.0]], dtype=torch.float64)
    plain = odeint(predator_prey, y0, 0.0, 6.0, rtol=1e-6, atol=1e-6)
    damped = odeint(predator_prey, y0, 0.0, 6.0, rtol=1e-6, atol=1e-6, damping=0.04)
    assert bool((damped.rejected < plain.rejected).all())
    exact, _, _ = scipy_rk45([1.0, 2.0], 0.0, 6.0, 1e-11)
    # The flow amplifies an error of 1e-6 in a step by less than a hundred.
    np.testing.assert_allclose(damped.y[0].numpy(), exact, rtol=1e-4)


def test_torchdiffeq_arrives_at_the_same_place() -> None:
    y0 = torch.rand(5, 2, dtype=torch.float64) + 0.5
    ours = odeint(predator_prey, y0, 0.0, 4.0, rtol=1e-10, atol=1e-10).y
    theirs = torchdiffeq.odeint(
        lambda t, y: predator_prey(y, t.expand(len(y)), torch.arange(5)),
        y0,
        torch.tensor([0.0, 4.0], dtype=torch.float64),
        rtol=1e-10,
        atol=1e-10,
        method="dopri5",
    )[-1]
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8)


def test_one_step_errs_with_the_sixth_power_of_its_size() -> None:
    def field(y: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        return y * torch.cos(t)[:, None]

    def error(h: float) -> float:
        y0 = torch.ones(1, 1, dtype=torch.float64)
        solution = odeint(field, y0, 0.0, h, rtol=1e3, atol=1e3, first_step=h)
        assert solution.nfe.item() == 1 + 6
        return abs(solution.y.item() - math.exp(math.sin(h)))

    # A method of order 5 errs locally with h^6; 0.4 and 0.2 are small enough for 5 per cent of the exponent.
    assert math.log2(error(0.4) / error(0.2)) == pytest.approx(6, abs=0.3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 3, 17, 64])
def test_a_sample_takes_the_same_steps_alone_and_in_company(dtype: torch.dtype, size: int) -> None:
    y0 = 3 * torch.randn(64, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(dtype)
    together = odeint(elementwise, y0, 0.0, 4.0, rtol=1e-5, atol=1e-5)
    assert len(set(together.nfe.tolist())) > 5  # the samples differ in cost, or the test shows nothing
    for k in range(0, 64, 9):
        alone = odeint(elementwise, y0[k : k + 1], 0.0, 4.0, rtol=1e-5, atol=1e-5)
        assert alone.nfe.item() == together.nfe[k].item()
        assert alone.accepted.item() == together.accepted[k].item()
        assert torch.equal(alone.y[0], together.y[k])


def resting(y: Tensor, t: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """A state that all but rests, whose passenger, by two columns of mean 1 / (t + delta), does not."""
    rate = 1 / (t + 10.0 ** -(1 + rows.double() / 4))
    return 1e-3 * y, torch.stack([rate + 50, rate - 50], dim=1)


def test_a_passenger_in_the_control_is_integrated_to_its_own_tolerance() -> None:
    y0, delta = torch.ones(16, 3, dtype=torch.float64), 10.0 ** -(1 + torch.arange(16).double() / 4)
    expected = ((1 + delta) / delta).log()

    def error(**control: float) -> Tensor:
        carried = odeint(resting, y0, 0.0, 1.0, rtol=1e-3, atol=1e-3, **control).passenger  # type: ignore[arg-type]
        assert carried is not None
        return (carried.mean(dim=1) - expected).abs()

    # A step may err by the tolerance, and few of some twenty are that bad, with one sign.
    assert float(error(passenger_atol=1e-4).max()) < 2e-4
    assert float(error().max()) > 1.0
    assert float(error(passenger_atol=1e9).max()) > 1.0


def test_a_passenger_in_the_control_minds_no_company_and_no_copies_of_the_state() -> None:
    y0 = torch.ones(16, 3, dtype=torch.float64)
    together = odeint(resting, y0, 0.0, 1.0, rtol=1e-3, atol=1e-3, passenger_atol=1e-4)
    wide = odeint(
        resting, y0.expand(16, 3).repeat(1, 50), 0.0, 1.0, rtol=1e-3, atol=1e-3, passenger_atol=1e-4
    )
    assert len(set(together.nfe.tolist())) > 5
    assert torch.equal(together.nfe, wide.nfe)
    assert together.passenger is not None
    for k in (0, 7, 15):

        def alone(y: Tensor, t: Tensor, rows: Tensor, k: int = k) -> tuple[Tensor, Tensor]:
            return resting(y, t, rows + k)

        single = odeint(alone, y0[k : k + 1], 0.0, 1.0, rtol=1e-3, atol=1e-3, passenger_atol=1e-4)
        assert single.nfe.item() == together.nfe[k].item()
        assert single.passenger is not None
        torch.testing.assert_close(single.passenger[0], together.passenger[k], rtol=1e-12, atol=0)


@pytest.mark.parametrize("tolerance", [0.0, -1e-3])
def test_a_passenger_needs_a_tolerance_above_0(tolerance: float) -> None:
    with pytest.raises(ConfigError, match=r"^passenger_atol is .*; it must be above 0$"):
        odeint(resting, torch.ones(1, 1), 0.0, 1.0, rtol=1e-3, atol=1e-3, passenger_atol=tolerance)


def test_each_row_is_evaluated_as_often_as_its_nfe_says_and_no_more() -> None:
    y0 = 4 * torch.randn(16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    counts = torch.zeros(16, dtype=torch.int64)

    def counted(y: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        assert y.shape == (len(rows), 3)
        assert t.shape == rows.shape
        counts[rows] += 1
        return elementwise(y, t, rows)

    solution = odeint(counted, y0, 0.0, 3.0, rtol=1e-6, atol=1e-6)
    assert torch.equal(counts, solution.nfe)
    assert torch.equal(solution.nfe, 2 + 6 * (solution.accepted + solution.rejected))
    assert solution.rejected.sum() > 0


def test_rows_name_the_original_batch() -> None:
    rates = torch.tensor([0.1, 30.0, 1.0, 8.0], dtype=torch.float64)

    def field(y: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        return -rates[rows, None] * y

    y0 = torch.ones(4, 2, dtype=torch.float64)
    solution = odeint(field, y0, 0.0, 1.0, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(solution.y, torch.exp(-rates)[:, None].expand(4, 2), rtol=1e-6, atol=1e-10)
    assert solution.nfe[1] > solution.nfe[0]


@pytest.mark.parametrize("probes", [None, 3])
def test_a_passenger_is_integrated_with_the_same_weights_and_has_no_say_in_the_steps(
    probes: int | None,
) -> None:
    y0 = torch.tensor([[0.5], [2.0]], dtype=torch.float64)

    def field(y: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        return -y

    def with_passenger(y: Tensor, t: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        rate = 1e6 * torch.sin(1000 * t) if probes == 3 else y[:, 0]
        return -y, rate if probes is None else torch.stack([y[:, 0], 2 * y[:, 0], rate], dim=1)

    without = odeint(field, y0, 0.0, 1.0, rtol=1e-9, atol=1e-9)
    carried = odeint(with_passenger, y0, 0.0, 1.0, rtol=1e-9, atol=1e-9)
    assert without.passenger is None
    assert torch.equal(carried.y, without.y)
    assert torch.equal(carried.nfe, without.nfe)
    assert carried.passenger is not None
    exact = y0[:, 0] * (1 - math.exp(-1.0))
    first = carried.passenger if probes is None else carried.passenger[:, 0]
    torch.testing.assert_close(first, exact, rtol=1e-8, atol=0)
    if probes:
        torch.testing.assert_close(carried.passenger[:, 1], 2 * exact, rtol=1e-8, atol=0)


def test_a_passenger_of_float32_states_accumulates_in_float64() -> None:
    def field(y: Tensor, t: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return 0 * y, 1.0 + 1e-9 * t

    solution = odeint(field, torch.ones(2, 1), 0.0, 1.0, rtol=1e-3, atol=1e-3)
    assert solution.passenger is not None
    torch.testing.assert_close(
        solution.passenger, torch.full((2,), 1 + 5e-10, dtype=torch.float64), rtol=1e-14, atol=0
    )


def test_there_and_back_again() -> None:
    y0 = torch.rand(8, 2, dtype=torch.float64) + 0.5
    there = odeint(predator_prey, y0, 0.0, 2.0, rtol=1e-10, atol=1e-10).y
    back = odeint(predator_prey, there, 2.0, 0.0, rtol=1e-10, atol=1e-10).y
    torch.testing.assert_close(back, y0, rtol=0, atol=1e-8)


def test_images_keep_their_shape_and_the_start_stays_untouched() -> None:
    y0 = torch.randn(3, 2, 4, 4)
    before = y0.clone()
    solution = odeint(lambda y, t, rows: -y, y0, 0.0, 1.0, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(solution.y, math.exp(-1) * y0, rtol=1e-4, atol=1e-5)
    assert torch.equal(y0, before)


def test_no_graph_survives_a_solve() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    solution = odeint(lambda y, t, rows: -weight * y, torch.ones(2, 1), 0.0, 1.0, rtol=1e-3, atol=1e-3)
    assert not solution.y.requires_grad


@pytest.mark.parametrize("shape", [(0, 3), (2, 3)])
def test_nothing_to_do_costs_nothing(shape: tuple[int, int]) -> None:
    y0 = torch.ones(shape)
    solution = odeint(predator_prey, y0, 1.0, 1.0, rtol=1e-3, atol=1e-3)
    assert torch.equal(solution.y, y0)
    assert solution.nfe.tolist() == [0] * shape[0]


def _explodes(y: Tensor, t: Tensor, rows: Tensor) -> Tensor:
    """y' = y^2 reaches infinity at t = 1 / y0."""
    return y * y


def _goes_blind(y: Tensor, t: Tensor, rows: Tensor) -> Tensor:
    hidden = (rows[:, None] == 2) & (t[:, None] > 0.5)
    return torch.where(hidden, torch.nan, -y)


def _born_blind(y: Tensor, t: Tensor, rows: Tensor) -> Tensor:
    return torch.where(rows[:, None] == 2, torch.nan, -y)


@pytest.mark.parametrize(
    ("field", "row", "t", "words"),
    [
        (_explodes, 2, 0.5, "cannot be met"),
        (_goes_blind, 2, 0.5, "not finite"),
        (_born_blind, 2, 0.0, "drift is not finite"),
    ],
)
def test_a_sample_that_cannot_go_on_is_named_with_its_time(
    field: Field, row: int, t: float, words: str
) -> None:
    y0 = torch.tensor([[0.1], [0.2], [2.0], [0.3]], dtype=torch.float64)
    with pytest.raises(SolverError, match=f"sample {row} stopped at t = .*{words}") as caught:
        odeint(field, y0, 0.0, 1.0, rtol=1e-6, atol=1e-6)
    assert isinstance(caught.value, UserError)
    assert caught.value.row == row
    assert caught.value.t == pytest.approx(t, abs=1e-3)


def test_an_initial_state_with_nan_is_named() -> None:
    y0 = torch.tensor([[1.0], [math.nan]])
    with pytest.raises(SolverError, match=r"sample 1 .* initial state is not finite"):
        odeint(lambda y, t, rows: -y, y0, 0.0, 1.0, rtol=1e-6, atol=1e-6)


def test_too_many_steps_end_with_the_sample_and_the_time() -> None:
    y0 = torch.ones(2, 1)

    def stiff(y: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        return -torch.where(rows[:, None] == 1, 1e4, 1.0) * (y - torch.cos(t)[:, None].to(y.dtype))

    with pytest.raises(SolverError, match=r"sample 1 .* 100 steps were not enough; loosen"):
        odeint(stiff, y0, 0.0, 1.0, rtol=1e-6, atol=1e-6, max_steps=100)


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-8), (torch.float64, 1e-17)])
def test_a_tolerance_below_the_spacing_of_the_numbers_is_refused(dtype: torch.dtype, tol: float) -> None:
    """Rounding alone would exceed it, however short the steps."""
    with pytest.raises(ConfigError, match=r"are below the spacing of float(32|64) numbers.*loosen them"):
        odeint(lambda y, t, rows: -y, torch.ones(1, 2, dtype=dtype), 0.0, 1.0, rtol=tol, atol=tol)


def test_half_precision_states_are_refused() -> None:
    with pytest.raises(ValueError, match="float32 or float64"):
        odeint(lambda y, t, rows: -y, torch.ones(1, 1).half(), 0.0, 1.0, rtol=1e-3, atol=1e-3)
