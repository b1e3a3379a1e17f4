"""diffusers' multistep schedulers on any SDE and any grid of times.

They know only x = m z_0 + sigma n with m^2 + sigma^2 = 1, which is z / sqrt(m^2 + sigma^2) of the SDE at
hand: s = sigma / m and the noise n are the same in both scales, and s is all that a scheduler asks of a grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lsgm.sampling import ScoreFunction

__all__ = ["scheduled"]


def scheduled(
    scheduler: Any, world: ScoreFunction, z: Tensor, times: Tensor, fresh: Sequence[Tensor] = ()
) -> Tensor:
    """Take z from times[0] to times[-1] by the scheduler's steps, with one noise of ``fresh`` for each."""
    m, sigma = world.sde.mean(times), world.sde.sigma(times)
    scale = (m.square() + sigma.square()).sqrt()
    scheduler.set_timesteps(len(times) - 1)
    scheduler.sigmas = sigma / m  # in float64, and ours: the scheduler's own are those of its betas
    x = z / scale[0]
    for k, timestep in enumerate(scheduler.timesteps):
        eps = world.eps(x * scale[k], times[k].expand(len(x)))
        options = {"variance_noise": fresh[k]} if fresh else {}
        x = scheduler.step(eps, timestep, x, **options).prev_sample
    return x * scale[-1]
