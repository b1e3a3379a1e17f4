"""The hierarchical VAE of LSGM: q(z_l | x, z_<l) group by group, p(x | z).

An encoder goes through the image once, bottom-up; a decoder comes down through the groups, and each group's q
is made of the encoder's features at its place and the decoder's state so far. `HierarchicalVAE.gaussians` is
that walk, `Layout` the plan of it, and `StateMemory` what spares a second way down.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsgm.devices import at_least_float32, device_of, dtype_of
from lsgm.errors import ConfigError
from lsgm.generative import Pixels
from lsgm.nets.config import NVAEConfig
from lsgm.nets.layers import WeightNormConv2d, recompute
from lsgm.pixels import PixelDistribution, network_input, outputs_for, pixel_distribution, resolve
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
from lsgm.vae.cells import BNSwishConv, Branch, ResidualCell, ShiftPair


class HierarchicalVAE(VAE):
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
        # Bottom-up, once per image: a feature map for every group.
        features = self.encoder(self._input(levels))
        # Top-down, once per draw: the decoder's state s grows by each group that is drawn.
        s, drawn = self.decoder.begin(len(levels) * draws), list[Tensor]()
        for group, shape in enumerate(self.groups.shapes):
            # The Gaussian of the group, given the image and the groups before it.
            s = self.decoder.climb(group, s)
            mean, log_sigma = self.encoder.gaussian(group, repeated(features[group], draws), s)
            # A draw of it. The shifts preserve volume: z has the density of where they began.
            draw = normal_draw(mean, log_sigma, noise(*shape).to(mean))
            draw = draw._replace(z=self.encoder.shift(group, draw.z))
            yield mean, log_sigma, draw
            # Into the state, for the groups after it.
            s = self.decoder.absorb(group, s, draw.z)
            drawn.append(draw.z)
        # Whoever decodes this very draw need not come down again.
        self._memory.keep(self.decoder, tuple(drawn), s)

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

    def _cell(self, r: int, *, down: bool = False) -> ResidualCell:
        widths, gated = self.layout.encoder_widths, self.config.squeeze_excite
        if down:
            return ResidualCell("plain", widths[r], widths[r + 1], "down", squeeze_excite=gated)
        return ResidualCell("plain", widths[r], widths[r], squeeze_excite=gated)

    def _run(self, cell: nn.Module, x: Tensor) -> Tensor:
        out: Tensor = recompute(cell, x) if self.config.recompute else cell(x)
        return out

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the feature maps [B, C_r, h_r, w_r] of the groups, in top-down order."""
        # From the image down to the resolution of the last group that is drawn.
        s = self.stem(x)
        for cell in self.pre:
            s = self._run(cell, s)
        copy, halvings, features = s, 0, list[Tensor]()
        # Against the order of the draws: the cells of every group, and a halving between two scales.
        for group in reversed(range(self.layout.groups)):
            for cell in self.cells[group]:  # type: ignore[attr-defined]
                s = self._run(cell, s)
            features.append(s)
            if self.layout.begins_scale(group):
                s = self._run(self.down[halvings], s)
                # The pyramid: a halved copy of what the hierarchy began with.
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
                    ResidualCell(layout.decoder_branch, c, c, squeeze_excite=config.squeeze_excite)
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
                self.post.append(ResidualCell(layout.post_branch, c, c, squeeze_excite=config.squeeze_excite))
        self.head = WeightNormConv2d(widths[0], outputs, 3, padding=1)

    def _up(self, branch: Branch, r: int) -> ResidualCell:
        """Return the cell that doubles the side, from resolution r + 1 to r."""
        widths = self.layout.decoder_widths
        return ResidualCell(branch, widths[r + 1], widths[r], "up", squeeze_excite=self.config.squeeze_excite)

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


Moment = tuple[object, ...]


class StateMemory:
    """One state: kept when latents are drawn, taken when the same tensors are decoded next.

    Drawing from q runs the decoder's tower already, since later groups depend on earlier ones. Decoding the
    draw starts where that ended: half the work saved, and in training every batch enters the running
    statistics of batch normalisation once. A state is handed out at most once, and only for the same
    tensors, weights, mode, grad mode and autocast; copies and pickles of a memory are empty.
    """

    def __init__(self) -> None:
        self._kept: tuple[list[weakref.ref[Tensor]], Moment, Tensor] | None = None

    def keep(self, module: nn.Module, z: tuple[Tensor, ...], state: Tensor) -> None:
        """Keep the state after the latents ``z``, in place of any other."""
        self._kept = [weakref.ref(z_l) for z_l in z], _moment(module), state

    def take(self, module: nn.Module, z: tuple[Tensor, ...]) -> Tensor | None:
        """Return the state after ``z`` if it is the one kept, and forget it in any case."""
        kept, self._kept = self._kept, None
        if kept is None:
            return None
        references, moment, state = kept
        same = len(references) == len(z) and all(ref() is z_l for ref, z_l in zip(references, z, strict=True))
        return state if same and moment == _moment(module) else None

    def __deepcopy__(self, memo: object) -> StateMemory:
        return StateMemory()

    def __reduce__(self) -> tuple[type[StateMemory], tuple[()]]:
        return StateMemory, ()


def _moment(module: nn.Module) -> Moment:
    """Return what a state depends on besides z; optimisers and loading alter all parameters, so one tells."""
    parameter = next(module.parameters(), None)
    version = None if parameter is None or parameter.is_inference() else parameter._version
    device = device_of(module).type
    autocast = device != "meta" and torch.is_autocast_enabled(device)
    return dtype_of(module), version, module.training, torch.is_grad_enabled(), autocast
