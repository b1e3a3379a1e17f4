"""Trained models as the harness sees them: images from seeds, bounds on -log P(x), and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lsgm.config import DensityConfig, SamplerConfig
from lsgm.devices import backing_off, clock, device_of
from lsgm.errors import UserError
from lsgm.generative import Density, Pixels, Samples, SamplingFlops
from lsgm.likelihood import Draws, bound, ode_log_prob
from lsgm.model.lsgm import LSGM, Coder, Encoded, VAECoder, operations, parameter_counts
from lsgm.model.running import Running
from lsgm.objective.bound import Objective
from lsgm.ode import SolverError
from lsgm.pixels import pixels_from, require_mass
from lsgm.recipes.recipe import ObjectiveConfig
from lsgm.rng import RepeatedNoise, SeededNoise
from lsgm.sampling import draw, find_sampler
from lsgm.sampling.grids import GridCache, time_end_of
from lsgm.score import ScoreModel
from lsgm.vae.base import VAE, normal_log_prob, repeated, sum_per_sample


@dataclass(frozen=True)
class ScoreBasedModel:
    """A score model behind a coder: an LSGM, or a data-space SGM whose coder only adds noise."""

    has_prior: ClassVar[bool] = True
    coder: Coder
    prior: ScoreModel
    bound: Objective
    """The objective with the likelihood weighting, importance sampled: the bound's estimator."""
    name: str = ""
    sha256: str = ""
    parameters: Mapping[str, int] = field(default_factory=dict)
    remark: str = ""
    dequantised: Coder | None = None
    """The coder by uniform noise on each level's cell; None where there are no levels to make continuous."""
    grids: GridCache = field(default_factory=GridCache, init=False, compare=False, repr=False)
    """What grids made for this model share, so that they are paid for once."""
    running: Running = field(default_factory=Running, init=False, compare=False, repr=False)
    """How its networks run (`lsgm.model.running.prepare`)."""

    @property
    def pixels(self) -> Pixels:
        """Shape and levels of the images."""
        return self.coder.pixels

    @torch.no_grad()
    def sample(self, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        """Solve the reverse process from the noise of each seed, then draw the pixels of p(x | z)."""
        if sampler.time_end is None:
            sampler = replace(sampler, time_end=self.coder.ode_start)
        device, shape = device_of(self.prior), self.coder.latent_shape
        sampler = self.grids.resolve(self.prior, shape, sampler, device)
        started = clock(device)
        score = self.running.score(self.prior, sampler, adaptive=find_sampler(sampler.name).adaptive)
        drawn = draw(score, shape, SeededNoise(seeds, device=device, stream="prior"), sampler)
        solved = clock(device)
        images = self.decoded(drawn.z, seeds)
        ended = clock(device)
        return Samples(images, drawn.nfe.cpu(), ended - started, ended - solved)

    def decoded(self, z: Tensor, seeds: Sequence[int]) -> Tensor:
        """Return the pixels of latents: so many at a time as the decoder has memory for."""
        size = min(self.running.decoder_batch or len(z), len(z)) or 1

        def decode(at_once: int) -> Tensor:
            starts = range(0, max(len(z), 1), at_once)
            return torch.cat(
                [self._decoded_together(z[k : k + at_once], seeds[k : k + at_once]) for k in starts]
            )

        images, taken = backing_off(decode, size, z.device)
        if taken < size:
            self.running.decoder_batch = taken
        return images

    def _decoded_together(self, z: Tensor, seeds: Sequence[int]) -> Tensor:
        lower = SeededNoise(seeds, device=z.device, stream="lower latents")
        return pixels_from(self.coder.decode(z, lower.normal), self.pixels, seeds, z.device)

    def sampling_flops(self) -> SamplingFlops:
        """Return the operations per image of one evaluation of the score network, and of the decoder."""
        z = torch.zeros(1, *self.coder.latent_shape, device=device_of(self.prior))
        t = torch.ones(1, dtype=torch.float64, device=z.device)
        return SamplingFlops(
            operations(lambda: self.prior.eps(z, t)), operations(lambda: self.decoded(z, [0]))
        )

    def density(self, levels: Tensor, seeds: Sequence[int], config: DensityConfig) -> Density:
        """Bound -log P(x) by draws of log w = log p(x | z) + log p(z) - log q(z | x), z ~ q(z | x).

        ``nelbo``: the mean of -log w with theorem 1 of arXiv:2106.05931 for the cross entropy, each draw of
        z at ``draws`` times that cover (0, 1) evenly, its noise less that of the Normal prior's prediction
        (``control_variate``); the terminal KL is a term of its own. The theorem stands at the objective's
        smallest time e, and so does log q of a data-space coder. A VAE's stands at z_0: the way between them
        is the term ``tail`` (`Objective.tail`), one more evaluation. The bound is strict either way, for the
        model that goes down the reverse SDE.

        ``ode``: the same mean with log p(z) by the probability flow from that very z. Strict for the model as
        it is sampled, to the solver's tolerance: Hutchinson's estimate is unbiased, and so is its mean.

        ``iw``: -log of the mean of w over K = ``samples`` draws, with log p(z) by the flow. Strict with the
        exact divergence. With probes log w carries noise of some variance s^2, and a mean of w counts lucky
        noise more than unlucky: E exp(noise) = exp(s^2 / 2) where it is Gaussian. As K grows the value tends
        to -log P(x) - s^2 / 2 and so may fall below -log P(x); ``probe_error`` gives s.

        Raises UserError for a decoder that gives levels no probability, SolverError with the image's row
        where the flow cannot go on.
        """
        coder, device = self._coder(config), device_of(self.prior)
        noise = RepeatedNoise(seeds, device=device, stream="density")
        probes = RepeatedNoise(seeds, device=device, stream="probe")
        levels = levels.to(device)

        def evaluate(count: int) -> Draws:
            part = noise.take(count)
            encoded = coder.encode(levels, part.normal, count)
            require_mass(encoded.is_mass, self.name)
            if config.method == "nelbo":
                return _joined(encoded, encoded.log_q_mean, self._score_matching(encoded, part, config))
            with _image_named(count):
                flow = self._flow(encoded, probes.take(count), coder.ode_start, config)
            return _joined(encoded, encoded.log_q, flow)

        with torch.no_grad(), self.running.of_any_size():
            return bound(evaluate, len(levels), config)

    def step_control(self, config: DensityConfig) -> Literal["state", "density"]:
        """Return what the adaptive steps of a flow follow: as asked, else as the coder's space has it."""
        if config.step_control == "auto":
            return self._coder(config).step_control
        return config.step_control

    def _coder(self, config: DensityConfig) -> Coder:
        """Return the coder that the levels become continuous by."""
        if config.dequantise == "noise" or self.dequantised is None:
            return self.coder
        if config.method == "nelbo":
            raise UserError(
                "the score-matching bound stands at the smallest time, where levels have no cells for uniform"
                " noise to fill; ask for the method ode with it, or dequantise by noise"
            )
        return self.dequantised

    def _score_matching(self, encoded: Encoded, noise: SeededNoise, config: DensityConfig) -> Draws:
        """Return theorem 1's terms as the mean over stratified times for each draw of z_0, and the tail."""
        z_0, draws = encoded.z_0, config.draws
        objective = replace(self.bound, control_variate=config.control_variate)
        offset = noise.uniform(dtype=torch.float64)
        value = torch.zeros(z_0.shape[:2], dtype=torch.float64, device=z_0.device)
        terminal = torch.zeros_like(value)
        for index in range(draws):
            eps = noise.normal(*z_0.shape[1:])
            ce = objective.cross_entropy(self.prior, z_0, (offset + index) / draws, eps)
            value += ce.by_channel / draws
            terminal += ce.terminal_by_channel / draws
        split = {"cross_entropy": value - terminal, "terminal": terminal}
        if encoded.is_clean:
            split["tail"] = objective.tail(self.prior, z_0, noise.normal(*z_0.shape[1:]))
        terms = {name: channels.sum(dim=1) for name, channels in split.items()}
        groups = {
            f"{name}/{group}": part.sum(dim=1)
            for name, channels in split.items()
            for group, part in enumerate(channels.chunk(encoded.top, dim=1) if encoded.top else ())
        }
        return Draws(terms, groups, torch.full(offset.shape, draws + encoded.is_clean, device=z_0.device))

    def _flow(self, encoded: Encoded, probes: SeededNoise, start: float, config: DensityConfig) -> Draws:
        """Return -log p(z) by the probability flow from where the coder ends."""
        followed = self.step_control(config) == "density"
        result = ode_log_prob(
            self.prior,
            encoded.z_start,
            probes,
            rtol=config.rtol,
            atol=config.atol,
            log_p_atol=config.atol if followed else None,
            time_eps=start,
            divergence=config.divergence,
            probes=config.probes,
            solver=config.solver,
            steps=config.steps,
            coordinate=config.coordinate,
        )
        known = config.divergence == "exact" or config.probes > 1
        terms = {"cross_entropy": -result.log_p}
        groups = {"cross_entropy/top": -result.log_p} if encoded.top else {}
        return Draws(terms, groups, result.nfe, result.std_error if known else None)


def _joined(encoded: Encoded, log_q: Tensor, prior: Draws) -> Draws:
    """Return all terms of some draws from the score prior's, to which the lower groups' priors add."""
    lower = {f"cross_entropy/{group}": nats for group, nats in enumerate(encoded.lower, start=encoded.top)}
    cross_entropy = prior.terms["cross_entropy"]
    for nats in encoded.lower:
        cross_entropy = cross_entropy + nats
    terms = {"reconstruction": encoded.reconstruction, "negative_entropy": log_q, **prior.terms}
    groups = {f"negative_entropy/{group}": nats for group, nats in enumerate(encoded.log_q_groups)}
    return replace(
        prior, terms=terms | {"cross_entropy": cross_entropy}, groups={**groups, **prior.groups, **lower}
    )


@contextmanager
def _image_named(draws: int) -> Iterator[None]:
    """Let a solver that cannot go on name the image's row, not that of one of its draws."""
    try:
        yield
    except SolverError as error:
        raise SolverError(error.row // draws, error.t, error.reason) from error


@dataclass(frozen=True)
class NormalPriorModel:
    """A VAE with its Normal prior: one decoder pass per image and no evaluations of a score network."""

    has_prior: ClassVar[bool] = False
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


def likelihood_bound(prior: ScoreModel, config: ObjectiveConfig) -> Objective:
    """Return the bound of theorem 1 from the smallest time a prior was trained at, importance sampled."""
    return Objective.make(prior.sde, weighting="ll", importance_sampling=True, time_eps=config.time_eps)


def training_remark(state: Mapping[str, Any], pixels: Pixels) -> str:
    """Return whether a checkpoint's recipe trained on mirrored images, as published numbers must say.

    Of binary images that are not mirrored nothing is said, nor where the recipe is not known.
    """
    recipe = state.get("meta", {}).get("recipe")
    if recipe is None:
        return ""
    if recipe.get("data", {}).get("flip", False):
        return "trained on mirrored images too"
    return "trained without mirrored images" if pixels.kind == "discrete" else ""


def measure_lsgm(config: ObjectiveConfig, networks: LSGM, state: Mapping[str, Any]) -> ScoreBasedModel:
    """Return a trained LSGM as the harness sees it; its flow ends where the SDE's own end of time is."""
    return ScoreBasedModel(
        coder=VAECoder(networks.vae, time_end_of(networks.prior.sde, None)),
        prior=networks.prior,
        bound=likelihood_bound(networks.prior, config),
        name=state["name"],
        sha256=state["sha256"],
        parameters=parameter_counts(networks),
        remark=training_remark(state, networks.vae.pixels),
    )


def measure_vae(networks: nn.Module, state: Mapping[str, Any]) -> NormalPriorModel:
    """Return a trained VAE with its Normal prior as the harness sees it."""
    vae = networks.get_submodule("vae")
    assert isinstance(vae, VAE)
    counts = {name: count for name, count in parameter_counts(networks).items() if name == "vae"}
    return NormalPriorModel(
        vae, device_of(vae), state["name"], state["sha256"], counts, training_remark(state, vae.pixels)
    )
