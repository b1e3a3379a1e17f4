"""What the stages minimise: stage 1 the VAE's bound with a Normal prior, stage 2 the LSGM's, end to end."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from lsgm.models.config import JointStage, KLConfig, ObjectiveConfig, VAEStage
from lsgm.models.latent import AnyVAE
from lsgm.objective import Objective
from lsgm.precision import device_of
from lsgm.rng import StepNoise
from lsgm.score import ScoreModel
from lsgm.train.stage import Losses, ParamGroup
from lsgm.vae import normal_log_prob, sum_per_sample

__all__ = ["JointLoss", "JointStep", "NormalPriorLoss", "NormalPriorStep", "make_objective", "mean_losses"]

VALIDATION_BATCH = 256


class NormalPriorLoss(nn.Module):
    """Stage 1: E_q[-log p(x | z_0)] + k (E_q[log q(z_0 | x)] - E_q[log N(z_0; 0, I)])."""

    def __init__(self, vae: AnyVAE, kl: KLConfig) -> None:
        super().__init__()
        self.vae = vae
        self.kl = kl

    def forward(self, levels: Tensor, noise: StepNoise, progress: float) -> Losses:
        """Return the mean loss over uint8 levels [B, C, H, W]; every term is in nats per image."""
        k = self.kl.at(progress)
        posterior = self.vae.posterior(levels, noise.normal)
        reconstruction = -sum_per_sample(self.vae.likelihood(posterior.z).log_prob(levels))
        log_p = torch.stack([sum_per_sample(normal_log_prob(z)) for z in posterior.z])
        kl = (torch.stack(posterior.log_q) - log_p).sum(dim=0)
        terms = {"reconstruction": reconstruction, "kl": kl, "nelbo": reconstruction + kl}
        return Losses(
            (reconstruction + k * kl).mean(), {name: x.detach().mean() for name, x in terms.items()}
        )


class JointLoss(nn.Module):
    """Stage 2 (arXiv:2106.05931, section 3.1, theorem 1): VAE and prior end to end in one backward pass."""

    def __init__(self, vae: AnyVAE, prior: ScoreModel, objective: Objective, kl: KLConfig) -> None:
        super().__init__()
        self.vae = vae
        self.prior = prior
        self.objective = objective
        self.kl = kl

    def forward(self, levels: Tensor, noise: StepNoise, progress: float) -> Losses:
        """Return the mean loss over uint8 levels [B, C, H, W]; every term is in nats per image."""
        k = self.kl.at(progress)
        z, log_q_groups = self.vae.posterior(levels, noise.normal)
        groups = self.vae.groups
        z_0, log_q = groups.stack(z), torch.stack(log_q_groups).sum(dim=0) - groups.log_p_lower(z)
        reconstruction = -sum_per_sample(self.vae.likelihood(z).log_prob(levels))
        eps = noise.normal(*z_0.shape[1:])
        ce = self.objective.cross_entropy(self.prior, z_0, noise.stratified(), eps, kl_weight=k)
        total = (reconstruction + k * log_q + ce.surrogate).mean()
        kl = log_q.detach() + ce.value
        terms = {
            "reconstruction": reconstruction.detach(),
            "kl": kl,
            "nelbo": reconstruction.detach() + kl,
            "score_loss": ce.score_loss,
        }
        return Losses(total, {name: x.mean() for name, x in terms.items()})


def make_objective(config: ObjectiveConfig, prior: ScoreModel) -> Objective:
    """Return the training objective that a recipe describes."""
    return Objective.make(
        prior.sde,
        weighting=config.weighting,
        importance_sampling=config.importance_sampling,
        time_eps=config.time_eps,
    )


def mean_losses(loss: nn.Module, levels: Tensor, seed: int) -> dict[str, float]:
    """Return every term's mean over held-out images, with noise that is the same at every call."""
    sums: dict[str, float] = {}
    device = device_of(loss)
    for index, batch in enumerate(torch.split(levels, VALIDATION_BATCH)):
        noise = StepNoise(f"validation/{seed}", index, global_batch=len(batch), device=device)
        for name, value in loss(batch.to(device), noise, 1.0).terms.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(batch)
    return {name: total / len(levels) for name, total in sums.items()}


@dataclass(frozen=True)
class NormalPriorStep:
    """Stage 1: the VAE alone with its Normal prior."""

    vae: AnyVAE
    config: VAEStage
    name: str = "stage1"
    ema_of: tuple[str, ...] = ("",)
    compile_of: tuple[str, ...] = ("vae.encoder", "vae.decoder")

    @cached_property
    def module(self) -> NormalPriorLoss:
        """The loss, with the VAE inside."""
        return NormalPriorLoss(self.vae, self.config.kl)

    def groups(self) -> list[ParamGroup]:
        """Return the VAE's parameters."""
        return [ParamGroup("vae", list(self.vae.parameters()), self.config.vae)]

    def validate(self, levels: Tensor, seed: int) -> dict[str, float]:
        """Return the mean terms of the bound on held-out levels, in nats per image."""
        return mean_losses(self.module, levels, seed)


@dataclass(frozen=True)
class JointStep:
    """Stage 2: VAE and score prior together, each with its optimiser."""

    vae: AnyVAE
    prior: ScoreModel
    objective: ObjectiveConfig
    config: JointStage
    name: str = "stage2"
    ema_of: tuple[str, ...] = ("",)
    compile_of: tuple[str, ...] = ("vae.encoder", "vae.decoder", "prior.network")

    @cached_property
    def module(self) -> JointLoss:
        """The loss, with VAE and prior inside."""
        objective = make_objective(self.objective, self.prior)
        return JointLoss(self.vae, self.prior, objective, self.config.kl)

    def groups(self) -> list[ParamGroup]:
        """Return the VAE's parameters and the prior's, mixing logits included."""
        return [
            ParamGroup("vae", list(self.vae.parameters()), self.config.vae),
            ParamGroup("prior", list(self.prior.parameters()), self.config.prior),
        ]

    def validate(self, levels: Tensor, seed: int) -> dict[str, float]:
        """Return the mean terms of the bound on held-out levels, in nats per image."""
        return mean_losses(self.module, levels, seed)
