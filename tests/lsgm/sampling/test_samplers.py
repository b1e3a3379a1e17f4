"""Samplers in worlds with a known score: order, cost, seeds, and samples that are not finite."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from oracles.gaussian import GaussianWorld, StandardNormalWorld
from oracles.worlds import SDES, gaussian_world, initial, mixture_world
from scipy.integrate import solve_ivp
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.errors import UserError
from lsgm.rng import SeededNoise
from lsgm.sampling import ScoreFunction, draw, sampler_names
from lsgm.sampling.grids import time_end_of
from lsgm.sde import SDE, VESDE, VPSDE

VP_LIKE = {name: sde for name, sde in SDES.items() if sde.is_vp_like}
FLOWS = ("euler", "heun")
START, END = 0.9, 0.15  # an interval on which every SDE is smooth at the step sizes below


@dataclass
class Witness:
    """A score function that counts on its own: rows evaluated, and the times it was asked at."""

    world: ScoreFunction
    rows: int = 0
    times: list[float] = field(default_factory=list)

    @property
    def sde(self) -> SDE:
        return self.world.sde

    def _see(self, z: Tensor, t: Tensor) -> None:
        assert t.shape == (len(z),)
        assert t.dtype == torch.float64
        self.rows += len(z)
        self.times.extend(t.tolist())

    def eps(self, z: Tensor, t: Tensor) -> Tensor:
        self._see(z, t)
        return self.world.eps(z, t)

    def drift(self, z: Tensor, t: Tensor) -> Tensor:
        self._see(z, t)
        return self.world.drift(z, t)


def reference_flow(world: ScoreFunction, z: Tensor, t0: float, t1: float) -> Tensor:
    """The probability flow by SciPy's DOP853 (order 8) to 1e-10: another method, another implementation."""

    def velocity(t: float, flat: np.ndarray) -> np.ndarray:
        state = torch.from_numpy(flat.reshape(z.shape))
        return world.drift(state, torch.full((len(z),), t, dtype=torch.float64)).numpy().ravel()

    solution = solve_ivp(velocity, (t0, t1), z.numpy().ravel(), method="DOP853", rtol=1e-10, atol=1e-10)
    return torch.from_numpy(solution.y[:, -1].reshape(z.shape))


@pytest.mark.parametrize("kind", SDES)
def test_dopri5_arrives_where_the_exact_flow_does_as_closely_as_it_is_asked(kind: str) -> None:
    world = gaussian_world(SDES[kind])
    exact = world.flow(initial(world, 8, 3), 1.0, time_end_of(world.sde))
    for tol in (1e-4, 1e-7, 1e-10):
        config = SamplerConfig("dopri5", rtol=tol, atol=tol)
        drawn = draw(world, (3,), range(8), config, dtype=torch.float64)
        # Local errors of size tol add up over the steps; geometric, with g^2 to 10^4, reaches 100 tol.
        assert float((drawn.z - exact).abs().max()) < 200 * tol


@pytest.mark.parametrize("kind", SDES)
def test_dopri5_agrees_with_scipy_in_a_mixture_world(kind: str) -> None:
    world = mixture_world(SDES[kind])
    exact = reference_flow(world, initial(world, 4, 2), 1.0, time_end_of(world.sde))
    drawn = draw(world, (2,), range(4), SamplerConfig("dopri5", rtol=1e-9, atol=1e-9), dtype=torch.float64)
    torch.testing.assert_close(drawn.z, exact, rtol=0, atol=1e-6)


def test_nfe_of_dopri5_is_two_and_six_per_attempt_by_an_independent_count() -> None:
    witness = Witness(mixture_world(VPSDE()))
    drawn = draw(witness, (2,), range(16), SamplerConfig("dopri5"))
    assert witness.rows == int(drawn.nfe.sum())
    assert torch.equal(drawn.nfe, 2 + 6 * (drawn.accepted + drawn.rejected))
    assert len(set(drawn.nfe.tolist())) > 1


