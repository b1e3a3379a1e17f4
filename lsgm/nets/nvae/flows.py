"""Volume-preserving autoregressive shifts that enrich q (arXiv:1606.04934; NVAE, arXiv:2007.03898)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsgm.nets.weightnorm import WeightNormConv2d

__all__ = ["EXPANSION", "Shift", "ShiftPair", "order_mask", "spatial_mask"]

EXPANSION = 6
"""Hidden channels of a shift per latent channel."""


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
