"""The hierarchical VAE of LSGM as a VAE: q(z_l | x, z_<l) group by group, p(x | z)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsgm.generative import Pixels
from lsgm.nets.config import NVAEConfig
from lsgm.nets.nvae.decoder import Decoder
from lsgm.nets.nvae.encoder import Encoder
from lsgm.nets.nvae.layout import Layout
from lsgm.nets.nvae.memory import StateMemory
from lsgm.pixels import PixelDistribution, network_input, outputs_for, pixel_distribution, resolve
from lsgm.precision import dtype_of
from lsgm.vae import LOG_2PI, LatentDraw, LatentGroups, Noise, Posterior, crop, repeated, sum_per_sample

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
        self.decoder_name = resolve(config.decoder, pixels, "mixture")
        self.encoder = Encoder(config, pixels.channels)
        self.decoder = Decoder(config, outputs_for(pixels, self.decoder_name), height, width)
        self._memory = StateMemory()

    def encode(self, levels: Tensor, noise: Noise, draws: int = 1) -> tuple[LatentDraw, ...]:
        """Draw every group in top-down order, one ``noise`` each; levels uint8 [B, C, H, W].

        The bottom-up half runs once per image, the top-down half, which follows the draws, on B * draws rows.
        """
        return tuple(draw for _, _, draw in self.gaussians(levels, noise, draws))

    def gaussians(
        self, levels: Tensor, noise: Noise, draws: int = 1
    ) -> Iterator[tuple[Tensor, Tensor, LatentDraw]]:
        """Yield (mean, log sigma, draw) of every group as `encode` draws them; before the shifts, if any."""
        features = self.encoder(self._input(levels))
        s, drawn = self.decoder.begin(len(levels) * draws), list[Tensor]()
        for group, shape in enumerate(self.groups.shapes):
            s = self.decoder.climb(group, s)
            mean, log_sigma = self.encoder.gaussian(group, repeated(features[group], draws), s)
            n = noise(*shape).to(mean)
            z = self.encoder.shift(group, mean + torch.exp(log_sigma) * n)
            drawn.append(z)
            # The shifts preserve volume: the density of z is the Gaussian's where they began.
            yield mean, log_sigma, LatentDraw(z, -0.5 * n**2 - log_sigma - 0.5 * LOG_2PI)
            s = self.decoder.absorb(group, s, z)
        self._memory.keep(self.decoder, tuple(drawn), s)

    def posterior(self, levels: Tensor, noise: Noise, draws: int = 1) -> Posterior:
        """Draw as `encode` does: z_l [B * draws, L, h, w] and log q [B * draws], summed, of every group."""
        z, log_q = zip(*self.encode(levels, noise, draws), strict=True)
        return Posterior(z, tuple(sum_per_sample(per_variable) for per_variable in log_q))

    def decoder_parameters(self, z: tuple[Tensor, ...]) -> Tensor:
        """Return the parameters of p(x | z), [B, P, H + 2 pad, W + 2 pad], padding included.

        Of latents that were drawn last the decoder's state is at hand (see `StateMemory`).
        """
        s = self._memory.take(self.decoder, z)
        return self.decoder.finish(self.decoder(z) if s is None else s)

    def likelihood(self, z: tuple[Tensor, ...]) -> PixelDistribution:
        """Return p(x | z) over the unpadded image."""
        parameters = crop(self.decoder_parameters(z), self.pixels, self.pad)
        return pixel_distribution(parameters, self.pixels, self.decoder_name)

    def _input(self, levels: Tensor) -> Tensor:
        """Return the padded image in [-1, 1], in the module's dtype."""
        dtype = dtype_of(self)
        x = network_input(levels.to(torch.promote_types(dtype, torch.float32)), self.pixels).to(dtype)
        return F.pad(x, [self.pad] * 4, value=-1.0)
