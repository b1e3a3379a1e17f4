"""UniPC against diffusers, its orders, and what the corrector is worth."""

from __future__ import annotations

import pytest
import torch
from oracles.convergence import measured_orders
from oracles.schedulers import scheduled
from oracles.worlds import SDES, gaussian_world, initial, mixture_world

from lsgm.config import SamplerConfig
from lsgm.sampling import draw
from lsgm.sampling.grids import make_grid, time_end_of

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers, under NumPy 2


@pytest.mark.parametrize("steps", [2, 3, 10, 20])
@pytest.mark.parametrize(("name", "order"), [("unipc-2", 2), ("unipc-3", 3)])
@pytest.mark.parametrize("kind", SDES)
def test_it_is_that_of_diffusers(kind: str, name: str, order: int, steps: int) -> None:
    world = mixture_world(SDES[kind])
    times = make_grid(world.sde, "logsnr", steps, time_end_of(world.sde))
    scheduler = diffusers.UniPCMultistepScheduler(
        solver_order=order, solver_type="bh2", final_sigmas_type="sigma_min", lower_order_final=steps < 15
    )
    theirs = scheduled(scheduler, world, initial(world, 8, 2), times)
    ours = draw(world, (2,), range(8), SamplerConfig(name, times=tuple(times.tolist())), dtype=torch.float64)
    torch.testing.assert_close(ours.z, theirs, rtol=0, atol=1e-5)
    assert ours.nfe.tolist() == [steps] * 8


def test_where_the_first_step_is_easy_unipc_3_is_of_order_four() -> None:
    assert measured_orders("unipc-3", SDES["vp"], "log s", (32, 64, 128)) == pytest.approx([4, 4], abs=0.15)


@pytest.mark.parametrize("name", ["unipc-2", "unipc-3"])
@pytest.mark.parametrize("kind", SDES)
def test_one_step_has_nothing_to_correct_and_is_ddim(kind: str, name: str) -> None:
    world = mixture_world(SDES[kind])
    one, ddim = (
        draw(world, (2,), range(4), SamplerConfig(each, times=(1.0, 0.7)), dtype=torch.float64).z
        for each in (name, "ddim")
    )
    torch.testing.assert_close(one, ddim, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", SDES)
def test_the_corrector_more_than_halves_the_error_of_the_same_predictor(kind: str) -> None:
    """UniP-2 is the step of DPM-Solver++ 2M."""
    world = gaussian_world(SDES[kind])
    exact = world.flow(initial(world, 16, 3), 1.0, time_end_of(world.sde))

    def error(name: str) -> float:
        drawn = draw(
            world, (3,), range(16), SamplerConfig(name, steps=100, grid="logsnr"), dtype=torch.float64
        )
        return float((drawn.z - exact).square().mean().sqrt())

    assert error("unipc-2") < 0.5 * error("dpmpp-2m")
    assert error("unipc-3") < 0.5 * error("unipc-2")