@pytest.mark.parametrize("name", sampler_names())
def test_times_stay_between_the_end_and_one(name: str) -> None:
    witness = Witness(gaussian_world(VPSDE()))
    draw(witness, (3,), range(2), SamplerConfig(name, steps=9, time_end=1e-3))
    assert max(witness.times) == 1.0
    assert min(witness.times) >= 1e-3


@pytest.mark.parametrize("name", sampler_names())
def test_sample_k_is_the_same_alone_in_any_company_and_in_any_order(name: str) -> None:
    world, config = mixture_world(VPSDE()), SamplerConfig(name, steps=10)
    many = draw(world, (2,), range(64), config, dtype=torch.float64)
    back = draw(world, (2,), range(63, -1, -1), config, dtype=torch.float64)
    torch.testing.assert_close(back.z.flip(0), many.z, rtol=1e-12, atol=1e-12)
    for k in (0, 31, 63):
        one = draw(world, (2,), [k], config, dtype=torch.float64)
        # exp and log of a vector and of a scalar differ in the last bit, no more.
        torch.testing.assert_close(one.z[0], many.z[k], rtol=1e-12, atol=1e-12)
        assert one.nfe.item() == many.nfe[k].item()


@pytest.mark.parametrize("name", ["euler", "heun", "dopri5"])
@pytest.mark.parametrize("kind", VP_LIKE)
def test_without_a_network_nothing_moves_under_a_variance_preserving_sde(kind: str, name: str) -> None:
    world = StandardNormalWorld(SDES[kind], a=0.0)
    drawn = draw(world, (2, 3, 3), range(4), SamplerConfig(name))
    assert torch.equal(drawn.z, SeededNoise(range(4), stream="sampler").normal(2, 3, 3))


@pytest.mark.parametrize("name", sampler_names())
def test_temperature_scales_all_noise(name: str) -> None:
    """Zero-mean Gaussian worlds are linear: every sample scales with its noise."""
    world = GaussianWorld(VPSDE(), torch.zeros(3).double(), torch.tensor([0.5, 1.0, 2.0]).double())
    config = SamplerConfig(name, steps=5, rtol=1e-9, atol=1e-9)
    plain = draw(world, (3,), range(4), config, dtype=torch.float64)
    cool = draw(world, (3,), range(4), replace(config, temperature=0.5), dtype=torch.float64)
    torch.testing.assert_close(cool.z, 0.5 * plain.z, rtol=1e-6, atol=1e-8)


def test_draws_take_noise_or_seeds_and_start_from_the_prior_of_the_sde() -> None:
    world = StandardNormalWorld(VESDE(sigma2_min=1e-4, sigma2_max=25.0), a=0.0)
    noise = SeededNoise([3, 4], stream="mine")
    drawn = draw(world, (2,), noise, SamplerConfig("euler", steps=3))
    torch.testing.assert_close(drawn.z, 5 * SeededNoise([3, 4], stream="mine").normal(2))
    assert drawn.z.dtype == torch.float32
    assert drawn.seconds > 0


class BlindWorld(StandardNormalWorld):
    """A world in which nothing moves and the drift is nan where the first entry of z is below ``a``."""

    def drift(self, z: Tensor, t: Tensor) -> Tensor:
        return torch.where(z[:, :1] < self.a, torch.nan, 0 * z)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("heun", r"sampler 'heun' left 1 of 8 samples not finite, the first is sample {k}; check"),
        ("dopri5", r"sample {k} stopped at t = 1: the drift is not finite"),
    ],
)
def test_a_sample_that_is_not_finite_is_named(name: str, words: str) -> None:
    first = initial(BlindWorld(VPSDE(), 0.0), 8, 2, torch.float32)[:, 0].sort()
    blind = BlindWorld(VPSDE(), a=float(first.values[:2].mean()))  # between the smallest and its neighbour
    with pytest.raises(UserError, match=words.format(k=first.indices[0])):
        draw(blind, (2,), range(8), SamplerConfig(name))
