"""The fully connected VAE with one stochastic layer of Burda et al. (arXiv:1509.00519)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lsgm.config import require
from lsgm.devices import at_least_float32, dtype_of
from lsgm.generative import Pixels
from lsgm.nets.config import FlatVAEConfig
from lsgm.nets.layers import linear, scaled_init
from lsgm.pixels import PixelDistribution, network_input, outputs_for, pixel_distribution
from lsgm.vae.base import LOG_2PI, LatentDraw, LatentGroups, Noise, Posterior, repeated, sum_per_sample

__all__ = ["FlatVAE", "MLPDecoder", "MLPEncoder"]


class FlatVAE(nn.Module):
    """q(z | x) = N(mu(x), diag sigma(x)^2) and p(x | z), both of fully connected networks with tanh.

    As in the paper, mu is the encoder's output itself and sigma its exp, without NVAE's bounds on either.
    The L latents are one group of shape (L, 1, 1). Levels enter the encoder scaled to [0, 1], not to the
    [-1, 1] of the convolutional networks. Training on binary pixels begins with `start_from`. Latents and
    log-densities are float32 whatever the autocast dtype. Raises ConfigError for images that are padded.
    """

    def __init__(self, config: FlatVAEConfig, pixels: Pixels, *, pad: int = 0) -> None:
        super().__init__()
        require(pad == 0, f"data.pad is {pad}; a flat VAE takes images of any side, so set it to 0")
        self.pixels = pixels
        self.decoder_name = config.decoder
        self.parameter_shape = (outputs_for(pixels, config.decoder), pixels.height, pixels.width)
        self.encoder = MLPEncoder(math.prod(pixels.shape), config.hidden, config.latents)
        self.decoder = MLPDecoder(config.latents, config.hidden, math.prod(self.parameter_shape))
        self.groups = LatentGroups(((config.latents, 1, 1),), top=1)

    @property
    def untouched(self) -> bool:
        """Whether the output biases are the zeros of a new network."""
        return not bool(self.decoder.head.bias.any())

    @torch.no_grad()
    def start_from(self, means: Tensor) -> None:
        """Give binary pixels the probabilities ``means`` [C, H, W], between 0 and 1, wherever z says nothing.

        As the paper's authors start theirs: a decoder that has yet to learn which pixels are always dark puts
        that into z, where it stays. On MNIST this is worth several nats of the bound.
        """
        self.decoder.head.bias.copy_(torch.logit(means).flatten())

    def encode(self, levels: Tensor, noise: Noise, draws: int = 1) -> tuple[LatentDraw, ...]:
        """Draw z = mu(x) + sigma(x) n, ``draws`` times; levels uint8 [B, C, H, W] -> [B draws, L, 1, 1].

        The draws of an image stand next to each other; the encoder sees it once.
        """
        # Not [-1, 1]: dark pixels, most of an image, would be constant inputs that saturate the tanh units.
        x = (0.5 * network_input(levels, self.pixels) + 0.5).to(dtype_of(self)).flatten(1)
        parameters = repeated(at_least_float32(self.encoder(x)), draws)[:, :, None, None]
        mu, log_sigma = parameters.chunk(2, dim=1)
        n = noise(*self.groups.z_0)
        z = mu + torch.exp(log_sigma) * n
        log_q = -0.5 * n**2 - log_sigma - 0.5 * LOG_2PI
        return (LatentDraw(z, log_q),)

    def posterior(self, levels: Tensor, noise: Noise, draws: int = 1) -> Posterior:
        """Draw z as `encode` does; log q [B draws] of the one group."""
        ((z, log_q),) = self.encode(levels, noise, draws)
        return Posterior((z,), (sum_per_sample(log_q),))

    def likelihood(self, z: tuple[Tensor, ...]) -> PixelDistribution:
        """Return p(x | z)."""
        parameters = self.decoder(z[0].flatten(1)).unflatten(1, self.parameter_shape)
        return pixel_distribution(parameters, self.pixels, self.decoder_name)


# Fully connected encoder and decoder: the networks of Burda et al


class MLPEncoder(nn.Module):
    """x [B, D] -> (mu, log sigma) of q(z | x), side by side: [B, 2 L].

    Layers of the widths ``hidden``, from the image on, each followed by tanh; one layer for mu and one for
    log sigma. Glorot uniform weights and zero biases.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], latents: int) -> None:
        super().__init__()
        self.layers = _hidden_layers([inputs, *hidden])
        self.head = nn.Linear(hidden[-1], 2 * latents)
        scaled_init(self.head, parts=(latents, latents))

    def forward(self, x: Tensor) -> Tensor:
        """Return the parameters of q(z | x)."""
        out: Tensor = self.head(self.layers(x))
        return out


class MLPDecoder(nn.Module):
    """z [B, L] -> parameters of p(x | z), [B, D].

    Layers of the widths ``hidden`` in reverse, each followed by tanh, and one without it. Glorot uniform
    weights and zero biases.
    """

    def __init__(self, latents: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.layers = _hidden_layers([latents, *reversed(hidden)])
        self.head = linear(hidden[0], outputs)

    def forward(self, z: Tensor) -> Tensor:
        """Return the pixel distribution's parameters."""
        out: Tensor = self.head(self.layers(z))
        return out


def _hidden_layers(widths: Sequence[int]) -> nn.Sequential:
    return nn.Sequential(
        *(layer for d_in, d_out in pairwise(widths) for layer in (linear(d_in, d_out), nn.Tanh()))
    )
