"""The residual cells of NVAE (arXiv:2007.03898, section 3): out = skip(x) + 0.1 SE(branch(x))."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from lsgm.nets.batchnorm import BatchNorm
from lsgm.nets.nvae.resample import Resampling, skip_path
from lsgm.nets.nvae.squeeze import SqueezeExcite
from lsgm.nets.weightnorm import WeightNormConv2d

__all__ = ["BRANCH_SCALE", "BNSwishConv", "Branch", "Cell", "bottleneck", "plain"]

Branch = Literal["plain", "bottleneck3", "bottleneck6"]
"""What a cell computes: two 3 x 3 convolutions, or an inverted bottleneck of 3 or 6 times the channels."""

BRANCH_SCALE = 0.1
"""Factor on every branch: a deep stack of cells starts close to its skip connections."""


class Cell(nn.Module):
    """out = skip(x) + 0.1 SE(branch(x)), [B, c_in, h, w] -> [B, c_out, h', w'] with h' = h, h / 2 or 2 h."""

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
