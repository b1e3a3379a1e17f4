"""The top-down half of the hierarchical VAE: latents, group by group, into parameters of the pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsgm.nets.config import NVAEConfig
from lsgm.nets.nvae.cells import Branch, Cell
from lsgm.nets.nvae.layout import Layout
from lsgm.nets.recompute import recompute
from lsgm.nets.weightnorm import WeightNormConv2d

__all__ = ["Decoder"]


class Decoder(nn.Module):
    """State s: learned start h_0, `absorb` of each z_l in turn, `finish` into the pixels' parameters."""

    def __init__(self, config: NVAEConfig, outputs: int, height: int, width: int) -> None:
        """Take the image's height and width, padding included."""
        super().__init__()
        self.config = config
        self.layout = layout = Layout(config)
        widths = layout.decoder_widths
        (_, h, w), *_ = layout.shapes(height, width)
        self.start = nn.Parameter(torch.rand(widths[-1], h, w))
        self.latents, self.combine, self.cells = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for group in range(layout.groups):
            c = widths[layout.resolution_of(group)]
            self.latents.append(WeightNormConv2d(config.latents, config.latents, 3, padding=1))
            self.combine.append(WeightNormConv2d(c + config.latents, c, 1))
            self.cells.append(
                nn.ModuleList(
                    Cell(layout.decoder_branch, c, c, squeeze_excite=config.squeeze_excite)
                    for _ in range(config.decoder_cells)
                )
            )
        self.up = nn.ModuleList(
            self._up(layout.decoder_branch, r) for r in reversed(range(config.blocks, layout.resolutions - 1))
        )
        self.post = nn.ModuleList()
        for r in reversed(range(config.blocks)):
            self.post.append(self._up(layout.post_branch, r))
            for _ in range(config.post_cells - 1):
                c = widths[r]
                self.post.append(Cell(layout.post_branch, c, c, squeeze_excite=config.squeeze_excite))
        self.head = WeightNormConv2d(widths[0], outputs, 3, padding=1)

    def _up(self, branch: Branch, r: int) -> Cell:
        """Return the cell that doubles the side, from resolution r + 1 to r."""
        widths = self.layout.decoder_widths
        return Cell(branch, widths[r + 1], widths[r], "up", squeeze_excite=self.config.squeeze_excite)

    def _run(self, cell: nn.Module, s: Tensor) -> Tensor:
        out: Tensor = recompute(cell, s) if self.config.recompute else cell(s)
        return out

    def begin(self, batch: int) -> Tensor:
        """Return the state before the first group, h_0 for every sample, [B, C, h, w]."""
        return self.start.expand(batch, *self.start.shape)

    def climb(self, group: int, s: Tensor) -> Tensor:
        """Return the state at the resolution of a group: doubled before the first group of a new scale."""
        if not self.layout.begins_scale(group):
            return s
        return self._run(self.up[group // self.config.groups - 1], s)

    def absorb(self, group: int, s: Tensor, z: Tensor) -> Tensor:
        """Return the state [B, C, h, w] after a group's latent z [B, L, h, w]."""
        e = self.latents[group](z.to(s.dtype))
        s = self.combine[group](torch.cat([s, e.to(s.dtype)], dim=1))
        for cell in self.cells[group]:  # type: ignore[attr-defined]
            s = self._run(cell, s)
        return s

    def finish(self, s: Tensor) -> Tensor:
        """Return the parameters of p(x | z), [B, P, H, W], from the state after the last group."""
        for cell in self.post:
            s = self._run(cell, s)
        out: Tensor = self.head(F.elu(s))
        return out

    def forward(self, z: tuple[Tensor, ...]) -> Tensor:
        """Return the state after all groups' latents, in top-down order."""
        s = self.begin(len(z[0]))
        for group, z_l in enumerate(z):
            s = self.absorb(group, self.climb(group, s), z_l)
        return s
