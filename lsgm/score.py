"""The score model: an SDE, a network and the mixing of its prediction with the Normal prior's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lsgm.errors import ConfigError
from lsgm.sde import SDE, VESDE

__all__ = ["ScoreModel", "per_sample"]

DEAD_LOGIT = -15.0
"""Mixing logit of a dropped channel: a share of 3e-7."""


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Return one number per sample, shaped and typed to multiply ``like`` [B, ...]."""
    return values.to(like.dtype).reshape(-1, *([1] * (like.ndim - 1)))


class ScoreModel(nn.Module):
    """Noise prediction, score and probability flow of z_t; the same type serves latents and pixels.

    Mixed score (arXiv:2106.05931, section 3.2): with a = sigmoid(logit) per channel,

        eps(z_t, t) = (1 - a) c(t) z_t + a NN(z_t, t),

    where c(t) z_t = E[eps | z_t] for a standard normal z_0, so that a = 0 is exactly the N(0, I) prior.
    ``mixing=None`` leaves the network alone (a = 1), as data-space score models do.

    A channel that the posterior leaves at its prior carries no information, only noise: `drop_channels` takes
    it out of the network's input, where it would disturb the prediction for the others, and pins its share
    near 0. Which channels are in use is a buffer, so that training resumed, averaged weights and evaluation
    all see the model that was trained.

    Shapes: z_t [B, C, H, W], t [B] in [0, 1]; all returns like z_t and in its dtype.
    """

    active: Tensor
    """Which channels the network sees, bool [1, C, 1, 1]; only with mixing."""
    sigma2_max: Tensor
    """The variance exploding SDE's largest variance, float64 []; only with that SDE."""

    def __init__(
        self, sde: SDE, network: nn.Module, *, channels: int | None = None, mixing_init: float = -3.0
    ) -> None:
        super().__init__()
        self.sde = sde
        self.network = network
        self.logit = (
            nn.Parameter(torch.full((1, channels, 1, 1), mixing_init)) if channels is not None else None
        )
        if channels is not None:
            # Not a float: averages of weights and changes of precision leave it alone.
            self.register_buffer("active", torch.ones(1, channels, 1, 1, dtype=torch.bool))
        if isinstance(sde, VESDE):
            self.register_buffer("sigma2_max", torch.tensor(sde.sigma2_max, dtype=torch.float64))

    def _load_from_state_dict(self, *arguments: Any, **keywords: Any) -> None:
        super()._load_from_state_dict(*arguments, **keywords)
        if isinstance(self.sde, VESDE):
            self.sde = replace(self.sde, sigma2_max=float(self.sigma2_max))

    @torch.no_grad()
    def drop_channels(self, inactive: Tensor) -> None:
        """Leave the channels marked in ``inactive``, bool [C], to the N(0, I) prior, for good.

        Raises ConfigError for a model without mixing, which has no such prior.
        """
        if self.logit is None:
            raise ConfigError(
                "inactive latents can only be dropped from a mixed score; give the prior a mixing-init"
            )
        dropped = inactive.to(self.active.device).reshape(1, -1, 1, 1)
        self.active.logical_and_(~dropped)
        self.logit.masked_fill_(dropped, DEAD_LOGIT)

    @torch.no_grad()
    def set_sigma2_max(self, value: float) -> None:
        """Give the variance exploding SDE its largest variance; saved with the weights.

        Raises ConfigError for another SDE, or a value that is not above sigma2_min.
        """
        if not isinstance(self.sde, VESDE):
            raise ConfigError("only the ve SDE takes its sigma2-max from the data; give the others a number")
        self.sde = replace(self.sde, sigma2_max=value)
        self.sigma2_max.fill_(value)

    def eps(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the prediction of the noise in z_t."""
        raw = self._network(z_t, t)
        if self.logit is None:
            return raw
        a = self._share(self.logit, z_t)
        return (1 - a) * per_sample(self.sde.unit_eps_coef(t), z_t) * z_t + a * raw

    def score(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return grad log p(z_t) = -eps(z_t, t) / sigma_t."""
        return -self.eps(z_t, t) / per_sample(self.sde.sigma(t), z_t)

    def drift(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return dz/dt of the probability flow, f z + g^2 eps / (2 sigma_t) (arXiv:2011.13456, equation 13).

        For variance-preserving SDEs f = -g^2 / 2 and c = sigma_t, so the linear parts cancel analytically to
        a g^2 / 2 (NN / sigma_t - z). Near t = 1 of the geometric SDE, where g^2 exceeds 10^4, subtracting
        them numerically would leave rounding noise only.
        """
        half_g2 = per_sample(self.sde.g2(t) / 2, z_t)
        sigma = per_sample(self.sde.sigma(t), z_t)
        if not self.sde.is_vp_like:
            return per_sample(self.sde.f(t), z_t) * z_t + half_g2 * self.eps(z_t, t) / sigma
        flow = half_g2 * (self._network(z_t, t) / sigma - z_t)
        return flow if self.logit is None else self._share(self.logit, z_t) * flow

    def _share(self, logit: Tensor, like: Tensor) -> Tensor:
        # Pinned through the mask: weight decay moves the logit itself, and averages of weights lag behind it.
        return torch.sigmoid(logit.where(self.active, DEAD_LOGIT)).to(like.dtype)

    def _network(self, z_t: Tensor, t: Tensor) -> Tensor:
        raw: Tensor = self.network(z_t if self.logit is None else z_t * self.active, t)
        return raw.to(z_t.dtype)
