"""The bottom-up half of the hierarchical VAE, and what makes a draw from q out of its features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsgm.nets.config import NVAEConfig
from lsgm.nets.nvae.cells import BNSwishConv, Cell
from lsgm.nets.nvae.flows import ShiftPair
from lsgm.nets.nvae.layout import Layout
from lsgm.nets.recompute import recompute
from lsgm.nets.weightnorm import WeightNormConv2d
from lsgm.precision import at_least_float32

__all__ = ["MEAN_BOUND", "Encoder", "soft_bound"]

MEAN_BOUND = 5.0
"""q's means lie within plus or minus this."""


def soft_bound(x: Tensor, bound: float) -> Tensor:
    """Return bound tanh(x / bound): x near zero, never beyond plus or minus bound."""
    return bound * torch.tanh(x / bound)


class Encoder(nn.Module):
    """Image [B, C, H, W] in [-1, 1] -> one feature map per group, each with the decoder's state -> q.

    Everything that is indexed by group stands in top-down order, the order of the draws.
    """

    def __init__(self, config: NVAEConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.layout = layout = Layout(config)
        widths = layout.encoder_widths
        self.stem = WeightNormConv2d(channels, widths[0], 3, padding=1)
        self.pre = nn.ModuleList(
            self._cell(r, down=last)
            for r in range(config.blocks)
            for last in [False] * (config.pre_cells - 1) + [True]
        )
        self.cells, self.combine = nn.ModuleList(), nn.ModuleList()
        self.samplers, self.flows = nn.ModuleList(), nn.ModuleList()
        for group in range(layout.groups):
            r = layout.resolution_of(group)
            self.cells.append(nn.ModuleList(self._cell(r) for _ in range(config.encoder_cells)))
            if group > 0:
                self.combine.append(WeightNormConv2d(layout.decoder_widths[r], widths[r], 1))
            self.samplers.append(WeightNormConv2d(widths[r], 2 * config.latents, 3, padding=1))
            self.flows.append(nn.Sequential(*(ShiftPair(config.latents) for _ in range(config.flows))))
        halved = range(config.blocks, layout.resolutions - 1)
        self.down = nn.ModuleList(self._cell(r, down=True) for r in halved)
        self.pyramid = nn.ModuleList(
            BNSwishConv(widths[r], widths[r + 1], "down") for r in halved if config.input_skip
        )

    def _cell(self, r: int, *, down: bool = False) -> Cell:
        widths, gated = self.layout.encoder_widths, self.config.squeeze_excite
        if down:
            return Cell("plain", widths[r], widths[r + 1], "down", squeeze_excite=gated)
        return Cell("plain", widths[r], widths[r], squeeze_excite=gated)

    def _run(self, cell: nn.Module, x: Tensor) -> Tensor:
        out: Tensor = recompute(cell, x) if self.config.recompute else cell(x)
        return out

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the feature maps [B, C_r, h_r, w_r] of the groups, in top-down order."""
        s = self.stem(x)
        for cell in self.pre:
            s = self._run(cell, s)
        copy, halvings, features = s, 0, list[Tensor]()
        for group in reversed(range(self.layout.groups)):
            for cell in self.cells[group]:  # type: ignore[attr-defined]
                s = self._run(cell, s)
            features.append(s)
            if self.layout.begins_scale(group):
                s = self._run(self.down[halvings], s)
                if self.config.input_skip:
                    copy = self._run(self.pyramid[halvings], copy)
                    s = s + copy
                halvings += 1
        return tuple(reversed(features))

    def gaussian(self, group: int, feature: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log sigma, [B, L, h, w] float32 or better, that q(z_l | x, z_<l) starts from.

        ``s`` [B, C, h, w] is the decoder's state before the group; the first group has no use for it.
        """
        e = feature + self.combine[group - 1](s) if group > 0 else feature
        mean, log_sigma = at_least_float32(self.samplers[group](F.elu(e))).chunk(2, dim=1)
        return soft_bound(mean, MEAN_BOUND), soft_bound(log_sigma, self.config.log_sigma_bound)

    def shift(self, group: int, z: Tensor) -> Tensor:
        """Return a group's latent after its volume-preserving shifts, [B, L, h, w]."""
        out: Tensor = self.flows[group](z)
        return out
