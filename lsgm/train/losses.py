"""What the stages minimise: the bound with a Normal prior, the LSGM's end to end, the prior's part alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lsgm.objective.bound import Objective, Times
from lsgm.objective.kl import (
    Frozen,
    NormPenalty,
    active_channels,
    balanced,
    batch_mean,
    channel_sums,
    group_shares,
    normal_kl,
)
from lsgm.recipes.recipe import KLConfig, NormPenaltyConfig
from lsgm.rng import StepNoise
from lsgm.score import ScoreModel
from lsgm.train.optim import WeightAverage
from lsgm.train.stage import Losses
from lsgm.vae.base import VAE, LatentDraw, Noise, normal_log_prob, repeated, sum_per_sample


class Penalised(nn.Module):
    """A loss with its networks' norm penalties, ``vae_penalty`` and ``prior_penalty``, where asked."""

    def add_penalty(self, part: str, config: NormPenaltyConfig) -> None:
        """Penalise the child module ``part``, unless both coefficients are 0."""
        if config.spectral > 0 or config.gain > 0:
            self.add_module(f"{part}_penalty", NormPenalty(self.get_submodule(part), config))

    def with_penalty(self, losses: Losses, k: float, kl_end: float) -> Losses:
        """Return the losses with the penalties added, while training."""
        penalties = [child for child in self.children() if isinstance(child, NormPenalty)]
        if not self.training or not penalties:
            return losses
        penalty = torch.stack([child(k, kl_end) for child in penalties]).sum()
        return Losses(losses.total + penalty, {**losses.terms, "penalty": penalty.detach()})


class NormalPriorLoss(Penalised):
    """Stage 1: E_q[-log p(x | z)] + k (E_q[log q(z | x)] - E_q[log N(z; 0, I)]).

    With ``kl.balance`` and k < 1 the groups' KLs are weighted so that each is used (`lsgm.objective.kl`).

    With K = ``importance_samples`` > 1 draws z_i ~ q(z | x) the loss is instead the importance-weighted bound
    of arXiv:1509.00519 (equations 8 and 9), whose gradient is that of the reparametrised draws:

        -log (1/K) sum_i w_i,   w_i = p(x | z_i) N(z_i; 0, I) / q(z_i | x)
    """

    def __init__(
        self,
        vae: VAE,
        kl: KLConfig,
        *,
        importance_samples: int = 1,
        vae_penalty: NormPenaltyConfig | None = None,
    ) -> None:
        super().__init__()
        self.vae = vae
        self.kl = kl
        self.importance_samples = importance_samples
        self.add_penalty("vae", vae_penalty or NormPenaltyConfig())

    def forward(self, levels: Tensor, noise: StepNoise, progress: float) -> Losses:
        """Return the mean loss over uint8 levels [B, C, H, W]; every term is in nats per image."""
        k, samples = self.kl.at(progress), self.importance_samples
        posterior = self.vae.posterior(levels, _noise_of_draws(noise, samples), draws=samples)
        log_prob = self.vae.likelihood(posterior.z).log_prob(repeated(levels, samples))
        reconstruction = -sum_per_sample(log_prob)
        log_p = torch.stack([sum_per_sample(normal_log_prob(z)) for z in posterior.z])
        by_group = torch.stack(posterior.log_q) - log_p
        kl = weighted = by_group.sum(dim=0)
        if self.kl.balance and k < 1:
            shares = group_shares(self.vae.groups)
            weighted = balanced(by_group.T, shares, everywhere=self.training)
        loss = reconstruction + k * weighted
        terms = {"reconstruction": reconstruction, "kl": kl, "nelbo": reconstruction + kl}
        if samples > 1:
            loss = terms["iw"] = importance_weighted(loss, samples)
        terms |= _group_terms(by_group.T)
        losses = Losses(loss.mean(), {name: x.detach().mean() for name, x in terms.items()})
        return self.with_penalty(losses, k, self.kl.end)


class _Encoding(NamedTuple):
    """One draw of all latents of a batch, and what it costs to decode it."""

    groups: tuple[LatentDraw, ...]
    z_0: Tensor
    reconstruction: Tensor


class _Halves(NamedTuple):
    """The two objectives' losses, per sample, and what they are worth."""

    loss: Tensor
    """[B]: what the reconstruction lacks to the loss."""
    by_channel: Tensor
    """[B, C] float64: the cross entropy by channels; no gradient."""
    score_loss: Tensor
    """[B]: the prior's own objective; no gradient."""


