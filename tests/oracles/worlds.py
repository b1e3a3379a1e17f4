"""The four SDEs at the settings the tests share, and a world of each kind on them."""

from __future__ import annotations

import torch
from oracles.gaussian import GaussianWorld, MixtureWorld
from torch import Tensor

from lsgm.rng import SeededNoise
from lsgm.sampling import ScoreFunction
from lsgm.sde import SDE, VESDE, VPSDE, GeometricVPSDE, SubVPSDE

__all__ = ["SDES", "gaussian_world", "initial", "mixture_world"]

SDES: dict[str, SDE] = {
    "vp": VPSDE(),
    "vp-noisy": VPSDE(sigma2_0=1e-3),
    "subvp": SubVPSDE(),
    "ve": VESDE(sigma2_min=1e-4, sigma2_max=25.0),
    "geometric": GeometricVPSDE(),
}


def gaussian_world(sde: SDE) -> GaussianWorld:
    mu = torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64)
    return GaussianWorld(sde, mu, torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64))


def mixture_world(sde: SDE) -> MixtureWorld:
    mu = torch.tensor([[1.0, 0.5], [-1.0, 0.0], [0.3, -1.2]], dtype=torch.float64)
    s2, weights = torch.tensor([0.2, 0.4, 0.3]), torch.tensor([0.5, 0.3, 0.2])
    return MixtureWorld(sde, mu, s2.double(), weights.double())


def initial(world: ScoreFunction, count: int, size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """The z_1 that ``draw`` starts from."""
    noise = SeededNoise(range(count), stream="sampler").normal(size, dtype=dtype)
    return noise * world.sde.prior_var**0.5
