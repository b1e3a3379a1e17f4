r"""A score model as samplers see it: its evaluations counted, and straightened out on a grid of times.

With u = z / m_t and s = sigma_t / m_t the flow of any linear SDE is du/ds = eps_theta(z, t) (Song et al.,
arXiv:2010.02502, section 4.3; Zhang & Chen, arXiv:2204.13902), so that a solver needs no more of the SDE than
s and m at the nodes of its grid. Steps are taken on z itself: u reaches 1/m_1, where float32 would lose what
z keeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lsgm.sde import SDE

__all__ = ["CountedScore", "Nodes", "ScoreFunction"]


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
