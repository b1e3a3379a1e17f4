"""Networks for measuring: what only training needs is worked into the convolutions once."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeGuard

import torch
from torch import Tensor, nn

from lsgm.nets.layers import WeightNormConv2d


@torch.no_grad()
def fold(module: nn.Module) -> int:
    """Fold weight norm and batch norm into plain convolutions, in place; return how many of them went.

    For a module in eval mode, which computes the same afterwards and can be trained no more. Every
    WeightNormConv2d becomes the nn.Conv2d of its effective kernel. In each nn.Sequential a BatchNorm right
    after a convolution, y = s (W * x + b - mean) + beta with s = gamma / sqrt(var + eps), becomes the kernel
    s W and the bias s (b - mean) + beta; one right before a convolution without padding goes the same way.
    nn.Identity stands where they were.
    """
    assert not module.training, "only a module in eval mode can be folded"
    parts = list(module.modules())
    return sum(_plain_kernels(part) for part in parts) + sum(
        _without_batchnorm(part) for part in parts if isinstance(part, nn.Sequential)
    )


def _plain_kernels(parent: nn.Module) -> int:
    count = 0
    for name, child in list(parent.named_children()):
        if isinstance(child, WeightNormConv2d):
            setattr(parent, name, _plain(child))
            count += 1
    return count


def _plain(normed: WeightNormConv2d) -> nn.Conv2d:
    conv = nn.Conv2d(
        normed.in_channels,
        normed.out_channels,
        normed.kernel_size,  # type: ignore[arg-type]
        normed.stride,  # type: ignore[arg-type]
        normed.padding,  # type: ignore[arg-type]
        groups=normed.groups,
        bias=normed.bias is not None,
        device="meta",
    )
    _set(conv, normed.effective_weight(), normed.bias)
    return conv.eval()


def _without_batchnorm(sequence: nn.Sequential) -> int:
    layers = {name: child for name, child in sequence.named_children() if not isinstance(child, nn.Identity)}
    gone: set[str] = set()
    for (first, a), (second, b) in pairwise(layers.items()):
        if first in gone:
            continue
        if _is_plain(a) and _is_batchnorm(b):
            _absorb_after(a, b)
            gone.add(second)
        elif _is_batchnorm(a) and _is_plain(b) and not any(b.padding):
            _absorb_before(b, a)
            gone.add(first)
    for name in gone:
        setattr(sequence, name, nn.Identity().eval())
    return len(gone)


def _is_plain(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    # Not its subclasses, which may do more than convolve.
    return type(layer) is nn.Conv2d


def _is_batchnorm(layer: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    return isinstance(layer, nn.BatchNorm2d) and layer.affine and layer.track_running_stats


def _absorb_after(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    s, shift = _affine(norm)
    w = conv.weight.double() * s[:, None, None, None]
    _set(conv, w.to(conv.weight), (s * _bias(conv) + shift).to(conv.weight))


def _absorb_before(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """W * (s x + shift) + b has the kernel W s, per input channel, and the bias b + sum W shift."""
    w = conv.weight.double()
    s, shift = (
        x.view(conv.groups, 1, -1).expand(-1, conv.out_channels // conv.groups, -1).flatten(0, 1)
        for x in _affine(norm)
    )
    bias = _bias(conv) + (w.sum(dim=(2, 3)) * shift).sum(dim=1)
    _set(conv, (w * s[:, :, None, None]).to(conv.weight), bias.to(conv.weight))


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return s and shift of y = s x + shift, float64 [C]."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    s = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    return s, norm.bias.double() - s * norm.running_mean.double()


def _bias(conv: nn.Conv2d) -> Tensor:
    if conv.bias is None:
        return torch.zeros(conv.out_channels, dtype=torch.float64, device=conv.weight.device)
    return conv.bias.double()


def _set(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> None:
    conv.weight = nn.Parameter(weight.clone(), requires_grad=False)
    conv.bias = None if bias is None else nn.Parameter(bias.clone(), requires_grad=False)
