"""What the hierarchical VAE is built of: NVAE's residual cells, and shifts that enrich q.

A cell is out = skip(x) + 0.1 SE(branch(x)) (NVAE, arXiv:2007.03898, section 3): a skip connection that
keeps, halves or doubles the side, a branch that does the work, and squeeze and excitation of what that gives.
A shift is volume-preserving and autoregressive (arXiv:1606.04934).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsgm.devices import at_least_float32, unrounded
from lsgm.nets.layers import BatchNorm, WeightNormConv2d

Resampling = Literal["keep", "down", "up"]
"""What a cell does to the side of its input: nothing, halve it, double it."""
Branch = Literal["plain", "bottleneck3", "bottleneck6"]
"""What a cell computes: two 3 x 3 convolutions, or an inverted bottleneck of 3 or 6 times the channels."""
BRANCH_SCALE = 0.1
"""Factor on every branch: a deep stack of cells starts close to its skip connections."""
EXPANSION = 6
"""Hidden channels of a shift per latent channel."""


class ShiftedDown(nn.Module):
    """[B, C_in, 2 h, 2 w] -> [B, C_out, h, w]: every pixel of a 2 x 2 patch gives a quarter of the channels.

    Four 1 x 1 convolutions of stride 2 see swish(x) from the offsets (row, column) = (0, 0), (1, 1), (0, 1)
    and (1, 0); the last takes what C_out / 4 leaves over.
    """

    OFFSETS = ((0, 0), (1, 1), (0, 1), (1, 0))

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        quarter = c_out // 4
        widths = (quarter, quarter, quarter, c_out - 3 * quarter)
        self.quarters = nn.ModuleList(WeightNormConv2d(c_in, width, 1, stride=2) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        """Return the halved map."""
        x = F.silu(x)
        views = (x[:, :, row:, column:] for row, column in self.OFFSETS)
        return torch.cat([conv(view) for conv, view in zip(self.quarters, views, strict=True)], dim=1)


class BilinearUp(nn.Module):
    """[B, C_in, h, w] -> [B, C_out, 2 h, 2 w]: bilinear with corners aligned, then a 1 x 1 convolution."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = WeightNormConv2d(c_in, c_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the doubled map."""
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        out: Tensor = self.conv(x)
        return out


def skip_path(c_in: int, c_out: int, resampling: Resampling) -> nn.Module:
    """Return a cell's skip connection, [B, c_in, h, w] -> [B, c_out, h', w']; "keep" needs c_in = c_out."""
    if resampling == "down":
        return ShiftedDown(c_in, c_out)
    if resampling == "up":
        return BilinearUp(c_in, c_out)
    assert c_in == c_out, "a cell that keeps the side keeps the channels"
    return nn.Identity()


class SqueezeExcite(nn.Module):
    """y = x sigmoid(W_2 relu(W_1 mean(x))), a gate per channel, [B, C, h, w] -> the same (arXiv:1709.01507).

    The means over a whole map and the gates are float32 or better whatever the autocast dtype.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 4)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated x."""
        with unrounded(x):
            means = at_least_float32(x).mean(dim=(2, 3))
            gates = torch.sigmoid(self.excite(torch.relu(self.squeeze(means))))
        return x * gates[:, :, None, None].to(x.dtype)


class ResidualCell(nn.Module):
    """out = skip(x) + 0.1 SE(branch(x)), [B, c_in, h, w] -> [B, c_out, h', w'] with h' = h, h / 2 or 2 h."""

    is_block: ClassVar[bool] = True

    def __init__(
        self, branch: Branch, c_in: int, c_out: int, resampling: Resampling = "keep", *, squeeze_excite: bool
    ) -> None:
        super().__init__()
        self.skip = skip_path(c_in, c_out, resampling)
        if branch == "plain":
            self.branch = plain(c_in, c_out, resampling)
        else:
            self.branch = bottleneck(c_in, c_out, resampling, expansion=int(branch[-1]))
        self.gate = SqueezeExcite(c_out) if squeeze_excite else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the cell's output."""
        out: Tensor = self.skip(x) + BRANCH_SCALE * self.gate(self.branch(x))
        return out


