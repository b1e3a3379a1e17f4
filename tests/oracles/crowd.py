"""Noise for statistics over many samples, which seeds of their own would make slow."""

from __future__ import annotations

import torch
from torch import Tensor

from lsgm.rng import SeededNoise

__all__ = ["Crowd"]


class Crowd(SeededNoise):
    """The N(0, 1) noise of many rows from one generator."""

    def __init__(self, rows: int, seed: int = 0) -> None:
        super().__init__(())
        self._rows, self._generator = rows, torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self._rows

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(self._rows, *shape, dtype=dtype, generator=self._generator)
