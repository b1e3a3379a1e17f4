"""Where the groups, scales and widths of a hierarchical VAE lie, from its configuration alone."""

from __future__ import annotations

from lsgm.errors import ConfigError
from lsgm.nets.config import NVAEConfig
from lsgm.nets.nvae.cells import Branch

__all__ = ["Layout"]


class Layout:
    """Counts of a configuration, free of tensors.

    Resolutions are numbered from the image down, r = 0 .. blocks + scales - 1; groups in the top-down order
    in which they are drawn, l = 0 .. scales * groups - 1, the lowest resolution first.
    """

    def __init__(self, config: NVAEConfig) -> None:
        self.config = config
        self.resolutions = config.blocks + config.scales
        self.groups = config.scales * config.groups
        self.encoder_widths = tuple(config.width * m for m in config.multipliers)
        decoder_width = config.width if config.decoder_width is None else config.decoder_width
        self.decoder_widths = tuple(decoder_width * m for m in config.multipliers)
        plain = config.cells == "res_bnswish"
        self.decoder_branch: Branch = "plain" if plain else "bottleneck6"
        self.post_branch: Branch = "plain" if plain else "bottleneck3"

    def resolution_of(self, group: int) -> int:
        """Return the number of the resolution that a group lives at."""
        return self.resolutions - 1 - group // self.config.groups

    def begins_scale(self, group: int) -> bool:
        """Return whether a group is the first drawn at its resolution, but not the first of all."""
        return group > 0 and group % self.config.groups == 0

    def shapes(self, height: int, width: int) -> tuple[tuple[int, int, int], ...]:
        """Return (L, h, w) of every group for images of height x width; else `ConfigError`."""
        halvings = self.resolutions - 1
        if height % 2**halvings or width % 2**halvings:
            raise ConfigError(
                f"{halvings} halvings of the VAE cannot divide an image of {height} x {width}; "
                "use fewer blocks or scales, or data.pad"
            )
        rs = [self.resolution_of(group) for group in range(self.groups)]
        return tuple((self.config.latents, height >> r, width >> r) for r in rs)
