"""Batch normalisation over the batches of all processes, with statistics that can be left alone."""

from __future__ import annotations

from contextlib import AbstractContextManager
from threading import local
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["BatchNorm", "statistics_frozen"]

# Of one thread: the backward pass, where activations are recomputed, runs in threads of its own.
_frozen = local()

PER_CHANNEL = (0, 2, 3)
"""The dimensions of [B, C, H, W] that a channel's statistics are taken over."""


def statistics_frozen() -> AbstractContextManager[None]:
    """Let no BatchNorm take what passes it into its running statistics; its outputs stay the same.

    May be nested, and one manager may be entered again: a graph may be run backward more than once.
    """
    return _Frozen()


class _Frozen(AbstractContextManager[None]):
    def __enter__(self) -> None:
        _frozen.depth = getattr(_frozen, "depth", 0) + 1

    def __exit__(self, *raised: object) -> None:
        _frozen.depth -= 1


class BatchNorm(nn.BatchNorm2d):
    """y = gamma (x - mean) / sqrt(var + eps) + beta per channel of [B, C, H, W] (arXiv:1502.03167).

    In training the mean and variance are those of the whole batch: where torch.distributed is initialised
    with several processes, of all their shares together, and gradients flow through these statistics over
    all processes. They are accumulated in float32 or better, whatever the activations' type. In evaluation
    the running statistics take their place, r <- (1 - momentum) r + momentum batch's, with the unbiased
    variance; without a momentum they are the mean over all batches seen.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, momentum: float | None = 0.05, eps: float = 1e-5) -> None:
        super().__init__(channels, eps=eps, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised x, [B, C, H, W]."""
        if not self.training:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            y, mean, var = _Synchronised.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        else:
            # At momentum 1 these become the batch's own statistics. The running ones are no part of the
            # graph: then a pass that leaves them alone saves the same tensors as one that does not.
            mean, var = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
            y = F.batch_norm(x, mean, var, self.weight, self.bias, True, 1.0, self.eps)
        if not getattr(_frozen, "depth", 0):
            self._track(mean, var)
        out: Tensor = y
        return out

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor) -> None:
        self.num_batches_tracked += 1
        share = 1.0 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(var.to(self.running_var), share)


class _Synchronised(torch.autograd.Function):
    """Batch normalisation by the moments over all processes; returns y and the mean and unbiased variance.

    One gathering of [3, C] numbers forward, one sum of [2, C] backward. The gradients of gamma and beta are
    this process's share of the sum over all: whoever averages gradients over processes averages them too.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        mean, var, count = _global_moments(x)
        y = F.batch_norm(x, mean, var, weight.to(mean), bias.to(mean), False, 0.0, eps)
        unbiased = var * (count / (count - 1))
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt(), count)
        ctx.mark_non_differentiable(mean, unbiased)
        return y, mean, unbiased

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        g = grad.to(mean.dtype)
        normalised = (x.to(mean.dtype) - _wide(mean)) * _wide(scale)
        own = torch.stack([g.sum(PER_CHANNEL), (g * normalised).sum(PER_CHANNEL)])
        total = own.clone()
        dist.all_reduce(total)
        a, b = total / count
        dx = _wide(weight * scale) * (g - _wide(a) - normalised * _wide(b))
        return dx.to(x.dtype), own[1].to(weight.dtype), own[0].to(weight.dtype), None


def _global_moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean [C], biased variance [C] and number of values per channel over all processes.

    Each process's moments are pooled by var = sum_i n_i (var_i + (mean_i - mean)^2) / n, which cancels no
    digits however far the mean lies from zero.
    """
    var, mean = torch.var_mean(x.to(torch.promote_types(x.dtype, torch.float32)), PER_CHANNEL, correction=0)
    own = torch.stack([torch.full_like(mean, x.numel() / x.shape[1]), mean, var])
    every = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(every, own)
    counts, means, variances = torch.stack(every, dim=1)
    shares = counts / counts.sum(dim=0)
    mean = (shares * means).sum(dim=0)
    return mean, (shares * (variances + (means - mean) ** 2)).sum(dim=0), counts[:, 0].sum()


def _wide(values: Tensor) -> Tensor:
    return values[None, :, None, None]
