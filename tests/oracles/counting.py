"""A score function that counts, on its own, the rows that it is asked for."""

from __future__ import annotations

from torch import Tensor

from lsgm.sampling import ScoreFunction
from lsgm.sde import SDE

__all__ = ["Counting"]


class Counting:
    """Pass every question on to ``world`` and add up the ``rows``."""

    def __init__(self, world: ScoreFunction) -> None:
        self.world, self.rows = world, 0

    @property
    def sde(self) -> SDE:
        return self.world.sde

    def eps(self, z: Tensor, t: Tensor) -> Tensor:
        self.rows += len(z)
        return self.world.eps(z, t)

    def drift(self, z: Tensor, t: Tensor) -> Tensor:
        self.rows += len(z)
        return self.world.drift(z, t)
