r"""The nodes of a step grid in the coordinates in which the probability flow is straight: (u, s).

With u = z / m_t and s = sigma_t / m_t the flow of any linear SDE is du/ds = eps_theta(z, t) (Song et al.,
arXiv:2010.02502, section 4.3; Zhang & Chen, arXiv:2204.13902), so that a solver needs no more of the SDE than
s and m at its nodes. Steps are taken on z itself: u reaches 1/m_1, where float32 would lose what z keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from lsgm.config import SamplerConfig, require
from lsgm.devices import clock
from lsgm.errors import UserError
from lsgm.ode import ODESolution
from lsgm.rng import SeededNoise
from lsgm.sampling.grids import OPTIMISED, default_grid, make_grid, time_end_of
from lsgm.sampling.registry import Sampler, find_sampler
from lsgm.sde import SDE

__all__ = ["CountedScore", "Drawn", "Nodes", "ScoreFunction", "draw"]


@dataclass(frozen=True)
class Nodes:
    """A grid of N + 1 times with what solvers need at each of them, as numbers in float64."""

    score: CountedScore
    times: Tensor
    m: tuple[float, ...]
    """Coefficient m_t of z_0 in the mean of q(z_t | z_0)."""
    sigma: tuple[float, ...]
    """Standard deviation sigma_t of q(z_t | z_0)."""
    s: tuple[float, ...]
    """sigma_t / m_t, falling along the grid."""

    @classmethod
    def of(cls, score: CountedScore, times: Tensor) -> Nodes:
        """Return the nodes at ``times``, float64 [N + 1]."""
        m, sigma = score.sde.mean(times), score.sde.sigma(times)
        return cls(score, times, *(tuple(values.tolist()) for values in (m, sigma, sigma / m)))

    @property
    def steps(self) -> int:
        """N."""
        return len(self.m) - 1

    def eps(self, z: Tensor, k: int) -> Tensor:
        """Return eps_theta(z, t_k) of a batch: one evaluation."""
        return self.score.eps(z, self.times[k].expand(len(z)))

    def clean(self, z: Tensor, k: int, eps: Tensor) -> Tensor:
        """Return the prediction of z_0 from z at t_k: (z - sigma_k eps) / m_k."""
        return (z - self.sigma[k] * eps) / self.m[k]

    def step(self, z: Tensor, k: int, j: int, slope: Tensor) -> Tensor:
        """Return z at t_j from z at t_k by du/ds = ``slope``: m_j (z / m_k + (s_j - s_k) slope)."""
        return (self.m[j] / self.m[k]) * z + (self.m[j] * (self.s[j] - self.s[k])) * slope


# Drawing samples: what a sampler needs of a score model, the count of its evaluations, and ``draw``


class ScoreFunction(Protocol):
    """What sampling and likelihood know of a model; t is [B] float64, results have z_t's shape and dtype."""

    @property
    def sde(self) -> SDE:
        """The forward diffusion."""

    def eps(self, z_t: Tensor, t: Tensor, /) -> Tensor:
        """Predicted noise eps_theta(z_t, t); the score is -eps_theta / sigma_t."""

    def drift(self, z_t: Tensor, t: Tensor, /) -> Tensor:
        """Probability-flow velocity dz/dt = f z + g^2 eps_theta / (2 sigma_t), arXiv:2106.05931 section 2."""


class CountedScore:
    """A score function that counts its evaluations, sample by sample, in ``nfe`` (int64 [B])."""

    def __init__(self, score: ScoreFunction, batch: int, device: torch.device | str = "cpu") -> None:
        self._score = score
        self.sde = score.sde
        self.nfe = torch.zeros(batch, dtype=torch.int64, device=device)

    def eps(self, z_t: Tensor, t: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the predicted noise of the batch, or of its ``rows`` only."""
        self._count(rows)
        return self._score.eps(z_t, t)

    def drift(self, z_t: Tensor, t: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the probability-flow velocity of the batch, or of its ``rows`` only."""
        self._count(rows)
        return self._score.drift(z_t, t)

    def _count(self, rows: Tensor | None) -> None:
        if rows is None:
            self.nfe += 1
        else:
            self.nfe[rows] += 1


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
    `lsgm.sampling.optimised_grid.GridCache` pays it once.

    Raises ConfigError for an unknown sampler or grid, or one that the SDE or the options do not fit,
    SolverError where an adaptive solver cannot go on, UserError where a sample is not finite.
    """
    config = replace(config, grid=grid) if grid else config
    sampler = find_sampler(config.name)
    _check(sampler, score.sde, config)
    noise = seeds if isinstance(seeds, SeededNoise) else _noise(seeds, device)
    device = noise.device
    times = _times(score, shape, sampler, config, device)
    counted = CountedScore(score, len(noise), device)
    z = noise.normal(*shape, dtype=dtype) * (config.temperature * score.sde.prior_var**0.5)
    started = clock(device)
    result = sampler.run(counted, z, times.to(device), noise, config)
    z = result.y if isinstance(result, ODESolution) else result
    if config.denoise and not sampler.denoises:
        z = _denoised(counted, z, times[-1].to(device))
    seconds = clock(device) - started
    if isinstance(result, ODESolution):
        return _finite(Drawn(z, counted.nfe, result.accepted, result.rejected, seconds), sampler)
    accepted = torch.full_like(counted.nfe, len(times) - 1)
    return _finite(Drawn(z, counted.nfe, accepted, torch.zeros_like(accepted), seconds), sampler)


def _times(
    score: ScoreFunction, shape: Sequence[int], sampler: Sampler, config: SamplerConfig, device: torch.device
) -> Tensor:
    """Return the times of a run: those given, or a grid of so many steps."""
    if config.times:
        time_end_of(score.sde, config.times[-1])
        return torch.tensor(config.times, dtype=torch.float64)
    end, name = time_end_of(score.sde, config.time_end), config.grid or default_grid(score.sde)
    if name == OPTIMISED:
        from lsgm.sampling.optimised_grid import optimised_times  # which needs the counting of this module

        return optimised_times(score, shape, config, device).times
    return make_grid(score.sde, name, 1 if sampler.adaptive else config.steps, end, config.rho)


def _denoised(score: CountedScore, z: Tensor, t: Tensor) -> Tensor:
    """Return E[z_0 | z_t] = (z_t - sigma_t eps_theta) / m_t (Tweedie)."""
    return (z - score.sde.sigma(t) * score.eps(z, t.expand(len(z)))) / score.sde.mean(t)


def _noise(seeds: Sequence[int], device: torch.device | str | None) -> SeededNoise:
    return SeededNoise(seeds, device=device or "cpu", stream="sampler")


def _check(sampler: Sampler, sde: SDE, config: SamplerConfig) -> None:
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


def _finite(drawn: Drawn, sampler: Sampler) -> Drawn:
    """Return ``drawn``. Raises UserError, naming the first sample that is not finite, where there is one."""
    bad = (~drawn.z.isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()
    if bad:
        raise UserError(
            f"sampler '{sampler.name}' left {len(bad)} of {len(drawn.z)} samples not finite, the first is "
            f"sample {bad[0]}; check the weights, take more steps or end at a later time"
        )
    return drawn
