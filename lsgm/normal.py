r"""Normal latents under the diffusion: everything about them is known in closed form.

For z_0 ~ N(mu, lambda) the marginals of the diffusion are Normal too, with mean m_t mu and variance

.. math:: V_t = m_t^2 \lambda + \sigma_t^2, \qquad E[\epsilon \mid z_t] = c_t (z_t - m_t \mu), \quad
          c_t = \sigma_t / V_t.

That prediction is what a mixed score leaves to the Normal prior (arXiv:2106.05931, section 3.2), and what the
cross entropy's control variate compares the network with (`lsgm.objective.bound`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lsgm.sde import SDE

__all__ = ["SMALLEST_VARIANCE", "NormalLatents", "NormalReference", "cosines", "standard_normal"]

SMALLEST_VARIANCE = 1e-3
"""Variances below it are taken as it: a coefficient that is constant in the data must not divide by 0."""
MOMENTUM = 0.002
"""Weight of a batch's moments in the running ones, once 1 / batches seen has fallen below it."""


def cosines(size: int) -> Tensor:
    """Return the orthonormal DCT-II matrix [size, size], float64: row k is the k-th frequency."""
    place = torch.arange(size, dtype=torch.float64)
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
        self.register_buffer("rows", cosines(height), persistent=False)
        self.register_buffer("columns", cosines(width), persistent=False)

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
