"""A VAE with its Normal prior as the harness sees it: no diffusion, one pass of the decoder per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lsgm.config import DensityConfig, SamplerConfig
from lsgm.devices import clock
from lsgm.errors import UserError
from lsgm.generative import Density, Pixels, Samples, SamplingFlops
from lsgm.likelihood.bounds import Draws, bound
from lsgm.model.sketch import operations
from lsgm.pixels import pixels_from, require_mass
from lsgm.rng import RepeatedNoise, SeededNoise
from lsgm.vae.base import VAE, normal_log_prob, repeated, sum_per_sample

__all__ = ["NormalPriorModel"]


@dataclass(frozen=True)
class NormalPriorModel:
    """A VAE with its Normal prior: one decoder pass per image and no evaluations of a score network."""

    vae: VAE
    device: torch.device
    name: str = ""
    sha256: str = ""
    parameters: Mapping[str, int] = field(default_factory=dict)
    remark: str = ""

    @property
    def pixels(self) -> Pixels:
        """Shape and levels of the images."""
        return self.vae.pixels

    @property
    def has_prior(self) -> bool:
        """There is no diffusion to run."""
        return False

    @torch.no_grad()
    def sample(self, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        """Decode z ~ N(0, temperature^2 I) of each seed and draw the pixels of p(x | z)."""
        started = clock(self.device)
        noise = SeededNoise(seeds, device=self.device, stream="prior")
        z = tuple(noise.normal(*shape) * sampler.temperature for shape in self.vae.groups.shapes)
        drawn = clock(self.device)
        images = pixels_from(self.vae.likelihood(z), self.pixels, seeds, self.device)
        ended = clock(self.device)
        nfe = torch.zeros(len(seeds), dtype=torch.int64)
        return Samples(images, nfe, ended - started, ended - drawn)

    def sampling_flops(self) -> SamplingFlops:
        """Return the operations of an image: the decoder's, and none of a score network."""
        z = tuple(torch.zeros(1, *shape, device=self.device) for shape in self.vae.groups.shapes)
        return SamplingFlops(
            0, operations(lambda: pixels_from(self.vae.likelihood(z), self.pixels, [0], self.device))
        )

    @torch.no_grad()
    def density(self, levels: Tensor, seeds: Sequence[int], config: DensityConfig) -> Density:
        """Bound -log P(x) by draws of log w = log p(x | z) + log N(z; 0, I) - log q(z | x), z ~ q(z | x).

        ``nelbo`` is the mean of -log w over ``samples`` draws, ``iw`` -log of the mean of w. The prior's
        density is exact, and so both are strict. Raises UserError for a decoder that gives levels no
        probability, and for the method ``ode``.
        """
        if config.method == "ode":
            name = self.name or "this model"
            raise UserError(f"{name} has a Normal prior and no probability flow; ask for its nelbo or iw")
        noise = RepeatedNoise(seeds, device=self.device, stream="density")
        levels = levels.to(self.device)
        return bound(lambda count: self._draws(levels, noise.take(count), count), len(levels), config)

    def _draws(self, levels: Tensor, noise: SeededNoise, count: int) -> Draws:
        posterior = self.vae.posterior(levels, noise.normal, count)
        likelihood = self.vae.likelihood(posterior.z)
        require_mass(likelihood.is_mass, self.name)
        log_p = [sum_per_sample(normal_log_prob(z)) for z in posterior.z]
        terms = {
            "reconstruction": -sum_per_sample(likelihood.log_prob(repeated(levels, count))),
            "negative_entropy": torch.stack(posterior.log_q).sum(dim=0),
            "cross_entropy": -torch.stack(log_p).sum(dim=0),
        }
        groups = {f"negative_entropy/{group}": log_q for group, log_q in enumerate(posterior.log_q)}
        groups |= {f"cross_entropy/{group}": -nats for group, nats in enumerate(log_p)}
        return Draws(terms, groups, torch.zeros(len(noise), dtype=torch.int64))
