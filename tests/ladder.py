"""A VAE of three groups in two scales and a score prior, each a few small maps, to test objectives on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lsgm.generative import Pixels
from lsgm.pixels import PixelDistribution, pixel_distribution
from lsgm.score import ScoreModel
from lsgm.sde import SDE
from lsgm.vae.base import LOG_2PI, VAE, LatentDraw, LatentGroups, Noise, repeated

__all__ = ["Ladder", "Network", "double_prior"]

PIXELS = Pixels(1, 4, 4, "binary", 1)


class Ladder(VAE):
    """Groups of 2 x 2 x 2, 2 x 2 x 2 and 1 x 4 x 4, each encoded from the image and from the one before."""

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.pixels = PIXELS
        self.groups = LatentGroups(((2, 2, 2), (2, 2, 2), (1, 4, 4)), top=2)
        self.norm = nn.BatchNorm1d(16)
        sizes = [8, 8, 16]
        self.encoder = nn.ModuleList(
            nn.Linear(16 + before, 2 * size) for before, size in zip([0, *sizes], sizes, strict=False)
        )
        self.decoder = nn.Linear(sum(sizes), 16)

    def encode(self, levels: Tensor, noise: Noise, draws: int = 1) -> tuple[LatentDraw, ...]:
        """Draw z_l ~ N(mu(x, z_<l), sigma(x, z_<l)^2)."""
        x = repeated(self.norm(levels.flatten(1).to(self.decoder.weight)), draws)
        before, drawn = x[:, :0], []
        for layer, shape in zip(self.encoder, self.groups.shapes, strict=True):
            mu, log_sigma = layer(torch.cat([x, before], dim=1)).chunk(2, dim=1)
            n = noise(*shape).flatten(1)
            before = mu + log_sigma.exp() * n
            log_q = -0.5 * n**2 - log_sigma - 0.5 * LOG_2PI
            drawn.append(LatentDraw(before.unflatten(1, shape), log_q.unflatten(1, shape)))
        return tuple(drawn)

    def likelihood(self, z: tuple[Tensor, ...]) -> PixelDistribution:
        """Return p(x | z)."""
        logits = self.decoder(torch.cat([group.flatten(1) for group in z], dim=1))
        return pixel_distribution(logits.unflatten(1, (1, 4, 4)), self.pixels, "bernoulli")


class Network(nn.Module):
    """A convolution, the time as a channel, a tanh, another convolution, and dropout if asked."""

    def __init__(self, channels: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels + 1, 6, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Conv2d(6, channels, 3, padding=1)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """Predict the noise in z [B, C, h, w] at times t [B]."""
        time = t.to(z.dtype)[:, None, None, None].expand(-1, 1, *z.shape[2:])
        out: Tensor = self.last(self.dropout(torch.tanh(self.first(torch.cat([z, time], dim=1)))))
        return out


def double_prior(sde: SDE, *, dropout: float = 0.0, seed: int = 1) -> ScoreModel:
    """Return a float64 score model of `Ladder`'s z_0."""
    torch.manual_seed(seed)
    return ScoreModel(sde, Network(4, dropout=dropout), channels=4, mixing_init=0.3).double()
