"""Images drawn while others are extracted, each on a stream of its own: the same features to the last bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lsgm.config import SamplerConfig
from lsgm.distributed import World
from lsgm.generative import Pixels, Samples
from lsgm_eval.bench.fid_memory import FreeFeatures
from lsgm_eval.samples.gather import run_pass

SAMPLER = SamplerConfig("heun", steps=1)


class Drawing:
    """A model whose image of a seed goes through some convolutions of a device."""

    name, sha256, has_prior, remark = "drawing", "0" * 64, False, ""
    parameters: Mapping[str, int] = {}
    pixels = Pixels(3, 16, 16, "discrete")

    def __init__(self, device: torch.device) -> None:
        self.device = device
        torch.manual_seed(0)
        self.net = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(6))).to(device)

    @torch.inference_mode()
    def sample(self, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        """Return the images of the seeds."""
        noise = torch.stack(
            [torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(k)) for k in seeds]
        )
        drawn = self.net(noise.to(self.device, non_blocking=True))
        levels = (128 + 400 * drawn).clamp(0, 255).to(torch.uint8)
        return Samples(levels, torch.zeros(len(seeds), dtype=torch.int64), 0.0)


class Extracting(FreeFeatures):
    """A random linear map of pixels, on a device."""

    def __init__(self, device: torch.device) -> None:
        super().__init__((3, 16, 16), 32)
        self.device, self.weight = device, self.weight.to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features, on the CPU."""
        return super().__call__(images.to(self.device)).cpu()


def test_features_are_those_of_one_after_the_other(device: torch.device) -> None:
    world, extractor, model = World(0, 1, device), Extracting(device), Drawing(device)
    how = {"batch_size": 8, "world": world}
    found = [run_pass(model, range(120), SAMPLER, [extractor], overlap=each, **how) for each in (True, False)]
    rows = [each.of(extractor).stats.rows for each in found]
    assert np.array_equal(rows[0], rows[1])
    assert rows[0].std() > 0
    assert torch.equal(found[0].preview, found[1].preview)
