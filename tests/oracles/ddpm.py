"""The discrete diffusion of diffusers' schedulers as an SDE, so that both take the same steps.

The SDE is a table: mean coefficient and variance are those of the scheduler at the chosen training times,
which lie evenly in t from 1 (the noisiest) downwards. Between them log s is a straight line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from oracles.gaussian import MixtureWorld
from oracles.worlds import mixture_world
from torch import Tensor

from lsgm.sde import SDE

__all__ = ["TRAINED", "Ladder", "ladder"]

TRAINED: dict[str, Any] = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
"""Options that all of the schedulers have."""


@dataclass(frozen=True)
class _TableSDE(SDE):
    """A variance preserving diffusion given by s = sigma_t / m_t at increasing times."""

    t: tuple[float, ...]
    log_s: tuple[float, ...]

    @property
    def sigma2_0(self) -> float:
        return 0.0

    def _log_s(self, t: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(np.interp(t.double().numpy(), self.t, self.log_s)))

    def mean(self, t: Tensor) -> Tensor:
        return (1 + (2 * self._log_s(t)).exp()).rsqrt()

    def var(self, t: Tensor) -> Tensor:
        return torch.sigmoid(2 * self._log_s(t))

    def one_minus_var(self, t: Tensor) -> Tensor:
        return torch.sigmoid(-2 * self._log_s(t))

    def f(self, t: Tensor) -> Tensor:
        raise NotImplementedError("a discrete chain has no drift")

    g2 = dvar = inv_var = f


@dataclass(frozen=True)
class Ladder:
    """Training times of a scheduler, falling, and the same as times of an SDE, with the world to sample."""

    timesteps: tuple[int, ...]
    times: tuple[float, ...]
    world: MixtureWorld
    s: Tensor
    """sigma / m at the times."""

    def eps(self, z: Tensor, k: int) -> Tensor:
        """The noise prediction at step k, of a z in the scale of the SDE."""
        return self.world.eps(z, torch.full((len(z),), self.times[k], dtype=torch.float64))


def ladder(alphas_cumprod: Tensor, timesteps: Sequence[int]) -> Ladder:
    """The mixture world on the diffusion with m^2 = ``alphas_cumprod`` at falling ``timesteps``."""
    a = alphas_cumprod.double()[list(timesteps)]
    log_s = 0.5 * (torch.log1p(-a) - a.log())
    count = len(timesteps)
    times = [1 - k / count for k in range(count)]
    sde = _TableSDE(tuple(reversed(times)), tuple(reversed(log_s.tolist())))
    return Ladder(tuple(timesteps), tuple(times), mixture_world(sde), log_s.exp())
