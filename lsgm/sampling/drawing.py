"""Drawing samples: the times of a run, its noise, one sampler down the grid, and what that has cost."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from lsgm.config import SamplerConfig, require
from lsgm.devices import clock
from lsgm.errors import UserError
from lsgm.ode import ODESolution
from lsgm.rng import SeededNoise
from lsgm.sampling.grids import GridCache, make_grid, time_end_of
from lsgm.sampling.registry import CountedScore, Sampler, ScoreFunction, find_sampler, node_times
from lsgm.score import ScoreModel
from lsgm.sde import SDE


@dataclass(frozen=True)
class Drawn:
    """Samples ``z`` [B, ...]; per sample (int64 [B]) network evaluations and solver steps; wall seconds."""

    z: Tensor
    nfe: Tensor
    accepted: Tensor
    rejected: Tensor
    seconds: float


@torch.no_grad()
def draw(
    score: ScoreFunction,
    shape: Sequence[int],
    seeds: Sequence[int] | SeededNoise,
    config: SamplerConfig,
    device: torch.device | str | None = None,
    *,
    grid: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Drawn:
    """Draw one sample of ``shape`` per seed: z_1 ~ temperature * N(0, prior_var I), then the reverse process.

    Sample k depends on seed k alone. The device is that of the noise where noise is given, else ``device``,
    else the CPU. ``grid`` stands for that of ``config``; without either it is the one that suits the SDE. An
    optimised grid is made anew at each call, at a price that is neither in ``nfe`` nor in ``seconds``:
    `lsgm.sampling.grids.GridCache` pays it once.

    Raises ConfigError for an unknown sampler or grid, or one that the SDE or the options do not fit,
    SolverError where an adaptive solver cannot go on, UserError where a sample is not finite.
    """
    config = replace(config, grid=grid) if grid else config
    sampler = find_sampler(config.name)
    check_sampler(sampler, score.sde, config)
    precision = getattr(score, "precision", "float32")
    require(
        config.precision == precision,
        f"precision is {config.precision}, and the score function given computes in {precision}; draw by its "
        "model's sample, or give what lsgm.model.running.in_bfloat16 makes of it",
    )
    # What is drawn is decided by the noise of each row and the times that all share.
    if isinstance(seeds, SeededNoise):
        noise = seeds
    else:
        noise = SeededNoise(seeds, device=device or "cpu", stream="sampler")
    device = noise.device
    config = GridCache().resolve(score, shape, config, device)
    times = _times(score.sde, config, sampler.adaptive, device)
    counted = CountedScore(score, len(noise), device)
    z = noise.normal(*shape, dtype=dtype) * (config.temperature * score.sde.prior_var**0.5)
    # From the prior down to the last time, and there perhaps to E[z_0 | z_t] (Tweedie).
    started = clock(device)
    with score.fixed() if isinstance(score, ScoreModel) else nullcontext():
        result = sampler.run(counted, z, times, noise, config)
        z = result.y if isinstance(result, ODESolution) else result
        if config.denoise and not sampler.denoises:
            t = times[-1]
            z = (z - score.sde.sigma(t) * counted.eps(z, node_times(times, len(z))[-1])) / score.sde.mean(t)
    seconds = clock(device) - started
    _refuse_infinite(z, sampler)
    if isinstance(result, ODESolution):
        return Drawn(z, counted.nfe, result.accepted, result.rejected, seconds)
    accepted = torch.full_like(counted.nfe, len(times) - 1)
    return Drawn(z, counted.nfe, accepted, torch.zeros_like(accepted), seconds)


@lru_cache(16)
def _times(sde: SDE, config: SamplerConfig, adaptive: bool, device: torch.device) -> Tensor:
    """Return the times of a run: those given, or a grid of so many steps; the same tensor for every batch."""
    if config.times:
        time_end_of(sde, config.times[-1])
        return torch.tensor(config.times, dtype=torch.float64, device=device)
    end = time_end_of(sde, config.time_end)
    return make_grid(sde, config.grid or sde.grid, 1 if adaptive else config.steps, end, config.rho).to(
        device
    )


def check_sampler(sampler: Sampler, sde: SDE, config: SamplerConfig) -> None:
    """Raise ConfigError where a sampler fits neither its settings nor the SDE."""
    steps = len(config.times) - 1 if config.times else config.steps
    require(
        sampler.adaptive or steps >= sampler.min_steps,
        f"steps is {steps}, but sampler '{sampler.name}' needs at least {sampler.min_steps}",
    )
    require(
        not (sampler.adaptive and (config.times or config.grid)),
        f"sampler '{sampler.name}' chooses its own steps; leave out times and grid, or choose heun",
    )
    require(
        sde.is_vp_like or not sampler.vp_only,
        f"sampler '{sampler.name}' needs a variance preserving SDE (vp or geometric), not "
        f"{type(sde).__name__}; choose heun, euler or dopri5",
    )


def _refuse_infinite(z: Tensor, sampler: Sampler) -> None:
    """Raise UserError, naming the first sample that is not finite, where there is one."""
    bad = (~z.isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()
    if bad:
        raise UserError(
            f"sampler '{sampler.name}' left {len(bad)} of {len(z)} samples not finite, the first is "
            f"sample {bad[0]}; check the weights, take more steps or end at a later time"
        )
