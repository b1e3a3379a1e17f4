"""A world small enough to know: blocky binary pictures and a model that draws them right or wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lsgm.config import DensityConfig, SamplerConfig
from lsgm.generative import Density, Pixels, Samples
from lsgm.rng import SeededNoise

__all__ = ["BernoulliModel", "ink"]


def ink(count: int, seed: int) -> Tensor:
    """Grey pictures of 28x28: a bar at a random place, ink 230 on paper 20."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.randint(2, 20, (count, 1, 1), generator=generator)
    top = torch.randint(2, 20, (count, 1, 1), generator=generator)
    line = torch.arange(28)
    inside = (line >= left) & (line < left + 6) & (line[:, None] >= top) & (line[:, None] < top + 6)
    return torch.where(inside, 230, 20).to(torch.uint8)[:, None]


@dataclass
class BernoulliModel:
    """Independent pixels, each black with probability p: draws, exact log-probabilities and a call count."""

    name: str = "bernoulli"
    p: float = 0.1
    sha256: str = "b" * 64
    pixels: Pixels = field(default_factory=lambda: Pixels(1, 28, 28, "binary"))
    parameters: Mapping[str, int] = field(default_factory=lambda: {"p": 1})
    has_prior: bool = True
    remark: str = ""
    sampled: list[SamplerConfig] = field(default_factory=list)
    scored: int = 0

    def sample(self, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        self.sampled.append(sampler)
        images = (SeededNoise(seeds).uniform(1, 28, 28) < self.p).to(torch.uint8) * 255
        return Samples(images, torch.full((len(seeds),), 2 * sampler.steps), 0.01 * len(seeds))

    def density(self, levels: Tensor, seeds: Sequence[int], config: DensityConfig) -> Density:
        self.scored += len(levels)
        black = levels.double().flatten(1)
        log_p = torch.log(torch.tensor(self.p)).double()
        log_q = torch.log(torch.tensor(1 - self.p)).double()
        nats = -(black * log_p + (1 - black) * log_q).sum(dim=1)
        return Density(nats, torch.ones(len(levels), dtype=torch.int64), 0.1, {"reconstruction": nats})
