r"""The score model: an SDE, a network, and how its prediction stands on that of a Normal law of the latents.

About Normal latents everything is known in closed form. For z_0 ~ N(mu, lambda) the marginals of the
diffusion are Normal too, with mean m_t mu and variance

.. math:: V_t = m_t^2 \lambda + \sigma_t^2, \qquad E[\epsilon \mid z_t] = c_t (z_t - m_t \mu), \quad
          c_t = \sigma_t / V_t.

That prediction is what a mixed score leaves to the Normal prior (arXiv:2106.05931, section 3.2), and what the
cross entropy's control variate compares the network with (`lsgm.objective.bound`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lsgm.config import require
from lsgm.errors import ConfigError
from lsgm.sde import SDE

SMALLEST_VARIANCE = 1e-3
"""Variances below it are taken as it: a coefficient that is constant in the data must not divide by 0."""
MOMENTUM = 0.002
"""Weight of a batch's moments in the running ones, once 1 / batches seen has fallen below it."""


DEAD_LOGIT = -15.0
"""Mixing logit of a dropped channel: a share of 3e-7."""

Parameterisation = Literal["mixed", "velocity"]
"""How a network stands on the Normal prior: `ScoreModel`."""


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Return one number per sample, shaped and typed to multiply ``like`` [B, ...]."""
    return values.to(like.dtype).reshape(-1, *([1] * (like.ndim - 1)))


def coefficient(name: str, of: Callable[[Tensor], Tensor], sde: SDE, t: Tensor, like: Tensor) -> Tensor:
    """Return ``per_sample(of(t), like)``, a coefficient of an SDE.

    Times that samplers come back to, batch after batch, keep what was computed for them in the tensor's own
    ``kept`` (`lsgm.sampling.registry.node_times`): these numbers, each of a handful of tiny operations, would
    take longer than all else that a step does outside of the network.
    """
    kept: dict[object, tuple[SDE, Tensor]] | None = getattr(t, "kept", None)
    if kept is None:
        return per_sample(of(t), like)
    key = name, id(sde), like.dtype, like.ndim
    if key not in kept:
        kept[key] = sde, per_sample(of(t), like)
    return kept[key][1]


def cosines(size: int) -> Tensor:
    """Return the orthonormal DCT-II matrix [size, size], float64, on the CPU: row k is the k-th frequency."""
    place = torch.arange(size, dtype=torch.float64, device="cpu")
    rows = torch.cos(math.pi / size * place[:, None] * (place + 0.5)) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows


@dataclass(frozen=True)
class NormalLatents:
    """N(mu, lambda) of latents [C, h, w], independent in each channel's cosine coefficients.

    Neighbouring latents of a channel are correlated, and their cosine coefficients much less so: a variance
    for every frequency is a covariance in space. The basis is orthonormal, so that the diffusion's noise is
    white in it too, and sums over a channel's coefficients are sums over its pixels.
    """

    mean: Tensor
    """mu of every coefficient, float64 [C, h, w], or [] for one of all."""
    var: Tensor
    """lambda of every coefficient, above 0; shaped like ``mean``."""
    basis: tuple[Tensor, Tensor] | None = None
    """Cosines [h, h] and [w, w]; None where the coefficients are the latents themselves."""

    def rotate(self, z: Tensor) -> Tensor:
        """Return the coefficients of latents [B, C, h, w]."""
        if self.basis is None:
            return z
        rows, columns = (matrix.to(z.dtype) for matrix in self.basis)
        return rows @ z @ columns.T

    def back(self, coefficients: Tensor) -> Tensor:
        """Return the latents of coefficients [B, C, h, w]."""
        if self.basis is None:
            return coefficients
        rows, columns = (matrix.to(coefficients.dtype) for matrix in self.basis)
        return rows.T @ coefficients @ columns

    def marginal_var(self, sde: SDE, t: Tensor) -> Tensor:
        """Return V_t = m_t^2 lambda + sigma_t^2, float64 [B, C, h, w], or [B, 1, 1, 1] of one for all."""
        return _column(sde.mean(t).square()) * self.var + _column(sde.var(t))

    def gap(self, sde: SDE, z_t: Tensor, t: Tensor) -> Tensor:
        r"""Return c(t) z_t - c_t (z_t - m_t mu), in the latents' own coordinates and z_t's dtype.

        By how much the prediction for the standard Normal latents, `SDE.unit_eps_coef`, exceeds that for
        these. With V^1_t the variance of the former, lambda_1 = 1 - sigma2_0,

        .. math:: \frac{\sigma_t}{V^1_t} - \frac{\sigma_t}{V_t}
                  = \frac{\sigma_t m_t^2 (\lambda - \lambda_1)}{V^1_t V_t},

        so that nothing cancels, and two equal laws differ by exactly 0.
        """
        var, m, sigma = self.marginal_var(sde, t), _column(sde.mean(t)), _column(sde.sigma(t))
        excess = self.var - (1.0 - sde.sigma2_0)
        slope = sigma * m.square() * excess / (_column(sde.marginal_var(t)) * var)
        shift = sigma * m * self.mean / var
        return self.back(slope.to(z_t.dtype) * self.rotate(z_t) + shift.to(z_t.dtype))

    def cross_entropy(self, sde: SDE, z_0: Tensor, t: Tensor) -> Tensor:
        r"""Return CE(q(z_t | z_0) || p_t) by channels, nats, float64 [B, C, h, w] -> [B, C]; t is [B].

        .. math:: \tfrac12 \sum \left[ \log 2 \pi V_t + (\sigma_t^2 + m_t^2 (z_0 - \mu)^2) / V_t \right]
        """
        var, m2, noise = self.marginal_var(sde, t), _column(sde.mean(t).square()), _column(sde.var(t))
        squares = (self.rotate(z_0.double()) - self.mean).square()
        nats = 0.5 * (torch.log(2 * math.pi * var) + (noise + m2 * squares) / var)
        return nats.flatten(2).sum(dim=2)

    def log_prob(self, z_0: Tensor) -> Tensor:
        """Return log N(z_0; mu, lambda) by channels, nats, float64 [B, C, h, w] -> [B, C]."""
        squares = (self.rotate(z_0.double()) - self.mean).square() / self.var
        return (-0.5 * (torch.log(2 * math.pi * self.var) + squares)).flatten(2).sum(dim=2)


def standard_normal(sde: SDE) -> NormalLatents:
    """Return N(0, 1 - sigma2_0), the latents whose prediction is c(t) z_t; its numbers go to any device."""
    mean = torch.zeros((), dtype=torch.float64, device="cpu")
    return NormalLatents(mean, mean + (1.0 - sde.sigma2_0))


class NormalReference(nn.Module):
    """The Normal law that fits the latents of the training images: running moments, kept with the weights.

    Any fixed law keeps the control variate exact, so that nothing hangs on how good the fit is but variance.
    A batch's own moments come in after its loss, never before. Until then, and in checkpoints older than
    this, it is N(0, 1 - sigma2_0).
    """

    mean: Tensor
    """[C, h, w], by cosine coefficients."""
    var: Tensor
    """[C, h, w]."""
    seen: Tensor
    """Batches that the moments have seen, int64 []."""

    def __init__(self, shape: Sequence[int], sde: SDE) -> None:
        super().__init__()
        _, height, width = shape
        self._start = {
            # On the CPU whatever the default device: networks are also built as shapes alone.
            "mean": torch.zeros(*shape, device="cpu"),
            "var": torch.full(tuple(shape), 1.0 - sde.sigma2_0, device="cpu"),
            "seen": torch.zeros((), dtype=torch.int64, device="cpu"),
        }
        for name, value in self._start.items():
            self.register_buffer(name, value.to(torch.get_default_device(), copy=True))
        for name, size in (("rows", height), ("columns", width)):
            self.register_buffer(name, cosines(size).to(torch.get_default_device()), persistent=False)

    def latents(self) -> NormalLatents:
        """Return the law as it stands: float64, and copies, for the buffers move on in place."""
        mean, var = (x.to(torch.float64, copy=True) for x in (self.mean, self.var))
        basis = self.get_buffer("rows").double(), self.get_buffer("columns").double()
        return NormalLatents(mean, var.clamp(min=SMALLEST_VARIANCE), basis)

    @torch.no_grad()
    def update(self, mean: Tensor, square: Tensor) -> None:
        """Take in the means [C, h, w] of the coefficients and of their squares over a batch.

        The first batches weigh equally; later ones fade. The variance is that of the raw moments, so that it
        holds what the means of batches differ by.
        """
        self.seen += 1
        weight = torch.clamp(1.0 / self.seen.double(), min=MOMENTUM)
        raw = self.var.double() + self.mean.double().square()
        self.fit(self.mean.double().lerp(mean.double(), weight), raw.lerp(square.double(), weight))

    @torch.no_grad()
    def fit(self, mean: Tensor, square: Tensor) -> None:
        """Take the means [C, h, w] of the coefficients and of their squares in place of what was there."""
        self.mean.copy_(mean)
        self.var.copy_((square.double() - mean.double().square()).clamp(min=SMALLEST_VARIANCE))

    def later_buffers(self) -> dict[str, Tensor]:
        """Return what stands for the buffers in checkpoints that were written before there were any."""
        return {name: value.clone() for name, value in self._start.items()}


def _column(values: Tensor) -> Tensor:
    """Return one number per sample, [B] -> [B, 1, 1, 1]."""
    return values.reshape(-1, 1, 1, 1)


class ScoreModel(nn.Module):
    r"""Noise prediction, score and probability flow of z_t; the same type serves latents and pixels.

    c(t) z_t = E[eps | z_t] for standard normal z_0 is the N(0, I) prior's own prediction. A network NN or F
    stands on it in one of two ways, or, with ``channels`` None, alone: eps = NN, as in data space.

    ``mixed`` (arXiv:2106.05931, section 3.2): with a = sigmoid(logit) per channel, learnt,

    .. math:: \epsilon(z_t, t) = (1 - a) c(t) z_t + a NN(z_t, t),

    so that a = 0 is exactly the N(0, I) prior. ``velocity``: the network is added, not mixed in,

    .. math:: \epsilon(z_t, t) = c(t) z_t + m_t F(z_t, t).

    For VP-like SDEs F is the velocity m_t eps - sigma_t z_0 of arXiv:2202.00512, whose expectation is 0 under
    the Normal prior: F = 0, as a network begins whose last layer starts at zero, is that prior.

    A channel that the posterior leaves at its prior carries no information, only noise: `drop_channels` takes
    it out of the network's input, where it would disturb the prediction for the others, and leaves it to the
    Normal prior. Which channels are in use is a buffer, so that training resumed, averaged weights and
    evaluation all see the model that was trained.

    With ``reference_shape``, that of z_0, the model keeps the moments of its latents, for the control variate
    of the cross entropy (`lsgm.score.NormalReference`).

    Shapes: z_t [B, C, H, W], t [B] in [0, 1]; all returns like z_t and in its dtype.
    """

    active: Tensor
    """Which channels the network sees, bool [1, C, 1, 1]; only with a Normal part."""
    sigma2_max: Tensor
    """The SDE's largest variance, float64 []; only with an SDE that `fits_data`."""
    logit: nn.Parameter | None
    """Of the share a, [1, C, 1, 1]; only of a mixed score."""
    precision: str = "float32"
    """What the network computes in for samples (`lsgm.model.running`)."""
    reference: NormalReference | None

    def __init__(
        self,
        sde: SDE,
        network: nn.Module,
        *,
        channels: int | None = None,
        parameterisation: Parameterisation = "mixed",
        mixing_init: float = -3.0,
        reference_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.sde = sde
        self.network = network
        self.parameterisation = parameterisation
        self.has_normal_part = channels is not None
        self.logit = None
        if channels is not None:
            if parameterisation == "mixed":
                self.logit = nn.Parameter(torch.full((1, channels, 1, 1), mixing_init))
            # Not a float: averages of weights and changes of precision leave it alone.
            self.register_buffer("active", torch.ones(1, channels, 1, 1, dtype=torch.bool))
        if sde.fits_data:
            self.register_buffer("sigma2_max", torch.tensor(sde.prior_var, dtype=torch.float64))
        self.reference = None if reference_shape is None else NormalReference(reference_shape, sde)
        self._fixed: dict[torch.dtype, tuple[Tensor, Tensor]] | None = None
        self._is_whole = False

    @contextmanager
    def fixed(self) -> Iterator[None]:
        """Compute only once, within the block, what depends on the weights alone: they stay as they are."""
        self._fixed, self._is_whole = {}, self.has_normal_part and bool(self.active.all())
        try:
            yield
        finally:
            self._fixed, self._is_whole = None, False

    def _load_from_state_dict(self, *arguments: Any, **keywords: Any) -> None:
        super()._load_from_state_dict(*arguments, **keywords)
        if self.sde.fits_data:
            self.sde = self.sde.with_largest(float(self.sigma2_max))

    @property
    def _is_velocity(self) -> bool:
        return self.has_normal_part and self.parameterisation == "velocity"

    @property
    def has_control(self) -> bool:
        """Whether a Normal law of the latents is known that the network's prediction is near to."""
        return self.reference is not None or self.has_normal_part

    def normal_latents(self) -> NormalLatents:
        """Return the Normal law that the control variate takes; N(0, 1 - sigma2_0) where none is kept."""
        if self.reference is not None:
            return self.reference.latents()
        return standard_normal(self.sde)

    @torch.no_grad()
    def drop_channels(self, inactive: Tensor) -> None:
        """Leave the channels marked in ``inactive``, bool [C], to the N(0, I) prior, for good.

        Raises ConfigError for a network that stands alone, without such a prior.
        """
        if not self.has_normal_part:
            raise ConfigError(
                "inactive latents can only be left to a Normal part, and this prior has none; give it a "
                'mixing-init, or parameterisation = "velocity"'
            )
        dropped = inactive.to(self.active.device).reshape(1, -1, 1, 1)
        self.active.logical_and_(~dropped)
        if self.logit is not None:
            self.logit.masked_fill_(dropped, DEAD_LOGIT)

    @torch.no_grad()
    def set_sigma2_max(self, value: float) -> None:
        """Give the SDE its largest variance; saved with the weights.

        Raises ConfigError for an SDE that does not fit the data so, or a value that is not above sigma2_min.
        """
        self.sde = self.sde.with_largest(value)
        self.sigma2_max.fill_(value)

    def eps(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the prediction of the noise in z_t."""
        raw = self._network(z_t, t)
        if not self.has_normal_part:
            return raw
        normal = self._known("unit", self.sde.unit_eps_coef, t, z_t) * z_t
        if self.logit is None:
            return normal + self._velocity_part(raw, t)
        a, rest = self._shares(self.logit, z_t)
        return rest * normal + a * raw

    def excess(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return eps(z_t, t) - c(t) z_t, what the network adds to the Normal prior's prediction.

        It is a (NN - c z_t) of a mixed score and m_t F of a velocity: nothing is lost where it is small.
        """
        raw = self._network(z_t, t)
        if self._is_velocity:
            return self._velocity_part(raw, t)
        difference = raw - per_sample(self.sde.unit_eps_coef(t), z_t) * z_t
        return difference if self.logit is None else self._shares(self.logit, z_t)[0] * difference

    def score(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return grad log p(z_t) = -eps(z_t, t) / sigma_t."""
        return -self.eps(z_t, t) / per_sample(self.sde.sigma(t), z_t)

    def drift(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return dz/dt of the probability flow, f z + g^2 eps / (2 sigma_t) (arXiv:2011.13456, equation 13).

        For variance-preserving SDEs f = -g^2 / 2 and c = sigma_t, so the linear parts cancel analytically to
        a g^2 / 2 (NN / sigma_t - z) of a mixed score and g^2 m_t F / (2 sigma_t) of a velocity. Near t = 1 of
        the geometric SDE, where g^2 exceeds 10^4, subtracting them numerically would leave rounding noise
        only. For the others a velocity's linear part is f + g^2 / (2 V_t), one number per sample.
        """
        sde, known = self.sde, self._known
        if self._is_velocity:
            # One factor, in float64: near t = 1 of the geometric SDE g^2 is large and m_t small.
            factor = known("factor", lambda t: sde.g2(t) * sde.mean(t) / (2 * sde.sigma(t)), t, z_t)
            flow = factor * (self._network(z_t, t) * self.active)
            if sde.is_vp_like:
                return flow
            linear = known("linear", lambda t: sde.f(t) + sde.g2(t) / (2 * sde.marginal_var(t)), t, z_t)
            return linear * z_t + flow
        half_g2, sigma = known("half", lambda t: sde.g2(t) / 2, t, z_t), known("sigma", sde.sigma, t, z_t)
        if not sde.is_vp_like:
            return known("f", sde.f, t, z_t) * z_t + half_g2 * self.eps(z_t, t) / sigma
        flow = half_g2 * (self._network(z_t, t) / sigma - z_t)
        return flow if self.logit is None else self._shares(self.logit, z_t)[0] * flow

    def _velocity_part(self, raw: Tensor, t: Tensor) -> Tensor:
        return self._known("mean", self.sde.mean, t, raw) * (raw * self.active)

    def _known(self, name: str, of: Callable[[Tensor], Tensor], t: Tensor, like: Tensor) -> Tensor:
        return coefficient(name, of, self.sde, t, like)

    def _shares(self, logit: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return a and 1 - a, each [1, C, 1, 1]."""
        known = self._fixed
        if known is not None and like.dtype in known:
            return known[like.dtype]
        # Pinned through the mask: weight decay moves the logit itself, and averages of weights lag behind it.
        a = torch.sigmoid(logit.where(self.active, DEAD_LOGIT)).to(like.dtype)
        shares = a, 1 - a
        if known is not None and not a.requires_grad:
            known[like.dtype] = shares
        return shares

    def _network(self, z_t: Tensor, t: Tensor) -> Tensor:
        masked = z_t * self.active if self.has_normal_part and not self._is_whole else z_t
        raw: Tensor = self.network(masked, t)
        return raw.to(z_t.dtype)


class EDMPreconditioned(nn.Module):
    r"""The noise prediction eps(z_t, t) of the denoiser D = c_skip u + c_out F(c_in u; c_noise).

    Input and target of the network have unit variance (arXiv:2206.00364, section 5 and table 1).

    There u = z_t / m_t and s = sigma_t / m_t stand for EDM's noisy image and its sigma, so that any linear
    SDE can be preconditioned and not the variance exploding one alone; c_skip = d^2 / (s^2 + d^2),
    c_out = s d / sqrt(s^2 + d^2), c_in = 1 / sqrt(s^2 + d^2), c_noise = log(s) / 4 and d = sigma_data. With
    v = sigma_t^2 + m_t^2 d^2, the variance of z_t, eps = (u - D) / s is

    .. math:: \epsilon = \frac{\sigma_t}{v} z_t - \frac{m_t d}{\sqrt{v}} F(z_t / \sqrt{v}; \log(s) / 4),

    in which nothing cancels at small s. F = 0 is the exact prediction for data from N(0, d^2 I).

    z_t [B, C, H, W], t [B] in [0, 1] -> like z_t. Coefficients are float64; the network's time is c_noise.
    Raises ConfigError where sigma_data is not above 0.
    """

    def __init__(self, network: nn.Module, sde: SDE, sigma_data: float) -> None:
        super().__init__()
        require(sigma_data > 0, f"sigma-data is {sigma_data}; it must be above 0")
        self.network = network
        self.sde = sde
        self.sigma_data = sigma_data

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the prediction of the noise in z_t."""
        mean, sigma = self.sde.mean(t), self.sde.sigma(t)
        scale = torch.hypot(sigma, self.sigma_data * mean)
        raw = self.network(z_t / per_sample(scale, z_t), (sigma / mean).log() / 4)
        normal = per_sample(sigma / scale.square(), z_t) * z_t
        predicted: Tensor = normal - per_sample(self.sigma_data * mean / scale, z_t) * raw.to(z_t.dtype)
        return predicted


class ScaledScore(nn.Module):
    """The noise prediction of a network F by which the score is F(z_t; log(sigma_t / u)) / sigma_t.

    So NCSN++ is trained with the variance exploding SDE (arXiv:2011.13456, appendix H). The score being
    -eps / sigma_t, eps = -F. The unit u is the length, in units of z_t, in which F's sigma is counted: 2 for
    a network that knows pixels as [0, 1] where z_t has them on [-1, 1].

    z_t [B, C, H, W], t [B] in [0, 1] -> like z_t. The logarithm is float64. Raises ConfigError where u is not
    above 0.
    """

    def __init__(self, network: nn.Module, sde: SDE, unit: float = 1.0) -> None:
        super().__init__()
        require(unit > 0, f"sigma-unit is {unit}; it must be above 0")
        self.network = network
        self.sde = sde
        self.log_unit = math.log(unit)

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the prediction of the noise in z_t."""
        scaled: Tensor = self.network(z_t, self.sde.sigma(t).log() - self.log_unit)
        return -scaled
