"""Models whose samples come nearer to the data with every evaluation, at a price that is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from bernoulli import BernoulliModel
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.generative import Samples, SamplingFlops
from lsgm.rng import SeededNoise
from lsgm.sampling import find_sampler

__all__ = ["CurveModel", "Ink", "Killed"]


@dataclass
class CurveModel(BernoulliModel):
    """Independent pixels, black with probability 0.16 + slowness / NFE, where the data have about 0.04."""

    slowness: float = 1.0
    operations: int = 100

    def sample(self, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        self.sampled.append(sampler)
        nfe = find_sampler(sampler.name).evaluations(sampler) or 40 if self.has_prior else 0
        p = self.p + (self.slowness / nfe if nfe else 0.0)
        images = (SeededNoise(seeds).uniform(1, 28, 28) < p).to(torch.uint8) * 255
        return Samples(
            images, torch.full((len(seeds),), nfe), (0.01 * nfe + 0.002) * len(seeds), 0.002 * len(seeds)
        )

    def sampling_flops(self) -> SamplingFlops:
        return SamplingFlops(self.operations, 50)


class Killed(CurveModel):
    """The same model in a process that is killed at its third point: each is a warm-up and one batch."""

    def sample(self, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        if len(self.sampled) == 5:
            raise KeyboardInterrupt
        return super().sample(seeds, sampler)


class Ink:
    """Mean ink of the four quarters: features without a network, in which these models' order is known."""

    name, sha256, resize, image_shape, dim = "ink", "5" * 64, "", (1, 28, 28), 4

    def __call__(self, images: Tensor) -> Tensor:
        x = images.float()[:, 0] / 255
        half = x.shape[1] // 2
        quarters = (x[:, :half, :half], x[:, :half, half:], x[:, half:, :half], x[:, half:, half:])
        return torch.stack([quarter.mean((1, 2)) for quarter in quarters], dim=1)
