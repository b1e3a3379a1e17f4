"""The training objective: the cross entropy to a score prior, and both its gradients in one backward pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lsgm.score import NormalLatents, ScoreModel, per_sample
from lsgm.sde import SDE
from lsgm.times import SIGMA_DATA, TimeProposal, Uniform, Weighting, importance_weight, make_proposal
from lsgm.vae.base import sum_per_sample


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


class _Error(NamedTuple):
    """The error of one prediction, as far as its expectation has to be estimated."""

    products: Tensor
    """[B, C, h, w]: || eps - eps_theta ||^2, less the same of the Normal prediction where that is known."""
    squares: Tensor
    """[B, C, h, w]: (eps - eps_theta)^2; no gradient."""


@dataclass(frozen=True)
class Objective:
    r"""Theorem 1 of arXiv:2106.05931 as a training loss, exact for any cut-off ``time_eps`` = e:

    .. math:: CE(q(z_e | x) || p_e) = \int_e^1 \frac{g^2}{2 \sigma^2}
              E || \epsilon - \epsilon_\theta(z_t, t) ||^2 dt
              + \tfrac D2 \log(2 \pi e \sigma_e^2) + E\, KL(N(m_1 z_0, \sigma_1^2) || p(z_1)).

    The VAE is trained with this likelihood weighting, the prior with ``weighting``; t is drawn once for
    both, from the proposal that suits the prior's weighting (algorithm 3), or for each on its own.

    **Control variate.** For a Normal law N(mu, lambda) of the latents, with marginals p^N_t and prediction
    eps_c = c_t (z_t - m_t mu) (`lsgm.score`), the theorem's integral is known for *each* z_0:

    .. math:: \int_e^1 \frac{g^2}{2 \sigma^2} E || \epsilon - \epsilon_c ||^2 dt
              = KL(q_e || p^N_e) - KL(q_1 || p^N_1), \qquad q_t = q(z_t | z_0).

    What is left to estimate is the difference of two errors for one and the same t and eps. With
    delta = eps_theta - eps_c and r = eps - eps_c,

    .. math:: CE = CE(q_e || p^N_e) + E [ w_q \sum \delta (\delta - 2 r) ]
              + CE(q_1 || p(z_1)) - CE(q_1 || p^N_1).

    It is unbiased for any network, costs no evaluation of it, and is without any noise where the network says
    what the Normal prior says. The prior's own gradient does not know the difference, since r depends on no
    parameter; the VAE's loses the noise that both errors share. It is on for priors that keep such a law or
    stand on one, and off with ``control_variate`` false.

    With ``reference_compat`` weights and terms are those of the authors' code, slips included (see
    docs/corrections.md): unweighted means 1 instead of 1/2, uniform times lack the factor 1 - e, r_un has a
    wrong normaliser, the terminal KL is dropped, and where both objectives are one the prior's gradient
    carries the KL coefficient. There is no control variate then.
    """

    sde: SDE
    weighting: Weighting
    proposal: TimeProposal
    time_eps: float
    reference_compat: bool = False
    sigma_data: float = SIGMA_DATA
    """The data's root mean square, for the weighting edm."""
    control_variate: bool = True

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
        control_variate: bool = True,
    ) -> Objective:
        """Build the objective from the names a recipe uses.

        Raises ConfigError where the proposal does not exist, and where there is no noise yet at ``time_eps``.
        """
        chosen = Weighting(weighting)
        kind: Literal["is", "uniform"] = "is" if importance_sampling else "uniform"
        proposal = make_proposal(sde, chosen, kind, time_eps)
        sde.entropy_const(time_eps)  # refused now, not in the first step
        return cls(sde, chosen, proposal, time_eps, reference_compat, sigma_data, control_variate)

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
        leaves the VAE's part of the graph, before the network, the mixing and the control variate alike. The
        prior's gradient is that of its own loss, the VAE's that of k CE.
        """
        # One time for both objectives, with the weight of either.
        t, w_p, w_q = times if isinstance(times, Times) else self.draw(times)
        k_p: Tensor | float = kl_weight if self.reference_compat and self.weighting is Weighting.LL else 1.0
        normal = self._normal(score)

        # The error, seen from z_t by both objectives.
        z_t = scale_gradient(diffuse(self.sde, z_0, t, eps).z_t, kl_weight / k_p * w_q / w_p)
        error = self._error(score, normal, z_t, t, eps)
        products = sum_per_sample(error.products)
        score_loss = w_p.to(products.dtype) * sum_per_sample(error.squares)

        # What is known in closed form, and reaches the VAE alone.
        terminal = self._terminal(z_0)
        known = self._known(normal, z_0, terminal)
        by_channel = w_q[:, None] * _channels(error.products.detach()) + known.detach()

        # Values that carry no gradient keep the surrogate's scale that of the score loss.
        surrogate = k_p * w_p.to(products.dtype) * products
        surrogate = surrogate - surrogate.detach() + k_p * score_loss
        whole = known.sum(dim=1)
        surrogate = surrogate + kl_weight * (whole - whole.detach()).to(surrogate.dtype)
        return CrossEntropy(
            surrogate,
            by_channel.sum(dim=1),
            terminal.detach().sum(dim=1),
            score_loss,
            by_channel,
            terminal.detach(),
        )

    def prior_loss(self, score: ScoreModel, z_0: Tensor, times: Times, eps: Tensor) -> Tensor:
        """Return w_p || eps - eps_theta ||^2 [B], the prior's half alone: nothing flows back into z_0."""
        z_t = diffuse(self.sde, z_0.detach(), times.t, eps).z_t
        error = sum_per_sample((eps - score.eps(z_t, times.t)) ** 2)
        return times.w_p.to(error.dtype) * error

    def vae_loss(self, score: ScoreModel, z_0: Tensor, times: Times, eps: Tensor) -> Tensor:
        """Return the cross entropy by channels [B, C] float64, the VAE's half alone.

        Its gradient is meant for z_0: give a ``score`` whose parameters need none (`lsgm.objective.kl`).
        """
        normal = self._normal(score)
        z_t = diffuse(self.sde, z_0, times.t, eps).z_t
        products = self._error(score, normal, z_t, times.t, eps).products
        return times.w_q[:, None] * _channels(products) + self._known(normal, z_0, self._terminal(z_0))

    def tail(self, score: ScoreModel, z_0: Tensor, eps: Tensor) -> Tensor:
        r"""Return what the bound owes for the way from z_e down to z_0, by channels: nats, float64 [B, C].

        The cross entropy stands at the smallest time e, a VAE's log q and its decoder at z_0. Between them
        stands the Normal step p(z_0 | z_e) with the mean (z_e - sigma_e eps_theta) / m_e that the network
        predicts and the variance lambda sigma_e^2 / V_e that z_0 has given z_e under the Normal law:

        .. math:: -\log p(x) \le E [ -\log p(x | z_0) + \log q(z_0 | x) ] + CE(q_e || p_e) + E[tail], \quad
                  tail = -\log p(z_0 | z_e) + \log q(z_e | z_0),

        a bound of the model that goes by the reverse SDE from t = 1 to e and takes that step, whatever the
        network. Of the estimate for one eps [B, C, h, w], as of the cross entropy's, only what the network
        adds to the Normal law is noisy: with kappa = V_e / (2 m_e^2 lambda),

        .. math:: tail = -\log N(z_0; \mu, \lambda) - CE(q_e || p^N_e)
                  + \sum \kappa \delta (\delta - 2 r).
        """
        normal = score.normal_latents()
        t = self._time(self.time_eps, z_0)
        z_e = diffuse(self.sde, z_0, t, eps).z_t
        # The variance of the step is one of every coefficient: their sums must be taken there.
        delta, rest = (normal.rotate(x.double()) for x in self._beside(score, normal, z_e, t, eps))
        m2 = per_sample(self.sde.mean(t).square(), delta)
        kappa = normal.marginal_var(self.sde, t) / (2 * m2 * normal.var)
        known = -normal.log_prob(z_0) - normal.cross_entropy(self.sde, z_0, t)
        return known + _channels(kappa * delta * (delta - 2 * rest))

    def _normal(self, score: ScoreModel) -> NormalLatents | None:
        """Return the law that the control variate compares with, or None where there is none."""
        on = self.control_variate and not self.reference_compat and score.has_control
        return score.normal_latents() if on else None

    def _error(
        self, score: ScoreModel, normal: NormalLatents | None, z_t: Tensor, t: Tensor, eps: Tensor
    ) -> _Error:
        if normal is None:
            squares = (eps - score.eps(z_t, t)) ** 2
            return _Error(squares, squares.detach())
        delta, rest = self._beside(score, normal, z_t, t, eps)
        # Never the difference of two squares, each of which may be a million times larger.
        return _Error(delta * (delta - 2 * rest), (rest - delta).detach() ** 2)

    def _beside(
        self, score: ScoreModel, normal: NormalLatents, z_t: Tensor, t: Tensor, eps: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return delta = eps_theta - eps_c and r = eps - eps_c, [B, C, h, w]."""
        gap = normal.gap(self.sde, z_t, t)
        delta = score.excess(z_t, t) + gap
        return delta, eps - (per_sample(self.sde.unit_eps_coef(t), z_t) * z_t - gap)

    def _known(self, normal: NormalLatents | None, z_0: Tensor, terminal: Tensor) -> Tensor:
        """Return what of the cross entropy needs no estimate, by channels: [B, C] float64."""
        if normal is None:
            return self._entropies[0] * z_0[0, 0].numel() + terminal
        start, end = self._time(self.time_eps, z_0), self._time(1.0, z_0)
        # CE(q_1 || p(z_1)) is the terminal KL and the entropy of q_1.
        at_end = terminal + self._entropies[1] * z_0[0, 0].numel()
        at_end = at_end - normal.cross_entropy(self.sde, z_0, end)
        return normal.cross_entropy(self.sde, z_0, start) + at_end

    @cached_property
    def _entropies(self) -> tuple[float, float]:
        """Return the entropies of q(z_t | z_0) at the smallest time and at 1, nats per dimension."""
        return self.sde.entropy_const(self.time_eps), self.sde.entropy_const(1.0)

    def _terminal(self, z_0: Tensor) -> Tensor:
        """Return KL(q(z_1 | z_0) || p(z_1)) by channels: [B, C] float64."""
        if self.reference_compat:
            return z_0.new_zeros(z_0.shape[:2], dtype=torch.float64)
        return _channels(self.sde.terminal_kl(z_0))

    def _time(self, t: float, like: Tensor) -> Tensor:
        return torch.full((len(like),), t, dtype=torch.float64, device=like.device)


def _channels(x: Tensor) -> Tensor:
    """Sum over pixels in float64: [B, C, h, w] -> [B, C]."""
    return x.double().flatten(2).sum(dim=2)
