"""VAEs of one latent group: a small convolutional one, and the fully connected one of Burda et al."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsgm.config import require
from lsgm.devices import at_least_float32, dtype_of
from lsgm.errors import ConfigError
from lsgm.generative import Pixels
from lsgm.nets.config import ConvVAEConfig, FlatVAEConfig
from lsgm.nets.layers import ResBlock, conv, group_norm, linear, scaled_init, sides_of
from lsgm.pixels import PixelDistribution, network_input, outputs_for, pixel_distribution
from lsgm.vae.base import (
    MEAN_BOUND,
    VAE,
    LatentDraw,
    LatentGroups,
    Noise,
    crop,
    normal_draw,
    repeated,
    soft_bound,
)


class ConvVAE(VAE):
    """The small convolutional VAE: one group of latents, Gaussian q with bounded mean and scale.

    As in NVAE and LSGM, mu = 5 tanh(mu / 5) and log sigma = 5 tanh(log sigma / 5). Images are padded with
    zero pixels by ``pad`` on their way in; padding is cropped from p(x | z_0) and never scored. The latent
    and its log-density are float32 whatever the autocast dtype.
    """

    def __init__(self, config: ConvVAEConfig, pixels: Pixels, *, pad: int = 0) -> None:
        super().__init__()
        self.pixels = pixels
        self.pad = pad
        self.decoder_name = config.decoder
        height, width = pixels.height + 2 * pad, pixels.width + 2 * pad
        self.encoder = ConvEncoder(config, channels=pixels.channels, resolution=(height, width))
        self.decoder = ConvDecoder(config, outputs=outputs_for(pixels, config.decoder))
        levels = len(config.multipliers)
        self.groups = LatentGroups(((config.latent_channels, height >> levels, width >> levels),), top=1)

    def encode(self, levels: Tensor, noise: Noise, draws: int = 1) -> tuple[LatentDraw, ...]:
        """Draw z_0 = mu(x) + sigma(x) n; levels uint8 [B, C, H, W] -> one group [B * draws, L, h, w]."""
        x = network_input(levels, self.pixels).to(dtype_of(self))
        x = F.pad(x, [self.pad] * 4, value=-1.0)
        mu, log_sigma = repeated(at_least_float32(self.encoder(x)), draws).chunk(2, dim=1)
        mu, log_sigma = soft_bound(mu, MEAN_BOUND), soft_bound(log_sigma, MEAN_BOUND)
        return (normal_draw(mu, log_sigma, noise(*self.groups.z_0)),)

    def likelihood(self, z: tuple[Tensor, ...]) -> PixelDistribution:
        """Return p(x | z_0) over the unpadded image."""
        parameters: Tensor = self.decoder(z[0])
        return pixel_distribution(crop(parameters, self.pixels, self.pad), self.pixels, self.decoder_name)


class ConvEncoder(nn.Module):
    """Image [B, C, H, W] in [-1, 1] -> (mu, log sigma) stacked on channels, [B, 2 L, H / 2^k, W / 2^k].

    ``resolution`` is a side or (H, W). Raises ConfigError where a side cannot be halved as often as the
    levels need.
    """

    def __init__(self, config: ConvVAEConfig, *, channels: int, resolution: int | tuple[int, int]) -> None:
        super().__init__()
        levels = len(config.multipliers)
        for side in sides_of(resolution):
            if side % 2**levels:
                raise ConfigError(
                    f"{levels} levels of the VAE cannot halve a side of {side}; "
                    "use fewer multipliers, data.pad or another data.image-size"
                )
        layers: list[nn.Module] = []
        current = channels
        for multiplier in config.multipliers:
            # Pixel-unshuffle halves the side without a full-resolution convolution, the costliest of all.
            layers += [nn.PixelUnshuffle(2), conv(4 * current, config.width * multiplier)]
            current = config.width * multiplier
            layers += [ResBlock(current, current, dropout=config.dropout) for _ in range(config.blocks)]
        layers += [group_norm(current), nn.SiLU(), conv(current, 2 * config.latent_channels)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the parameters of q(z_0 | x)."""
        out: Tensor = self.layers(x)
        return out


class ConvDecoder(nn.Module):
    """Latent [B, L, h, w] -> parameters of p(x | z_0), [B, P, 2^k h, 2^k w]."""

    def __init__(self, config: ConvVAEConfig, *, outputs: int) -> None:
        super().__init__()
        widths = [config.width * m for m in reversed(config.multipliers)]
        layers: list[nn.Module] = [conv(config.latent_channels, widths[0])]
        current = widths[0]
        for width in widths:
            if width != current:
                layers.append(conv(current, width))
                current = width
            layers += [ResBlock(current, current, dropout=config.dropout) for _ in range(config.blocks)]
            following = max(current // 2, 4)
            layers += [conv(current, 4 * following), nn.PixelShuffle(2)]
            current = following
        self.layers = nn.Sequential(*layers)
        self.norm = group_norm(current)
        self.head = conv(current, outputs)

    def forward(self, z: Tensor) -> Tensor:
        """Return the pixel distribution's parameters."""
        out: Tensor = self.head(F.silu(self.norm(self.layers(z))))
        return out


class FlatVAE(VAE):
    """The VAE of Burda et al. (arXiv:1509.00519), q(z | x) and p(x | z) by fully connected tanh networks.

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
        # mu and log sigma of q(z | x) side by side; p(x | z) through the same layers in reverse.
        self.encoder = MLP([math.prod(pixels.shape), *config.hidden], config.latents, config.latents)
        self.decoder = MLP([config.latents, *reversed(config.hidden)], math.prod(self.parameter_shape))
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
        return (normal_draw(mu, log_sigma, noise(*self.groups.z_0)),)

    def likelihood(self, z: tuple[Tensor, ...]) -> PixelDistribution:
        """Return p(x | z)."""
        parameters = self.decoder(z[0].flatten(1)).unflatten(1, self.parameter_shape)
        return pixel_distribution(parameters, self.pixels, self.decoder_name)


class MLP(nn.Module):
    """x [B, D] -> [B, P]: layers of the ``widths``, from D on, each followed by tanh, and one without it.

    Glorot uniform weights and zero biases. The last layer is several side by side, of so many outputs each.
    """

    def __init__(self, widths: Sequence[int], *outputs: int) -> None:
        super().__init__()
        hidden = ((linear(d_in, d_out), nn.Tanh()) for d_in, d_out in pairwise(widths))
        self.layers = nn.Sequential(*chain.from_iterable(hidden))
        self.head = nn.Linear(widths[-1], sum(outputs))
        scaled_init(self.head, parts=outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the last layer makes of x."""
        out: Tensor = self.head(self.layers(x))
        return out
