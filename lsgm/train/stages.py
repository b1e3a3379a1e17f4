"""The stages of an LSGM: the VAE with a Normal prior, the score prior alone, and both together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from lsgm.logs import log
from lsgm.objective.bound import Objective
from lsgm.recipes.recipe import JointStage, KLConfig, ObjectiveConfig, PriorStage, VAEStage
from lsgm.score import ScoreModel
from lsgm.train.losses import FrozenVAELoss, JointLoss, NormalPriorLoss
from lsgm.train.optim import ParamGroup, WeightAverage
from lsgm.train.prepare import LatentCache, inactive_channels, largest_squared_distance, pixel_means
from lsgm.train.stage import Stage, TrainingSet
from lsgm.vae.base import VAE
from lsgm.vae.small import FlatVAE


def make_objective(config: ObjectiveConfig, prior: ScoreModel) -> Objective:
    """Return the training objective that a recipe describes."""
    return Objective.make(prior.sde, **vars(config))


def make_vae_objective(config: ObjectiveConfig, stage: JointStage, prior: ScoreModel) -> Objective | None:
    """Return the objective that the VAE's own times come from; None where it shares the prior's."""
    if stage.vae_times == "shared":
        return None
    sampled = stage.vae_importance_sampling
    return make_objective(replace(config, weighting="ll", importance_sampling=sampled), prior)


def second_step(
    vae: VAE,
    prior: ScoreModel,
    objective: ObjectiveConfig,
    config: JointStage,
    sigma2_max_from_data: bool = False,
) -> PriorStep:
    """Return stage 2 as its settings want it: VAE and prior together, or the prior alone."""
    kind = JointStep if config.train_vae else PriorStep
    return kind(vae, prior, objective, config, sigma2_max_from_data, name="stage2")


@dataclass(frozen=True)
class NormalPriorStep(Stage):
    """Stage 1: the VAE alone with its Normal prior."""

    vae: VAE
    config: VAEStage
    name: str = "stage1"
    compile_of: tuple[str, ...] = ("vae.encoder", "vae.decoder")

    @cached_property
    def module(self) -> NormalPriorLoss:
        """The loss, with the VAE inside."""
        return NormalPriorLoss(
            self.vae,
            self.config.kl,
            importance_samples=self.config.importance_samples,
            vae_penalty=self.config.vae_penalty,
        )

    def groups(self) -> list[ParamGroup]:
        """Return the VAE's parameters."""
        return [ParamGroup("vae", list(self.vae.parameters()), self.config.vae)]

    def prepare(self, images: TrainingSet, *, fresh: bool) -> None:
        """Start a new flat VAE of binary pixels from their means; one with weights of a run keeps them."""
        vae = self.vae
        if fresh and isinstance(vae, FlatVAE) and vae.pixels.kind == "binary" and vae.untouched:
            vae.start_from(pixel_means(images))


@dataclass(frozen=True)
class PriorStep(Stage):
    """The score prior alone, on a VAE that stays as it is."""

    vae: VAE
    prior: ScoreModel
    objective: ObjectiveConfig
    config: PriorStage
    sigma2_max_from_data: bool = False
    """Whether the variance exploding SDE's largest variance is to be found before the first step."""
    name: str = "prior_stage"
    compile_of: tuple[str, ...] = ("vae.encoder", "vae.decoder", "prior.network")

    @cached_property
    def module(self) -> JointLoss:
        """The loss, with VAE and prior inside."""
        objective = make_objective(self.objective, self.prior)
        return FrozenVAELoss(
            self.vae, self.prior, objective, KLConfig(1.0, 1.0, 0.0), prior_penalty=self.config.prior_penalty
        )

    def groups(self) -> list[ParamGroup]:
        """Return the prior's parameters, mixing logits included."""
        return [ParamGroup("prior", list(self.prior.parameters()), self.config.prior)]

    def prepare(self, images: TrainingSet, *, fresh: bool) -> TrainingSet | None:
        """Look at the latents of the training set before the first step, and return them if they are cached.

        Channels that are not in use and the largest variance are found once, when the stage is ``fresh``:
        later they come with the weights. The latents are encoded anew by the same noise.
        """
        config = self.config
        if fresh and config.drop_inactive:
            inactive = inactive_channels(self.vae, images, config.batch_size, config.inactive_batches)
            self.prior.drop_channels(inactive)
        if fresh and self.sigma2_max_from_data:
            self.prior.set_sigma2_max(largest_squared_distance(self.vae, images))
        cache = self._cache(images) if config.cached_draws else None
        return replace(images, source=cache, pipeline=cache) if cache else None

    def _cache(self, images: TrainingSet) -> LatentCache | None:
        """Return the training set's latents as often as asked, or as memory has room for them, or None."""
        asked = self.config.cached_draws
        fitting = images.world.largest([-float(LatentCache.fitting(self.vae, images, asked))])
        draws = int(-fitting[0])
        if draws < asked and images.world.main:
            instead = f"{draws} of each image are" if draws else "each batch is encoded anew: none is"
            log.warning(f"memory has no room for {asked} latents of every training image; {instead} kept")
        return LatentCache.of(self.vae, images, draws) if draws else None


@dataclass(frozen=True)
class JointStep(PriorStep):
    """Stage 2: VAE and score prior together, each with its optimiser."""

    config: JointStage
    name: str = "stage2"

    @cached_property
    def module(self) -> JointLoss:
        """The loss, with VAE and prior inside."""
        config = self.config
        return JointLoss(
            self.vae,
            self.prior,
            make_objective(self.objective, self.prior),
            config.kl,
            times=config.vae_times,
            vae_objective=make_vae_objective(self.objective, config, self.prior),
            vae_penalty=config.vae_penalty,
            prior_penalty=config.prior_penalty,
        )

    def groups(self) -> list[ParamGroup]:
        """Return the parameters of the VAE, and of the prior, mixing logits included."""
        return [ParamGroup("vae", list(self.vae.parameters()), self.config.vae), *super().groups()]

    def attach(self, average: WeightAverage) -> None:
        """Give the averaged weights to the VAE's half of the objective, where it wants them."""
        if self.config.ema_prior:
            self.module.attach(average)
