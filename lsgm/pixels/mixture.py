"""Mixtures of discretised logistics whose colours lean on each other: the decoder of NVAE and LSGM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lsgm.pixels.logistic import LEAST_LOG_SCALE, draw_levels, log_mass, on_interval
from lsgm.precision import at_least_float32

__all__ = ["COMPONENTS", "LogisticMixture", "outputs_of_mixture"]

COMPONENTS = 10
"""Components of the mixture, as in PixelCNN++."""


def outputs_of_mixture(channels: int) -> int:
    """Return the parameters of a pixel: 100 for colours, 30 for grey."""
    per_channel = 2 if channels == 1 else 3
    return COMPONENTS * (1 + per_channel * channels)


class LogisticMixture:
    """p(x) = sum_k pi_k prod_c P(x_c; mu_kc + sum_{d<c} a_kcd x_d, s_kc) per pixel (arXiv:1701.05517).

    P is the discretised logistic of `lsgm.pixels.logistic.log_mass`; x_d are the pixel's earlier colours on
    [-1, 1]. ``parameters`` [B, 100, H, W]: ten logits of pi; then for each colour in turn ten mu, ten log s
    and ten of the a = tanh(.), of which red's block holds green's on red and green's and blue's blocks hold
    blue's on red and on green. Grey pixels [B, 30, H, W] have no a. The k of a pixel is one for all of its
    colours, so only the pixel as a whole has a log-probability.
    """

    is_mass = True

    def __init__(self, parameters: Tensor, channels: int, levels: int) -> None:
        parameters = at_least_float32(parameters)
        self.channels = channels
        self.levels = levels
        self.logits, rest = parameters[:, :COMPONENTS], parameters[:, COMPONENTS:]
        rest = rest.reshape(len(rest), channels, -1, *rest.shape[2:])
        self.centres = rest[:, :, :COMPONENTS]
        self.log_scales = rest[:, :, COMPONENTS : 2 * COMPONENTS].clamp(min=LEAST_LOG_SCALE)
        pairs = channels * (channels - 1) // 2
        self.coefficients = torch.tanh(rest[:, :pairs, -COMPONENTS:])

    def log_prob(self, levels: Tensor) -> Tensor:
        """Return log p per pixel in nats, [B, 1, H, W]: the colours of a pixel share their component.

        A dozen numbers per component and sub-pixel are recomputed in the backward pass, not kept: for images
        of 256 x 256 they would fill 70 MB each, in float32.
        """
        log_p = torch.log_softmax(self.logits, dim=1)
        for colour in range(self.channels):
            log_p = log_p + _recomputed(self._log_mass, levels, colour)
        return torch.logsumexp(log_p, dim=1, keepdim=True)

    def _log_mass(self, levels: Tensor, colour: int) -> Tensor:
        """Return log P of one colour given the earlier ones under every component, [B, K, H, W]."""
        x = [on_interval(levels[:, d, None], self.levels, self.logits) for d in range(colour)]
        centre = _leaning(self.centres, self.coefficients, x)
        return log_mass(levels[:, colour, None], self.levels, centre, self.log_scales[:, colour])

    def mean(self) -> Tensor:
        """Return the image that the field displays: colours from the mixture's averaged mu and a.

        Each is clamped to [-1, 1] before the next leans on it. That is no draw, and where components differ
        in their a not the mean either; tables of generated images are made of it, so it is kept.
        """
        pi = torch.softmax(self.logits, dim=1)[:, None]
        centres, coefficients = ((pi * x).sum(dim=2) for x in (self.centres, self.coefficients))
        colours: list[Tensor] = []
        for _ in range(self.channels):
            colours.append(_leaning(centres, coefficients, colours).clamp(-1, 1))
        return (torch.stack(colours, dim=1) + 1) / 2

    def sample(self, uniform: Tensor) -> Tensor:
        """Return a draw in [0, 1]; ``uniform`` [B, 1 + C, H, W] picks the component, then each colour.

        A colour leans on the levels already drawn, as `log_prob` does.
        """
        cumulative = torch.softmax(self.logits, dim=1).cumsum(dim=1)
        k = (cumulative <= uniform[:, :1]).sum(dim=1, keepdim=True).clamp(max=COMPONENTS - 1)[:, None]
        centres, log_scales, coefficients = (
            x.take_along_dim(k, dim=2)[:, :, 0] for x in (self.centres, self.log_scales, self.coefficients)
        )
        drawn: list[Tensor] = []
        for colour in range(self.channels):
            x = [on_interval(level, self.levels, level) for level in drawn]
            centre = _leaning(centres, coefficients, x)
            drawn.append(draw_levels(uniform[:, 1 + colour], self.levels, centre, log_scales[:, colour]))
        return torch.stack(drawn, dim=1) / (self.levels - 1)


def _recomputed(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Return ``function(*arguments)``, computed again in every backward pass through it.

    It has neither random numbers nor running statistics to take care of, unlike the blocks of a network.
    """
    if not torch.is_grad_enabled():
        return function(*arguments)
    out: Tensor = checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
    return out


def _leaning(centres: Tensor, coefficients: Tensor, earlier: Sequence[Tensor]) -> Tensor:
    """Return the centre of the colour after the ``earlier`` ones: mu_c + sum_d a_cd x_d.

    Coefficients stand in the order (1, 0), (2, 0), (2, 1) of (colour, earlier colour).
    """
    colour = len(earlier)
    centre = centres[:, colour]
    for offset, x in enumerate(earlier):
        centre = centre + coefficients[:, colour * (colour - 1) // 2 + offset] * x
    return centre