class BNSwishConv(nn.Module):
    """BN -> swish -> weight-normalised 3 x 3 convolution, [B, c_in, h, w] -> [B, c_out, h', w'].

    Halving is the convolution's stride; doubling repeats every pixel before the convolution.
    """

    is_block: ClassVar[bool] = True

    def __init__(self, c_in: int, c_out: int, resampling: Resampling = "keep") -> None:
        super().__init__()
        self.doubles = resampling == "up"
        self.norm = BatchNorm(c_in)
        self.conv = WeightNormConv2d(c_in, c_out, 3, stride=2 if resampling == "down" else 1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved map."""
        x = F.silu(self.norm(x))
        if self.doubles:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        out: Tensor = self.conv(x)
        return out


def plain(c_in: int, c_out: int, resampling: Resampling) -> nn.Sequential:
    """Return the branch of two BN -> swish -> conv 3 x 3, of which the first resamples."""
    return nn.Sequential(BNSwishConv(c_in, c_out, resampling), BNSwishConv(c_out, c_out))


def bottleneck(c_in: int, c_out: int, resampling: Resampling, *, expansion: int) -> nn.Sequential:
    """Return the inverted bottleneck: BN, 1 x 1 to e C channels, depthwise 5 x 5, 1 x 1 back, BN.

    Each convolution but the last is followed by BN and swish; they have neither bias nor weight norm, both
    of which BN would undo. Doubling comes first and repeats every pixel; halving is the depthwise stride.
    """
    hidden = expansion * c_in
    stride = 2 if resampling == "down" else 1
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if resampling == "up":
        layers["doubling"] = nn.UpsamplingNearest2d(scale_factor=2)
    layers["norm"] = BatchNorm(c_in)
    layers["expand"] = nn.Conv2d(c_in, hidden, 1, bias=False)
    layers["expand_norm"] = BatchNorm(hidden)
    layers["expand_swish"] = nn.SiLU()
    layers["depthwise"] = nn.Conv2d(hidden, hidden, 5, stride, padding=2, groups=hidden, bias=False)
    layers["depthwise_norm"] = BatchNorm(hidden)
    layers["depthwise_swish"] = nn.SiLU()
    layers["project"] = nn.Conv2d(hidden, c_out, 1, bias=False)
    layers["project_norm"] = BatchNorm(c_out)
    return nn.Sequential(layers)


class Shift(nn.Module):
    """z' = z - M(z), [B, L, h, w] -> the same, where M at a variable sees those before it alone.

    The order is raster order over pixels, from the last pixel to the first if ``mirrored``, and rising
    channels within a pixel either way. The Jacobian is triangular with a diagonal of ones in this order:
    log |det dz'/dz| = 0.
    M is a masked 3 x 3 convolution to 6 L channels that leaves out the variable itself, a masked depthwise
    5 x 5 and a masked 1 x 1 back to L, with ELUs between.
    """

    def __init__(self, latents: int, *, mirrored: bool) -> None:
        super().__init__()
        hidden = EXPANSION * latents
        latent = torch.arange(latents, device="cpu")
        # Each latent channel owns EXPANSION neighbouring hidden ones, which may see what it may see.
        owner = torch.arange(hidden, device="cpu") // EXPANSION
        first = order_mask(owner, latent, 3, strict=True, mirrored=mirrored)
        wide = spatial_mask(5, centre=True, mirrored=mirrored)[None, None]
        last = order_mask(latent, owner, 1, strict=False, mirrored=mirrored)
        self.first = WeightNormConv2d(latents, hidden, 3, padding=1, bias=False, mask=first)
        self.wide = WeightNormConv2d(hidden, hidden, 5, padding=2, groups=hidden, bias=False, mask=wide)
        self.last = WeightNormConv2d(hidden, latents, 1, mask=last, gain=0.1)

    def forward(self, z: Tensor) -> Tensor:
        """Return z - M(z), in z's own precision."""
        shift = self.last(F.elu(self.wide(F.elu(self.first(z)))))
        shifted: Tensor = z - shift.to(z.dtype)
        return shifted


class ShiftPair(nn.Module):
    """A shift in raster order and one against it, so that pixels depend on those on all sides; log-det 0."""

    is_block: ClassVar[bool] = True

    def __init__(self, latents: int) -> None:
        super().__init__()
        self.forwards = Shift(latents, mirrored=False)
        self.backwards = Shift(latents, mirrored=True)

    def forward(self, z: Tensor) -> Tensor:
        """Return the twice shifted z, [B, L, h, w]."""
        out: Tensor = self.backwards(self.forwards(z))
        return out


def spatial_mask(kernel: int, *, centre: bool, mirrored: bool) -> Tensor:
    """Return 1 where a tap of a k x k kernel lies before its centre in raster order (or after), [k, k]."""
    raster = torch.arange(kernel * kernel, device="cpu").view(kernel, kernel)
    middle = kernel * kernel // 2
    before = raster > middle if mirrored else raster < middle
    return (before | ((raster == middle) & centre)).float()


def order_mask(out: Tensor, into: Tensor, kernel: int, *, strict: bool, mirrored: bool) -> Tensor:
    """Return [len(out), len(into), k, k]: 1 where an output may see an input.

    ``out`` and ``into`` are the latent channels that outputs and inputs stand for. Within the pixel itself
    an output sees lower channels and, unless ``strict``, its own; ``mirrored`` turns the pixels' order alone.
    """
    mask = spatial_mask(kernel, centre=False, mirrored=mirrored).repeat(len(out), len(into), 1, 1)
    seen = out[:, None] > into[None, :] if strict else out[:, None] >= into[None, :]
    mask[:, :, kernel // 2, kernel // 2] = seen.float()
    return mask