class JointLoss(Penalised):
    """Stage 2 (arXiv:2106.05931, section 3.1, theorem 1): VAE and prior end to end in one backward pass.

    ``times`` says what the VAE's cross entropy is estimated with: ``shared``, the prior's own draw of t,
    reweighted; ``own``, a second draw of t with the same eps; ``disjoint``, a second draw of both. With
    ``vae_objective`` the second draw's proposal. A second draw takes a second forward pass through a prior
    whose parameters need no gradient, and the prior's half sees a z_0 that is detached, so that one backward
    pass of the sum gives each part the gradient of its own loss. All ``micro_batches`` of a step are compared
    with one Normal law of the latents.
    """

    micro_batches = 1

    def __init__(
        self,
        vae: VAE,
        prior: ScoreModel,
        objective: Objective,
        kl: KLConfig,
        *,
        times: Literal["shared", "own", "disjoint"] = "shared",
        vae_objective: Objective | None = None,
        vae_penalty: NormPenaltyConfig | None = None,
        prior_penalty: NormPenaltyConfig | None = None,
    ) -> None:
        super().__init__()
        self.vae = vae
        self.prior = prior
        self.objective = objective
        self.vae_objective = vae_objective or objective
        self.kl = kl
        self.times = times
        self._frozen = Frozen(prior)
        self._average: WeightAverage | None = None
        self._moments: list[Tensor] = []
        self.add_penalty("vae", vae_penalty or NormPenaltyConfig())
        self.add_penalty("prior", prior_penalty or NormPenaltyConfig())

    def attach(self, average: WeightAverage) -> None:
        """Have the VAE's half see the prior's averaged weights, from the first update on."""
        self._average = average

    def forward(self, levels: Tensor, noise: StepNoise, progress: float) -> Losses:
        """Return the mean loss over uint8 levels [B, C, H, W]; every term is in nats per image."""
        k = self.kl.at(progress)
        self._follow_sde()
        # Encode, draw all latents, and score the image that they decode to.
        drawn = self._draw(levels, noise)
        # Diffuse z_0 and let the prior predict: for both objectives at once where one factor per sample tells
        # their gradients at z_t apart. Weights of groups stand between the VAE's loss and the error, and
        # leave no such factor.
        balance = self.kl.balance and k < 1
        if self.times == "shared" and not balance:
            halves = self._shared(drawn, noise, k)
        else:
            halves = self._apart(drawn, noise, k, balance=balance)
        # Only now do these latents enter the Normal law that the next steps compare with.
        self._observe(drawn.z_0)
        # One sum, whose backward pass gives each part the gradient of its own loss.
        total = (drawn.reconstruction + halves.loss).mean()
        return self.with_penalty(Losses(total, self._terms(drawn, halves)), k, self.kl.end)

    def _follow_sde(self) -> None:
        self.objective = self.objective.following(self.prior.sde)
        self.vae_objective = self.vae_objective.following(self.prior.sde)

    def _judged(self, objective: Objective) -> Objective:
        """Return an objective as the mode wants it: held-out images always have the control variate."""
        return objective if self.training else replace(objective, control_variate=True)

    def _observe(self, z_0: Tensor) -> None:
        """Take a training batch's latents into the moments that the control variate of the next ones uses."""
        reference = self.prior.reference
        if self.training and reference is not None:
            z = reference.latents().rotate(z_0.detach().double())
            self._moments.append(batch_mean(torch.stack([z, z.square()], dim=1), everywhere=True))
            if len(self._moments) == self.micro_batches:
                reference.update(*torch.stack(self._moments).mean(dim=0))
                self._moments.clear()

    def _draw(self, levels: Tensor, noise: StepNoise) -> _Encoding:
        groups = self.vae.encode(levels, noise.normal)
        z = tuple(draw.z for draw in groups)
        reconstruction = -sum_per_sample(self.vae.likelihood(z).log_prob(levels))
        return _Encoding(groups, self.vae.groups.stack(z), reconstruction)

    def _shared(self, drawn: _Encoding, noise: StepNoise, k: float) -> _Halves:
        """One draw of t, one forward pass (algorithm 3)."""
        eps = noise.normal(*drawn.z_0.shape[1:])
        rho = noise.stratified()
        ce = self._judged(self.objective).cross_entropy(self.prior, drawn.z_0, rho, eps, kl_weight=k)
        loss = k * self._log_q(drawn) + ce.surrogate
        return _Halves(loss, ce.by_channel, ce.score_loss)

    def _apart(self, drawn: _Encoding, noise: StepNoise, k: float, *, balance: bool) -> _Halves:
        """Two forward passes, one for each half (algorithm 2)."""
        # Times and noise of either half, the prior's first.
        eps_p = noise.normal(*drawn.z_0.shape[1:])
        times_p = self.objective.draw(noise.stratified())
        eps_q, times_q = self._second_draw(eps_p, times_p, noise)
        # The VAE's half, through a prior whose parameters stay as they are.
        vae_objective = self._judged(self.vae_objective)
        by_channel = vae_objective.vae_loss(self._frozen_prior(), drawn.z_0, times_q, eps_q)
        # The prior's half, on a z_0 that stays as it is.
        score_loss = self.objective.prior_loss(self.prior, drawn.z_0, times_p, eps_p)
        # The KL, its groups weighted while it is annealed.
        by_group = self._by_group(drawn, by_channel)
        if balance:
            kl = balanced(by_group, group_shares(self.vae.groups), everywhere=self.training)
        else:
            kl = by_group.sum(dim=1)
        return _Halves(k * kl + score_loss, by_channel.detach(), score_loss.detach())

    def _second_draw(self, eps: Tensor, times: Times, noise: StepNoise) -> tuple[Tensor, Times]:
        if self.times == "shared":
            return eps, times
        rho = noise.stratified()
        if self.times == "disjoint":
            eps = noise.normal(*eps.shape[1:])
        return eps, self.vae_objective.draw(rho)

    def _frozen_prior(self) -> ScoreModel:
        """Return the prior that the VAE's half sees: a twin of it, or the average."""
        if self._average is None or self._average.updates == 0:
            score = self._frozen.twin()
        else:
            averaged = self._average.averaged("prior")
            assert isinstance(averaged, ScoreModel)
            score = averaged
            score.train(self.prior.training)
        score.sde = self.prior.sde
        return score

    def _log_q(self, drawn: _Encoding) -> Tensor:
        """Return log q(z | x) - log N(lower groups; 0, I), [B]."""
        log_q = torch.stack([sum_per_sample(draw.log_q) for draw in drawn.groups])
        return log_q.sum(dim=0) - self.vae.groups.log_p_lower(tuple(draw.z for draw in drawn.groups))

    def _by_group(self, drawn: _Encoding, cross_entropy: Tensor) -> Tensor:
        """Return the KL by groups [B, G] float64 from the cross entropy by channels of z_0, [B, C]."""
        groups = self.vae.groups
        parts = torch.split(cross_entropy, [shape[0] for shape in groups.shapes[: groups.top]], dim=1)
        top = [sum_per_sample(d.log_q) + ce.sum(dim=1) for d, ce in zip(drawn.groups, parts, strict=False)]
        lower = [normal_kl(draw).sum(dim=1) for draw in drawn.groups[groups.top :]]
        return torch.stack([*top, *(kl.double() for kl in lower)], dim=1)

    @torch.no_grad()
    def _terms(self, drawn: _Encoding, halves: _Halves) -> dict[str, Tensor]:
        kl = self._log_q(drawn) + halves.by_channel.sum(dim=1)
        log_q = torch.cat([channel_sums(d.log_q) for d in drawn.groups[: self.vae.groups.top]], dim=1)
        terms = {
            "reconstruction": drawn.reconstruction.detach(),
            "kl": kl,
            "nelbo": drawn.reconstruction.detach() + kl,
            "score_loss": halves.score_loss,
            **_group_terms(self._by_group(drawn, halves.by_channel)),
        }
        active = active_channels(log_q + halves.by_channel, everywhere=self.training).sum()
        return {**{name: x.mean() for name, x in terms.items()}, "active_channels": active}


