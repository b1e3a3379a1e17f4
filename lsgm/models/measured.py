"""Trained models as the harness sees them: images from seeds, bounds on -log P(x), and what they cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from lsgm.config import DensityConfig, SamplerConfig
from lsgm.errors import UserError
from lsgm.generative import Density, Pixels, Samples
from lsgm.likelihood import ode_log_prob
from lsgm.models.config import ObjectiveConfig
from lsgm.models.latent import LSGM, AnyVAE, Coder, Encoded, VAECoder, parameter_counts
from lsgm.objective import Objective
from lsgm.pixels import PixelDistribution
from lsgm.precision import device_of
from lsgm.rng import SeededNoise
from lsgm.samplers import draw
from lsgm.samplers.grids import time_end_of
from lsgm.score import ScoreModel
from lsgm.vae import VAE, normal_log_prob, sum_per_sample

__all__ = ["NormalPriorModel", "ScoreBasedModel", "likelihood_bound", "measure_lsgm", "measure_vae"]


@dataclass(frozen=True)
class ScoreBasedModel:
    """A score model behind a coder: an LSGM, or a data-space SGM whose coder only adds noise."""

    coder: Coder
    prior: ScoreModel
    bound: Objective
    """The objective with the likelihood weighting, importance sampled: the bound's estimator."""
    name: str = ""
    sha256: str = ""
    parameters: Mapping[str, int] = field(default_factory=dict)

    @property
    def pixels(self) -> Pixels:
        """Shape and levels of the images."""
        return self.coder.pixels

    @property
    def has_prior(self) -> bool:
        """Sampling runs a diffusion."""
        return True

    @torch.no_grad()
    def sample(self, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        """Solve the reverse process from the noise of each seed, then draw the pixels of p(x | z)."""
        if sampler.time_end is None:
            sampler = replace(sampler, time_end=self.coder.ode_start)
        device = device_of(self.prior)
        started = time.perf_counter()
        drawn = draw(
            self.prior, self.coder.latent_shape, SeededNoise(seeds, device=device, stream="prior"), sampler
        )
        lower = SeededNoise(seeds, device=device, stream="lower latents")
        images = _pixels_from(self.coder.decode(drawn.z, lower.normal), self.pixels, seeds, device)
        return Samples(images, drawn.nfe.cpu(), time.perf_counter() - started)

    def density(self, levels: Tensor, seeds: Sequence[int], config: DensityConfig) -> Density:
        """Bound -log P(x) <= E_q[-log p(x | z) + log q(z | x) - log p(z)], one draw of z per image.

        ``nelbo`` takes -log p(z) from theorem 1 of arXiv:2106.05931, with ``draws`` times per image that
        cover (0, 1) evenly; ``ode`` from the probability flow of the score model. Raises UserError for a
        decoder that gives levels no probability.
        """
        started = time.perf_counter()
        device = device_of(self.prior)
        noise = SeededNoise(seeds, device=device, stream="density")
        with torch.no_grad():
            encoded = self.coder.encode(levels.to(device), noise.normal)
        _require_mass(encoded.is_mass, self.name)
        if config.method == "ode":
            log_q, (cross_entropy, nfe) = encoded.log_q, self._flow(encoded, seeds, config)
        else:
            log_q = encoded.log_q_mean
            cross_entropy, nfe = self._score_matching(encoded, noise, config.draws)
        terms = {
            "reconstruction": encoded.reconstruction.double(),
            "negative_entropy": log_q.double(),
            "cross_entropy": cross_entropy + encoded.lower,
        }
        terms = {key: value.cpu() for key, value in terms.items()}
        return Density(sum(terms.values(), torch.zeros(())), nfe.cpu(), time.perf_counter() - started, terms)

    @torch.no_grad()
    def _score_matching(self, encoded: Encoded, noise: SeededNoise, draws: int) -> tuple[Tensor, Tensor]:
        z_0 = encoded.z_0
        offset = noise.uniform(dtype=torch.float64)
        total = torch.zeros_like(offset)
        for index in range(draws):
            eps = noise.normal(*z_0.shape[1:])
            total += self.bound.cross_entropy(self.prior, z_0, (offset + index) / draws, eps).value
        return total / draws, torch.full(offset.shape, draws)

    def _flow(self, encoded: Encoded, seeds: Sequence[int], config: DensityConfig) -> tuple[Tensor, Tensor]:
        result = ode_log_prob(
            self.prior,
            encoded.z_start,
            seeds,
            rtol=config.rtol,
            atol=config.atol,
            time_eps=self.coder.ode_start,
            divergence=config.divergence,
            probes=config.probes,
        )
        return -result.log_p, result.nfe


@dataclass(frozen=True)
class NormalPriorModel:
    """A VAE with its Normal prior: one decoder pass per image and no evaluations of a score network."""

    vae: VAE
    device: torch.device
    name: str = ""
    sha256: str = ""
    parameters: Mapping[str, int] = field(default_factory=dict)

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
        started = time.perf_counter()
        noise = SeededNoise(seeds, device=self.device, stream="prior")
        z = tuple(noise.normal(*shape) * sampler.temperature for shape in self.vae.groups.shapes)
        images = _pixels_from(self.vae.likelihood(z), self.pixels, seeds, self.device)
        return Samples(images, torch.zeros(len(seeds), dtype=torch.int64), time.perf_counter() - started)

    @torch.no_grad()
    def density(self, levels: Tensor, seeds: Sequence[int], config: DensityConfig) -> Density:
        """Bound -log P(x) with one draw of z per image and the prior's exact density.

        Raises UserError for a decoder that gives levels no probability, and for the method ``ode``.
        """
        if config.method == "ode":
            raise UserError(
                f"{self.name or 'this model'} has a Normal prior and no probability flow; ask for its nelbo"
            )
        started = time.perf_counter()
        noise = SeededNoise(seeds, device=self.device, stream="density")
        posterior = self.vae.posterior(levels.to(self.device), noise.normal)
        likelihood = self.vae.likelihood(posterior.z)
        _require_mass(likelihood.is_mass, self.name)
        terms = {
            "reconstruction": -sum_per_sample(likelihood.log_prob(levels.to(self.device))),
            "negative_entropy": torch.stack(posterior.log_q).sum(dim=0),
            "cross_entropy": -sum(
                (sum_per_sample(normal_log_prob(z)) for z in posterior.z), torch.zeros((), device=self.device)
            ),
        }
        terms = {key: value.double().cpu() for key, value in terms.items()}
        nfe = torch.zeros(len(seeds), dtype=torch.int64)
        return Density(sum(terms.values(), torch.zeros(())), nfe, time.perf_counter() - started, terms)


def _require_mass(is_mass: bool, name: str) -> None:
    """Raise UserError for pixels with a density: nats of it bound no probability and depend on a unit."""
    if not is_mass:
        raise UserError(
            f"{name or 'this model'} has a Normal decoder, a density that gives levels no probability; "
            "ask for its images only, or train it with the decoder logistic or mixture"
        )


def _pixels_from(
    distribution: PixelDistribution, pixels: Pixels, seeds: Sequence[int], device: torch.device
) -> Tensor:
    """Return uint8 images: draws where pixels are binary, means otherwise, as the field scores them."""
    if pixels.kind == "binary":
        image = distribution.sample(SeededNoise(seeds, device=device, stream="pixels").uniform(*pixels.shape))
    else:
        image = distribution.mean()
    return (image * 255).round().clamp(0, 255).to(torch.uint8).cpu()


def likelihood_bound(prior: ScoreModel, config: ObjectiveConfig) -> Objective:
    """Return the bound of theorem 1 from the smallest time a prior was trained at, importance sampled."""
    return Objective.make(prior.sde, weighting="ll", importance_sampling=True, time_eps=config.time_eps)


def measure_lsgm(config: ObjectiveConfig, networks: LSGM, state: Mapping[str, Any]) -> ScoreBasedModel:
    """Return a trained LSGM as the harness sees it; its flow ends where the SDE's own end of time is."""
    return ScoreBasedModel(
        coder=VAECoder(networks.vae, time_end_of(networks.prior.sde, None)),
        prior=networks.prior,
        bound=likelihood_bound(networks.prior, config),
        name=state["name"],
        sha256=state["sha256"],
        parameters=parameter_counts(networks),
    )


def measure_vae(networks: nn.Module, state: Mapping[str, Any]) -> NormalPriorModel:
    """Return a trained VAE with its Normal prior as the harness sees it."""
    vae = networks.get_submodule("vae")
    assert isinstance(vae, AnyVAE)
    counts = {name: count for name, count in parameter_counts(networks).items() if name == "vae"}
    return NormalPriorModel(vae, device_of(vae), state["name"], state["sha256"], counts)
