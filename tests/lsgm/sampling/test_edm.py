"""The samplers of Karras et al. against diffusers, DDIM, their order, and worlds of known moments."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from oracles.chance import standard_scores, wide
from oracles.ddpm import TRAINED, Ladder, ladder
from oracles.impulses import exact_moments
from oracles.worlds import SDES, gaussian_world, initial, mixture_world
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.rng import SeededNoise
from lsgm.sampling import CountedScore, draw, find_sampler
from lsgm.sampling.grids import log_snr, make_grid, time_end_of
from lsgm.sde import SDE, VPSDE

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers, under NumPy 2


def on_a_ladder(scheduler: Any) -> tuple[Any, Ladder]:
    """A scheduler of 15 steps in float64, and the same levels as times of an SDE."""
    scheduler.set_timesteps(timesteps=list(range(999, 0, -71)))
    steps = ladder(scheduler.alphas_cumprod, [int(t) for t in scheduler.timesteps.unique().flip(0)])
    scheduler.sigmas = torch.cat([steps.s, torch.zeros(1).double()])
    return scheduler, steps


def test_edm_heun_is_that_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler, steps = on_a_ladder(diffusers.HeunDiscreteScheduler(**TRAINED))
    scheduler.sigmas = torch.cat([steps.s[:1], steps.s[1:].repeat_interleave(2), torch.zeros(1).double()])
    u = initial(steps.world, 8, 2) * (1 + steps.s[0] ** 2).sqrt()
    for i, timestep in enumerate(scheduler.timesteps):
        k = (i + 1) // 2
        eps = steps.eps(u / (1 + steps.s[k] ** 2).sqrt(), k)
        u = scheduler.step(eps, timestep, u).prev_sample
    config = SamplerConfig("edm-heun", times=steps.times, denoise=True)
    drawn = draw(steps.world, (2,), range(8), config, dtype=torch.float64)
    torch.testing.assert_close(drawn.z, u, rtol=0, atol=1e-5)
    assert drawn.nfe.tolist() == [len(scheduler.timesteps)] * 8


@pytest.mark.parametrize("churn", [0.0, 6.0])
def test_edm_euler_is_that_of_diffusers(churn: float, monkeypatch: pytest.MonkeyPatch) -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler, steps = on_a_ladder(diffusers.EulerDiscreteScheduler(**TRAINED))
    scheduler.is_scale_input_called = True
    count = len(steps.times)
    # Ours counts the steps between times, theirs one more, to a time without noise.
    config = SamplerConfig("edm-euler", times=steps.times, denoise=True, churn=churn * (count - 1) / count)
    gamma = min(churn / count, math.sqrt(2) - 1)
    noise = SeededNoise(range(8), stream="sampler")
    u = noise.normal(2, dtype=torch.float64) * (1 + steps.s[0] ** 2).sqrt()
    step_of = diffusers.schedulers.scheduling_euler_discrete
    for k, timestep in enumerate(scheduler.timesteps):
        churns = churn > 0 and 0 < k < count - 1
        s = float(steps.s[k]) * (1 + gamma * churns)
        fresh = noise.normal(2, dtype=torch.float64) if churns else torch.zeros_like(u)
        raised = u + fresh * (s**2 - float(steps.s[k]) ** 2) ** 0.5
        # The model is asked at the raised level, between two of the ladder: by its closed form.
        eps = eps_at(steps, raised, s)
        monkeypatch.setattr(step_of, "randn_tensor", lambda *_, n=fresh, **__: n)
        u = scheduler.step(eps, timestep, u, s_churn=churn if churns else 0.0).prev_sample
    drawn = draw(steps.world, (2,), range(8), config, dtype=torch.float64)
    # Theirs goes through float32, 6e-8 of an u that begins at 160 and shrinks from there.
    torch.testing.assert_close(drawn.z, u.double(), rtol=0, atol=1e-5)


def eps_at(steps: Ladder, u: Tensor, s: float) -> Tensor:
    """The noise prediction of a mixture world at any u and s: s (u - E[z_0 | u]) / s^2."""
    world = steps.world
    v = world.s2 + s**2
    residual = u[:, None] - world.mu
    weight = (world.weights.log() - v.log() - 0.5 * residual.square().sum(2) / v).softmax(1)
    return s * (weight[..., None] * residual / v[:, None]).sum(1)


@pytest.mark.parametrize("kind", SDES)
def test_without_churn_edm_euler_is_ddim_to_the_bit(kind: str) -> None:
    world = mixture_world(SDES[kind])
    drawn = [draw(world, (2,), range(5), SamplerConfig(name, steps=9)).z for name in ("edm-euler", "ddim")]
    assert torch.equal(*drawn)


@pytest.mark.parametrize("kind", SDES)
def test_churn_keeps_mean_and_variance_of_a_gaussian_world(kind: str) -> None:
    world = gaussian_world(SDES[kind])
    end = time_end_of(world.sde)
    mean, var = world.moments(end)

    def error(steps: int) -> float:
        times = make_grid(world.sde, "logsnr", steps, end)
        got = exact_moments(world, SamplerConfig("edm-heun", steps=steps, churn=20.0), times)
        return float(torch.cat([(got[0] - mean) / var.sqrt(), got[1] / var - 1]).abs().max())

    # Heun's order 2: with fixed churn the noise added over the whole way stays the same.
    assert math.log2(error(200) / error(400)) == pytest.approx(2, abs=0.15)
    assert error(400) < 0.005


@pytest.mark.parametrize("name", ["edm-euler", "edm-heun"])
def test_churned_samples_have_their_exact_moments_and_are_independent(name: str) -> None:
    world, config = gaussian_world(SDES["geometric"]), SamplerConfig(name, steps=25, churn=15.0)
    times = make_grid(world.sde, world.sde.grid, 25, time_end_of(world.sde))
    drawn = draw(wide(world, 32), (96,), range(60), config, dtype=torch.float64)
    assert standard_scores(drawn.z, *exact_moments(world, config, times, from_prior=True)).abs().max() < 4


class Asked:
    """A world that writes down the times it is asked at."""

    def __init__(self, sde: SDE) -> None:
        self.world, self.sde, self.times = gaussian_world(sde), sde, list[float]()

    def eps(self, z: Tensor, t: Tensor) -> Tensor:
        self.times.append(float(t[0]))
        return self.world.eps(z, t)

    drift = eps


@pytest.mark.parametrize("kind", SDES)
def test_the_model_is_asked_where_the_churned_noise_is_and_never_beyond_one(kind: str) -> None:
    asked = Asked(SDES[kind])
    config = SamplerConfig("edm-euler", steps=8, grid="logsnr", churn=2.0, churn_min=0.1, churn_max=1.0)
    draw(asked, (3,), [0], config, dtype=torch.float64)
    times = make_grid(asked.sde, "logsnr", 8, time_end_of(asked.sde))[:-1]
    s = (-0.5 * log_snr(asked.sde, times)).exp()
    s_asked = (-0.5 * log_snr(asked.sde, torch.tensor(asked.times, dtype=torch.float64))).exp()
    within = (s >= 0.1) & (s <= 1.0)
    assert 0 < within.sum() < 8
    torch.testing.assert_close(s_asked, torch.where(within, 1.25 * s, s), rtol=1e-9, atol=0)
    everywhere = replace(config, churn=100.0, churn_min=0.0, churn_max=None)
    asked.times.clear()
    draw(asked, (3,), [0], everywhere, dtype=torch.float64)
    assert max(asked.times) == 1.0


def test_churn_noise_scales_what_is_added() -> None:
    """With S_noise = 0 the churn only moves the clock; u itself stays as it is."""
    world = gaussian_world(VPSDE())
    times = make_grid(world.sde, "logsnr", 6, 1e-5)
    silent = SamplerConfig("edm-euler", steps=6, churn=2.0, churn_noise=0.0)
    z = initial(world, 3, 3)
    out = [
        find_sampler("edm-euler").run(
            CountedScore(world, 3), z, times, SeededNoise([k, k + 1, k + 2]), silent
        )
        for k in (0, 10)
    ]
    assert torch.equal(*out)
