"""The SDE through a table of betas: the DDPM's kernels at its times, and one smooth process in between."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lsgm.errors import ConfigError
from lsgm.sde import VPSDE
from lsgm.tabulated import Schedule, TabulatedVPSDE, ddpm_betas

STEPS = 200
SCHEDULES: tuple[Schedule, ...] = ("linear", "scaled_linear", "squaredcos_cap_v2")


def rough(steps: int = STEPS) -> tuple[float, ...]:
    """Return betas that jump up and down over three orders of magnitude."""
    exponents = torch.rand(steps, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return tuple((10 ** (-4 + 3 * exponents)).tolist())


TABLES = {name: ddpm_betas(name, STEPS) for name in SCHEDULES} | {"rough": rough()}


@pytest.fixture(params=TABLES)
def sde(request: pytest.FixtureRequest) -> TabulatedVPSDE:
    return TabulatedVPSDE(TABLES[request.param])


def dense(count: int = 4001) -> Tensor:
    return torch.linspace(0, 1, count, dtype=torch.float64)


def nodes(sde: TabulatedVPSDE) -> Tensor:
    return torch.arange(1, sde.steps + 1, dtype=torch.float64) / sde.steps


def test_alpha_bar_at_the_training_times_is_the_product_of_the_table(sde: TabulatedVPSDE) -> None:
    alpha_bar = (1 - torch.tensor(sde.betas, dtype=torch.float64)).cumprod(0)
    t = nodes(sde)
    # 200 roundings of a sum of logarithms; at t = 1 the cosine has beta = 0.999.
    torch.testing.assert_close(sde.one_minus_var(t), alpha_bar, rtol=1e-11, atol=0)
    torch.testing.assert_close(sde.mean(t), alpha_bar.sqrt(), rtol=1e-11, atol=0)
    assert float(sde.var(t[0])) == pytest.approx(sde.betas[0], rel=1e-11)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_schedules_are_those_of_diffusers(schedule: Schedule) -> None:
    schedulers = pytest.importorskip("diffusers.schedulers.scheduling_ddpm")
    theirs = schedulers.DDPMScheduler(num_train_timesteps=1000, beta_schedule=schedule)
    ours = torch.tensor(ddpm_betas(schedule), dtype=torch.float64)
    torch.testing.assert_close(ours, theirs.betas.double(), rtol=2e-6, atol=1e-7)  # theirs are float32
    t = nodes(TabulatedVPSDE(ddpm_betas(schedule)))
    alpha_bar = TabulatedVPSDE(ddpm_betas(schedule)).one_minus_var(t)
    # A thousand factors in float32; the cosine's last one is 1 - 0.999.
    torch.testing.assert_close(alpha_bar, theirs.alphas_cumprod.double(), rtol=1e-4, atol=1e-6)


def test_at_time_zero_there_is_the_data_alone(sde: TabulatedVPSDE) -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    assert sde.sigma2_0 == 0 == float(sde.var(zero))
    assert float(sde.mean(zero)) == 1


def test_the_variance_grows_and_beta_is_above_zero_and_continuous(sde: TabulatedVPSDE) -> None:
    t = dense()
    assert bool((sde.beta_integral(t).diff() > 0).all())
    assert bool((sde.g2(t) > 0).all())
    inner = nodes(sde)[:-1]
    torch.testing.assert_close(sde.beta(inner - 1e-12), sde.beta(inner + 1e-12), rtol=1e-6, atol=1e-6)


def test_the_coefficients_are_derivatives_of_the_kernel(sde: TabulatedVPSDE) -> None:
    t = (dense(501)[1:-1] + 1e-4).requires_grad_()
    (dvar,) = torch.autograd.grad(sde.var(t).sum(), t)
    (dlog_mean,) = torch.autograd.grad(sde.mean(t).log().sum(), t)
    torch.testing.assert_close(sde.dvar(t).detach(), dvar, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(sde.f(t).detach(), dlog_mean, rtol=1e-9, atol=1e-12)
    identity = 2 * sde.f(t) * sde.var(t) + sde.g2(t)
    # g^2 and 2 f var cancel up to 1 - var, which the cosine brings down to 1e-7.
    torch.testing.assert_close(sde.dvar(t), identity, rtol=1e-7, atol=1e-10)


def test_unit_variance_stays(sde: TabulatedVPSDE) -> None:
    t = dense()
    torch.testing.assert_close(sde.mean(t).square() + sde.var(t), torch.ones_like(t), rtol=1e-14, atol=0)


def test_the_inverse_finds_the_time(sde: TabulatedVPSDE) -> None:
    # Where 1 - var is above 1e-3, so that var in float64 tells the time to 1e-12.
    t = dense()
    t = t[sde.one_minus_var(t) > 1e-3]
    torch.testing.assert_close(sde.inv_var(sde.var(t)), t, rtol=1e-9, atol=1e-12)
    assert sde.inv_var(sde.var(t[:6].reshape(2, 3))).shape == (2, 3)


def test_many_small_betas_are_the_continuous_sde() -> None:
    """Beta_n = beta(t_n) / N: the table's process differs from `VPSDE` by O(1 / N)."""

    def distance(steps: int) -> float:
        table = TabulatedVPSDE(ddpm_betas("linear", steps, 0.1 / steps, 20 / steps))
        t = dense(101)
        return float((table.var(t) - VPSDE().var(t)).abs().max())

    assert distance(4000) < 2e-3
    assert distance(1000) / distance(4000) == pytest.approx(4, rel=0.1)


def test_a_single_beta_is_a_process_too() -> None:
    one = TabulatedVPSDE((0.5,))
    torch.testing.assert_close(one.var(dense(5)), 1 - 0.5 ** dense(5))  # B is straight


def test_it_does_not_matter_where_tensors_are_made_by_default() -> None:
    with torch.device("meta"):
        table = TabulatedVPSDE(ddpm_betas("scaled_linear", 5))
    t = dense(3)
    with torch.device("meta"):
        assert table.var(t).device.type == "cpu"


@pytest.mark.parametrize("table", [(), (0.1, 1.0), (0.0, 0.1), (0.1, -0.1), (float("nan"),)])
def test_betas_without_a_process_are_refused(table: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="beta"):
        TabulatedVPSDE(table)


@pytest.mark.parametrize(("steps", "start", "end"), [(0, 1e-4, 0.02), (10, 0.0, 0.02), (10, 0.1, 1.0)])
def test_schedules_out_of_range_are_refused(steps: int, start: float, end: float) -> None:
    with pytest.raises(ConfigError):
        ddpm_betas("linear", steps, start, end)
