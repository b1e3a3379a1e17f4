"""tAB-DEIS against its definition by quadrature, against diffusers where the two are one, and its orders."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from oracles.convergence import TimeOnly
from oracles.gaussian import MixtureWorld
from oracles.schedulers import scheduled
from oracles.worlds import SDES, initial, mixture_world
from scipy.integrate import quad
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.sampling import draw
from lsgm.sampling.grids import make_grid
from lsgm.sde import SDE

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers, under NumPy 2


def moment(sde: SDE, degree: int, start: float, end: float) -> float:
    """The integral of t^degree ds from start to end, by ds/dt = s g^2 / (2 sigma^2)."""

    def rate(t: float) -> float:
        at = torch.tensor(t, dtype=torch.float64)
        s = sde.sigma(at) / sde.mean(at)
        return t**degree * float(s * sde.g2(at) / (2 * sde.var(at)))

    return quad(rate, start, end, epsabs=0, epsrel=1e-11, limit=200)[0]


def textbook(world: MixtureWorld, z: Tensor, times: Tensor, order: int) -> Tensor:
    """du = sum_i C_i eps_i, where C makes every t^d, d < order, exact: a linear system."""
    sde, t = world.sde, times.tolist()
    u = z / sde.mean(times[0])
    known: list[Tensor] = []
    for k, (start, end) in enumerate(pairwise(t)):
        known.insert(0, world.eps(u * sde.mean(times[k]), times[k].expand(len(u))))
        p = min(order, len(known))
        nodes = np.array(t[k - p + 1 : k + 1][::-1])
        moments = [moment(sde, degree, start, end) for degree in range(p)]
        c = np.linalg.solve(np.vander(nodes, p, increasing=True).T, moments)
        u = u + sum(float(c[i]) * known[i] for i in range(p))
    return u * sde.mean(times[-1])


@pytest.mark.parametrize(("name", "order"), [("deis-2", 2), ("deis-3", 3)])
@pytest.mark.parametrize("kind", SDES)
def test_it_is_the_polynomial_in_t_integrated_against_ds(kind: str, name: str, order: int) -> None:
    world = mixture_world(SDES[kind])
    times = torch.tensor([1.0, 0.8, 0.65, 0.4, 0.3, 0.1, 0.01], dtype=torch.float64)
    theirs = textbook(world, initial(world, 4, 2), times, order)
    ours = draw(world, (2,), range(4), SamplerConfig(name, times=tuple(times.tolist())), dtype=torch.float64)
    torch.testing.assert_close(ours.z, theirs, rtol=1e-8, atol=1e-8)
    assert ours.nfe.tolist() == [6] * 4


@pytest.mark.parametrize("steps", [3, 12])
@pytest.mark.parametrize(("name", "order"), [("deis-2", 2), ("deis-3", 3)])
def test_it_is_that_of_diffusers_where_log_s_is_a_line_in_t(name: str, order: int, steps: int) -> None:
    """Their polynomial is in log s, which is linear in t under the variance exploding SDE."""
    diffusers = pytest.importorskip("diffusers")
    world = mixture_world(SDES["ve"])
    times = make_grid(world.sde, "quadratic", steps, 0.05)
    scheduler = diffusers.DEISMultistepScheduler(solver_order=order, lower_order_final=False)
    theirs = scheduled(scheduler, world, initial(world, 8, 2), times)
    ours = draw(world, (2,), range(8), SamplerConfig(name, times=tuple(times.tolist())), dtype=torch.float64)
    torch.testing.assert_close(ours.z, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", SDES)
def test_a_quadratic_noise_prediction_is_integrated_exactly_once_the_history_is_full(kind: str) -> None:
    """A quadratic in t that is 0 at the first two nodes leaves nothing to the steps of lower order."""
    sde, t = SDES[kind], (1.0, 0.9, 0.7, 0.5, 0.2)
    world = TimeOnly(sde, lambda at: (at - t[0]) * (at - t[1]))
    drawn = draw(world, (3,), range(2), SamplerConfig("deis-3", times=t), dtype=torch.float64)
    m = sde.mean(torch.tensor(t, dtype=torch.float64))
    coefficients = (t[0] * t[1], -t[0] - t[1], 1.0)
    integral = sum(c * moment(sde, degree, t[2], t[-1]) for degree, c in enumerate(coefficients))
    exact = m[-1] * (initial(world, 2, 3) / m[0] + integral)
    torch.testing.assert_close(drawn.z, exact, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["deis-2", "deis-3"])
def test_its_first_step_is_that_of_ddim(name: str) -> None:
    world = mixture_world(SDES["geometric"])
    one, ddim = (
        draw(world, (2,), range(4), SamplerConfig(each, times=(1.0, 0.7)), dtype=torch.float64).z
        for each in (name, "ddim")
    )
    torch.testing.assert_close(one, ddim, rtol=1e-9, atol=1e-9)
