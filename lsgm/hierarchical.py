"""The hierarchical VAE of LSGM as a VAE: q(z_l | x, z_<l) group by group, p(x | z)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsgm.generative import Pixels
from lsgm.nets.config import Decoder as DecoderName
from lsgm.nets.config import NVAEConfig
from lsgm.nets.nvae.decoder import Decoder
from lsgm.nets.nvae.encoder import Encoder
from lsgm.nets.nvae.layout import Layout
from lsgm.pixels import PixelDistribution, network_input, outputs_for, pixel_distribution
from lsgm.precision import dtype_of
from lsgm.vae import LOG_2PI, LatentDraw, LatentGroups, Noise, Posterior, crop, sum_per_sample

__all__ = ["HierarchicalVAE"]


class HierarchicalVAE(nn.Module):
    """NVAE with N(0, I) priors (arXiv:2007.03898; arXiv:2106.05931, appendix G).

    q(z | x) = prod_l q(z_l | x, z_<l), each a Gaussian with bounded mean and scale whose draw may pass
    volume-preserving shifts; the decoder takes the groups in the same order. Images are padded with zero
    pixels by ``pad`` on their way in; padding is cropped from p(x | z) and never scored. Latents and their
    log-densities are float32 or better whatever the autocast dtype.
    """

    def __init__(self, config: NVAEConfig, pixels: Pixels, *, pad: int = 0) -> None:
        super().__init__()
        self.config = config
        self.pixels = pixels
        self.pad = pad
        height, width = pixels.height + 2 * pad, pixels.width + 2 * pad
        self.groups = LatentGroups(Layout(config).shapes(height, width), top=config.groups)
        self.decoder_name = _decoder_name(config, pixels)
        self.encoder = Encoder(config, pixels.channels)
        self.decoder = Decoder(config, outputs_for(pixels, self.decoder_name), height, width)

    def encode(self, levels: Tensor, noise: Noise) -> tuple[LatentDraw, ...]:
        """Draw every group in top-down order, one ``noise`` each; levels uint8 [B, C, H, W]."""
        return self._top_down(levels, noise)[0]

    def posterior(self, levels: Tensor, noise: Noise) -> Posterior:
        """Draw z ~ q(z | x) for levels uint8 [B, C, H, W]: z_l [B, L, h, w] and log q [B] of every group."""
        draws, s = self._top_down(levels, noise)
        z = _Drawn((draw.z for draw in draws), self._moment(), s)
        return Posterior(z, tuple(sum_per_sample(draw.log_q) for draw in draws))

    def _top_down(self, levels: Tensor, noise: Noise) -> tuple[tuple[LatentDraw, ...], Tensor]:
        """Return the draws, and the decoder's state that they lead to."""
        dtype = dtype_of(self)
        x = network_input(levels.to(torch.promote_types(dtype, torch.float32)), self.pixels).to(dtype)
        features = self.encoder(F.pad(x, [self.pad] * 4, value=-1.0))
        s, draws = self.decoder.begin(len(x)), list[LatentDraw]()
        for group, shape in enumerate(self.groups.shapes):
            s = self.decoder.climb(group, s)
            mean, log_sigma = self.encoder.gaussian(group, features[group], s)
            n = noise(*shape).to(mean)
            z = self.encoder.shift(group, mean + torch.exp(log_sigma) * n)
            # The shifts preserve volume: the density of z is the Gaussian's where they began.
            draws.append(LatentDraw(z, -0.5 * n**2 - log_sigma - 0.5 * LOG_2PI))
            s = self.decoder.absorb(group, s, z)
        return tuple(draws), s

    def decoder_parameters(self, z: tuple[Tensor, ...]) -> Tensor:
        """Return the parameters of p(x | z), [B, P, H + 2 pad, W + 2 pad], padding included.

        Latents fresh from `posterior` carry the decoder's state with them: nothing is computed twice.
        """
        if isinstance(z, _Drawn) and z.moment == self._moment():
            return self.decoder.finish(z.state)
        return self.decoder.finish(self.decoder(z))

    def likelihood(self, z: tuple[Tensor, ...]) -> PixelDistribution:
        """Return p(x | z) over the unpadded image."""
        parameters = crop(self.decoder_parameters(z), self.pixels, self.pad)
        return pixel_distribution(parameters, self.pixels, self.decoder_name)

    def _moment(self) -> tuple[object, ...]:
        """Return what a state is good for: these weights, in this mode, with or without gradients."""
        start = self.decoder.start
        return id(start), start._version, self.training, torch.is_grad_enabled()


class _Drawn(tuple[Tensor, ...]):
    """Latents with the decoder's state after them, and the moment for which it holds."""

    moment: tuple[object, ...]
    state: Tensor

    def __new__(cls, z: object, moment: tuple[object, ...], state: Tensor) -> _Drawn:
        drawn = super().__new__(cls, z)  # type: ignore[arg-type]
        drawn.moment, drawn.state = moment, state
        return drawn


def _decoder_name(config: NVAEConfig, pixels: Pixels) -> DecoderName:
    """Return the pixels' distribution; "auto" is Bernoulli for binary pixels, else the mixture."""
    if config.decoder != "auto":
        return config.decoder
    return "bernoulli" if pixels.kind == "binary" else "mixture"
