"""Mixtures of Gaussians in any dimension: the exact flow by SciPy, and the exact law of a projection."""

from __future__ import annotations

import numpy as np
import torch
from oracles.gaussian import MixtureWorld
from scipy.integrate import solve_ivp
from scipy.stats import norm
from torch import Tensor

from lsgm.sampling import ScoreFunction
from lsgm.sde import SDE

__all__ = ["covariance_at", "exact_flow", "mean_at", "mixture_in", "projected_cdf"]


def mixture_in(size: int, sde: SDE, components: int = 3, seed: int = 0) -> MixtureWorld:
    """Clusters of different widths and weights, centres about one apart, in ``size`` dimensions."""
    rng = np.random.default_rng(seed)
    mu = torch.from_numpy(rng.normal(size=(components, size)))
    s2 = torch.linspace(0.2, 0.5, components, dtype=torch.float64)
    weights = torch.linspace(2.0, 1.0, components, dtype=torch.float64)
    return MixtureWorld(sde, mu, s2, weights / weights.sum())


def exact_flow(world: ScoreFunction, z: Tensor, start: float, end: float) -> Tensor:
    """The probability flow from one time to another by DOP853 (order 8), local errors of 1e-12."""

    def velocity(t: float, flat: np.ndarray) -> np.ndarray:
        state = torch.from_numpy(flat.reshape(z.shape))
        return world.drift(state, torch.full((len(z),), t, dtype=torch.float64)).numpy().ravel()

    solution = solve_ivp(velocity, (start, end), z.numpy().ravel(), method="DOP853", rtol=1e-12, atol=1e-12)
    assert solution.success
    return torch.from_numpy(solution.y[:, -1].reshape(z.shape))


def mean_at(world: MixtureWorld, t: float) -> Tensor:
    """E z_t, [D]."""
    return world.sde.mean(torch.tensor(t)) * (world.weights @ world.mu)


def covariance_at(world: MixtureWorld, t: float) -> Tensor:
    """Cov z_t = m_t^2 (sum_k w_k (s2_k I + mu_k mu_k^T) - mu mu^T) + sigma_t^2 I, [D, D]."""
    mean = world.weights @ world.mu
    second = (world.weights[:, None] * world.mu).T @ world.mu - mean.outer(mean)
    eye = torch.eye(len(mean), dtype=torch.float64)
    at = torch.tensor(t)
    return world.sde.mean(at).square() * (second + (world.weights @ world.s2) * eye) + world.sde.var(at) * eye


def projected_cdf(world: MixtureWorld, t: float, direction: Tensor, values: Tensor) -> np.ndarray:
    """P(direction . z_t <= value), exactly: a mixture of normal distributions, for a unit direction."""
    at = torch.tensor(t)
    m, var = world.sde.mean(at), world.sde.var(at)
    centres, widths = m * (world.mu @ direction), (m.square() * world.s2 + var).sqrt()
    standard = (values[:, None] - centres) / widths
    return norm.cdf(standard.numpy()) @ world.weights.numpy()
