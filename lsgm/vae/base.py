"""The variational autoencoder: q(z_0 | x) by groups, and p(x | z_0)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lsgm.generative import Pixels
from lsgm.pixels import PixelDistribution

Shape = tuple[int, int, int]

Noise = Callable[..., Tensor]
"""Draws N(0, 1) of a shape per sample: ``noise(C, h, w)`` -> [B, C, h, w]."""

LOG_2PI = math.log(2 * math.pi)
MEAN_BOUND = 5.0
"""The means of convolutional q lie within plus or minus this, as in NVAE and LSGM."""


class LatentDraw(NamedTuple):
    """One group's latents and their log-density per variable, in nats: both [B, C_l, h_l, w_l]."""

    z: Tensor
    log_q: Tensor


class Posterior(NamedTuple):
    """One draw from q(z_0 | x) by groups, top scale first: latents and log q of each, summed per sample."""

    z: tuple[Tensor, ...]
    """Latents [B, C_l, h_l, w_l] of every group, float32."""
    log_q: tuple[Tensor, ...]
    """log q(z_l | x, z_<l) in nats, summed over the group's variables, [B] of every group."""


@dataclass(frozen=True)
class LatentGroups:
    """How a VAE's latents are cut into groups, and which of them the score prior models.

    The groups of the top scale (the lowest resolution, first in the top-down order) have one shape; stacked
    on channels they are z_0. The groups of the scales below keep the prior N(0, I).
    """

    shapes: tuple[Shape, ...]
    """(C, h, w) of every group, in the order of `Posterior.z`."""
    top: int
    """How many groups the top scale has."""

    @property
    def z_0(self) -> Shape:
        """(C, h, w) of the top scale's groups together."""
        _, height, width = self.shapes[0]
        return sum(shape[0] for shape in self.shapes[: self.top]), height, width

    @property
    def lower(self) -> tuple[Shape, ...]:
        """Shapes of the groups below the top scale."""
        return self.shapes[self.top :]

    def stack(self, z: tuple[Tensor, ...]) -> Tensor:
        """Return z_0 [B, C, h, w] from the latents of all groups."""
        return torch.cat(z[: self.top], dim=1) if self.top > 1 else z[0]

    def split(self, z_0: Tensor) -> tuple[Tensor, ...]:
        """Return the top scale's groups of z_0."""
        return tuple(torch.split(z_0, [shape[0] for shape in self.shapes[: self.top]], dim=1))

    def log_p_lower(self, z: tuple[Tensor, ...]) -> Tensor:
        """Return sum log N(z_l; 0, I) over the groups below the top scale, nats [B]."""
        return sum(
            (sum_per_sample(normal_log_prob(z_l)) for z_l in z[self.top :]),
            torch.zeros_like(z[0][:, 0, 0, 0]),
        )


class VAE(nn.Module):
    """What the objective and the samplers need of a VAE; latents and log-densities are at least float32."""

    pixels: Pixels
    groups: LatentGroups

    def encode(self, levels: Tensor, noise: Noise, draws: int = 1) -> tuple[LatentDraw, ...]:
        """Draw every group of z ~ q(z | x) for levels, uint8 [B, C, H, W]; log q per variable.

        With several ``draws`` of each image, those of image 0 first, noise and results have B * draws rows;
        what depends on the image alone is computed once.
        """
        raise NotImplementedError

    def likelihood(self, z: tuple[Tensor, ...]) -> PixelDistribution:
        """Return p(x | z_0) over the unpadded image."""
        raise NotImplementedError

    def posterior(self, levels: Tensor, noise: Noise, draws: int = 1) -> Posterior:
        """Draw z ~ q(z | x) as `encode` does; log q [B * draws] summed over each group."""
        z, log_q = zip(*self.encode(levels, noise, draws), strict=True)
        return Posterior(z, tuple(sum_per_sample(per_variable) for per_variable in log_q))


def normal_draw(mean: Tensor, log_sigma: Tensor, n: Tensor) -> LatentDraw:
    """Return z = mean + sigma n and log N(z; mean, sigma^2) per variable, for n ~ N(0, 1); shapes as n."""
    return LatentDraw(mean + torch.exp(log_sigma) * n, -0.5 * n**2 - log_sigma - 0.5 * LOG_2PI)


def soft_bound(x: Tensor, bound: float) -> Tensor:
    """Return bound tanh(x / bound): x near zero, never beyond plus or minus bound."""
    return bound * torch.tanh(x / bound)


def sum_per_sample(x: Tensor) -> Tensor:
    """Sum over everything but the first dimension."""
    return x.flatten(1).sum(dim=1)


def repeated(x: Tensor, draws: int) -> Tensor:
    """Return every sample ``draws`` times, one after the other: [B, ...] -> [B * draws, ...]."""
    return x.repeat_interleave(draws, dim=0) if draws > 1 else x


def normal_log_prob(z: Tensor, mean: Tensor | float = 0.0, log_sigma: Tensor | float = 0.0) -> Tensor:
    """Return log N(z; mean, sigma^2) per variable, in nats."""
    if not isinstance(log_sigma, Tensor):
        log_sigma = z.new_full((), log_sigma)  # on the device, without a copy that the host would wait for
    return -0.5 * ((z - mean) * torch.exp(-log_sigma)) ** 2 - log_sigma - 0.5 * LOG_2PI


def crop(parameters: Tensor, pixels: Pixels, pad: int) -> Tensor:
    """Return a decoder's output [B, P, H + 2 pad, W + 2 pad] without the padding, which is never scored."""
    return parameters[:, :, pad : pad + pixels.height, pad : pad + pixels.width]
