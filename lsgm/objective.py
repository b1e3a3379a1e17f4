"""The training objective: the cross entropy to a score prior, and both its gradients in one backward pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lsgm.proposal import TimeProposal, importance_weight, make_proposal
from lsgm.proposal.base import Uniform
from lsgm.score import ScoreModel, per_sample
from lsgm.sde import SDE
from lsgm.vae import sum_per_sample
from lsgm.weighting import SIGMA_DATA, Weighting

__all__ = ["CrossEntropy", "Diffused", "Objective", "Times", "diffuse", "scale_gradient"]


class _ScaleGradient(torch.autograd.Function):
    """Identity whose backward multiplies by a factor per sample."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return gradients[0] * per_sample(factor, gradients[0]), None


def scale_gradient(z: Tensor, factor: Tensor) -> Tensor:
    """Return z [B, ...] unchanged; gradients that flow back through it are multiplied by ``factor`` [B]."""
    scaled: Tensor = _ScaleGradient.apply(z, factor)  # type: ignore[no-untyped-call]
    return scaled


class Diffused(NamedTuple):
    """z_t = m_t z_0 + sigma_t eps at times t [B] float64, with the eps that made it."""

    z_t: Tensor
    eps: Tensor
    t: Tensor


def diffuse(sde: SDE, z_0: Tensor, t: Tensor, eps: Tensor) -> Diffused:
    """Draw z_t from q(z_t | z_0) (arXiv:2106.05931, section 2)."""
    return Diffused(per_sample(sde.mean(t), z_0) * z_0 + per_sample(sde.sigma(t), z_0) * eps, eps, t)


class Times(NamedTuple):
    """Times t with the weights of || eps - eps_theta ||^2 in the two objectives: all [B] float64."""

    t: Tensor
    w_p: Tensor
    """The prior's weight, under its own weighting."""
    w_q: Tensor
    """The VAE's weight, always the likelihood's."""


class CrossEntropy(NamedTuple):
    """What one draw of t says of CE(q(z_0 | x) || p(z_0)) and of the prior's own loss, per sample in nats."""

    surrogate: Tensor
    """[B]: minimise its mean. Its value means nothing; its gradients are those of both objectives."""
    value: Tensor
    """[B] float64: unbiased estimate of the cross entropy, terminal term included; no gradient."""
    terminal: Tensor
    """[B] float64: KL(N(m_1 z_0, var_1) || p(z_1)), the part of ``value`` that training usually drops."""
    score_loss: Tensor
    """[B]: the prior's objective under its own weighting; no gradient."""
    by_channel: Tensor
    """[B, C] float64: ``value`` by channels of z_0; no gradient."""
    terminal_by_channel: Tensor
    """[B, C] float64: ``terminal`` by channels of z_0; no gradient."""