class FrozenVAELoss(JointLoss):
    """The prior's loss on a VAE that stays as it is, in eval mode; in eval mode itself, the LSGM's bound.

    Takes uint8 levels [B, C, H, W] or, while training, ready latents z_0 [B, C, h, w] of a float dtype.
    """

    def train(self, mode: bool = True) -> FrozenVAELoss:
        """Set the mode of everything but the VAE, whose running statistics must not move."""
        super().train(mode)
        self.vae.eval()
        return self

    def forward(self, levels: Tensor, noise: StepNoise, progress: float) -> Losses:
        """Return the mean loss over a batch; every term is in nats per image."""
        if not self.training:
            return super().forward(levels, noise, progress)
        self._follow_sde()
        z_0 = levels if levels.is_floating_point() else self._encode(levels, noise)
        eps = noise.normal(*z_0.shape[1:])
        ce = self.objective.cross_entropy(self.prior, z_0, noise.stratified(), eps)
        self._observe(z_0)
        terms = {"cross_entropy": ce.value.mean(), "score_loss": ce.score_loss.mean()}
        return self.with_penalty(Losses(ce.surrogate.mean(), terms), 1.0, 1.0)

    @torch.no_grad()
    def _encode(self, levels: Tensor, noise: StepNoise) -> Tensor:
        return self.vae.groups.stack(tuple(draw.z for draw in self.vae.encode(levels, noise.normal)))


def importance_weighted(bounds: Tensor, samples: int) -> Tensor:
    """Return -log (1/K) sum_i w_i [B] from -log w_i [B * K], the K draws of an image one after the other."""
    return math.log(samples) - torch.logsumexp(-bounds.view(-1, samples), dim=1)


def _noise_of_draws(noise: StepNoise, draws: int) -> Noise:
    """Return the noise of ``draws`` draws of each image, one after the other: [B * draws, C, h, w]."""

    def normal(*shape: int) -> Tensor:
        return noise.normal(draws, *shape).flatten(0, 1)

    return normal


def _group_terms(by_group: Tensor) -> dict[str, Tensor]:
    """Return the KL of each group [B] by name, where there are several: [B, G]."""
    count = by_group.shape[1]
    return {f"kl/{index}": by_group[:, index] for index in range(count)} if count > 1 else {}
