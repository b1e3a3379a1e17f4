"""Encoder and decoder of the small convolutional VAE."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lsgm.errors import ConfigError
from lsgm.nets.config import ConvVAEConfig
from lsgm.nets.layers import ResBlock, conv, group_norm, sides_of

__all__ = ["ConvDecoder", "ConvEncoder"]


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