@dataclass(frozen=True)
class Objective:
    """Theorem 1 of arXiv:2106.05931 as a training loss, exact for any cut-off ``time_eps`` = e:

        CE(q(z_e | x) || p_e) = int_e^1 g^2 / (2 var) E || eps - eps_theta(z_t, t) ||^2 dt
                                + D/2 log(2 pi e var_e) + E KL(N(m_1 z_0, var_1) || p(z_1)).

    The VAE is trained with this likelihood weighting, the prior with ``weighting``; t is drawn once for
    both, from the proposal that suits the prior's weighting (algorithm 3), or for each on its own.

    With ``reference_compat`` weights and terms are those of the authors' code, slips included (see
    docs/corrections.md): unweighted means 1 instead of 1/2, uniform times lack the factor 1 - e, r_un has a
    wrong normaliser, the terminal KL is dropped, and where both objectives are one the prior's gradient
    carries the KL coefficient.
    """

    sde: SDE
    weighting: Weighting
    proposal: TimeProposal
    time_eps: float
    reference_compat: bool = False
    sigma_data: float = SIGMA_DATA
    """The data's root mean square, for the weighting edm."""

    @classmethod
    def make(
        cls,
        sde: SDE,
        *,
        weighting: str,
        importance_sampling: bool,
        time_eps: float,
        reference_compat: bool = False,
        sigma_data: float = SIGMA_DATA,
    ) -> Objective:
        """Build the objective from the names a recipe uses.

        Raises ConfigError where the proposal does not exist, and where there is no noise yet at ``time_eps``.
        """
        chosen = Weighting(weighting)
        kind: Literal["is", "uniform"] = "is" if importance_sampling else "uniform"
        proposal = make_proposal(sde, chosen, kind, time_eps)
        sde.entropy_const(time_eps)  # refused now, not in the first step
        return cls(sde, chosen, proposal, time_eps, reference_compat, sigma_data)

    def following(self, sde: SDE) -> Objective:
        """Return this objective for another SDE, itself where it is the same one."""
        if sde == self.sde:
            return self
        kind: Literal["is", "uniform"] = "uniform" if isinstance(self.proposal, Uniform) else "is"
        return replace(self, sde=sde, proposal=make_proposal(sde, self.weighting, kind, self.time_eps))

    def weights(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return lambda(t) / r(t) of the prior and of the VAE at times from the proposal, [B] float64."""
        w_p = importance_weight(self.sde, self.weighting, self.proposal, t, sigma_data=self.sigma_data)
        w_q = importance_weight(self.sde, Weighting.LL, self.proposal, t)
        if not self.reference_compat:
            return w_p, w_q
        slip = self.proposal.reference_slip
        return w_p * slip * (2.0 if self.weighting is Weighting.UN else 1.0), w_q * slip

    def draw(self, rho: Tensor) -> Times:
        """Return the times that rho [B] in (0, 1) chooses, with their weights."""
        t = self.proposal.sample(rho)
        return Times(t, *self.weights(t))

    def cross_entropy(
        self,
        score: ScoreModel,
        z_0: Tensor,
        times: Tensor | Times,
        eps: Tensor,
        *,
        kl_weight: Tensor | float = 1.0,
    ) -> CrossEntropy:
        """Evaluate one draw per sample: z_0 and eps [B, C, h, w], rho [B] in (0, 1) choosing t, or `Times`.

        One backward pass trains both. With per-sample weights w_p (prior) and w_q (VAE) the two losses share
        the error || eps - eps_theta ||^2, and no network mixes samples, so their gradients with respect to
        z_t differ by the factor k w_q / w_p per sample. `scale_gradient` multiplies by it exactly where z_t
        leaves the VAE's part of the graph, before the network and the mixing alike. The prior's gradient is
        that of its own loss, the VAE's that of k CE.
        """
        t, w_p, w_q = times if isinstance(times, Times) else self.draw(times)
        k_p: Tensor | float = kl_weight if self.reference_compat and self.weighting is Weighting.LL else 1.0
        z_t = diffuse(self.sde, z_0, t, eps).z_t
        prediction = score.eps(scale_gradient(z_t, kl_weight / k_p * w_q / w_p), t)
        squares = (eps - prediction) ** 2
        error = sum_per_sample(squares)
        score_loss = w_p.to(error.dtype) * error
        terminal = self._terminal(z_0)
        terminal_sum = sum_per_sample(terminal)
        constant = self.sde.entropy_const(self.time_eps) * z_0[0].numel()
        value = w_q * error.detach().double() + constant + terminal_sum.detach()
        by_channel = self._by_channel(squares.detach(), w_q, terminal.detach())
        # Subtracting the detached terminal keeps the surrogate's scale that of the score loss.
        surrogate = k_p * score_loss + kl_weight * (terminal_sum - terminal_sum.detach()).to(error.dtype)
        return CrossEntropy(
            surrogate,
            value,
            terminal_sum.detach(),
            score_loss.detach(),
            by_channel,
            terminal.detach().flatten(2).sum(dim=2),
        )

    def prior_loss(self, score: ScoreModel, z_0: Tensor, times: Times, eps: Tensor) -> Tensor:
        """Return w_p || eps - eps_theta ||^2 [B], the prior's half alone: nothing flows back into z_0."""
        z_t = diffuse(self.sde, z_0.detach(), times.t, eps).z_t
        error = sum_per_sample((eps - score.eps(z_t, times.t)) ** 2)
        return times.w_p.to(error.dtype) * error

    def vae_loss(self, score: ScoreModel, z_0: Tensor, times: Times, eps: Tensor) -> Tensor:
        """Return the cross entropy by channels [B, C] float64, the VAE's half alone.

        Its gradient is meant for z_0: give a ``score`` whose parameters need none (`lsgm.models.twin`).
        """
        z_t = diffuse(self.sde, z_0, times.t, eps).z_t
        squares = (eps - score.eps(z_t, times.t)) ** 2
        return self._by_channel(squares, times.w_q, self._terminal(z_0))

    def _terminal(self, z_0: Tensor) -> Tensor:
        if self.reference_compat:
            return torch.zeros_like(z_0, dtype=torch.float64)
        return self.sde.terminal_kl(z_0)

    def _by_channel(self, squares: Tensor, w_q: Tensor, terminal: Tensor) -> Tensor:
        """Return w_q error + entropy + terminal KL of each channel: [B, C, h, w] -> [B, C] float64."""
        constant = self.sde.entropy_const(self.time_eps) * squares[0, 0].numel()
        error = squares.flatten(2).sum(dim=2)
        return w_q[:, None] * error.double() + constant + terminal.flatten(2).sum(dim=2)
