"""Layers that VAEs and score networks share: convolutions, resampling, residual blocks, attention, the time.

Resampling through the binomial filter [1, 3, 3, 1] (arXiv:1904.11486) is zero-insertion, filtering and
decimation, as NCSN++ (arXiv:2011.13456, appendix H) takes them from StyleGAN2: depthwise convolutions, one
with stride 2 on the way down, a transposed one on the way up. They run in whatever precision the network runs
in; the filter's values are exact in all of them. Batch normalisation is over the batches of all processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import local
from typing import Any, ClassVar, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lsgm.devices import unrounded

Direction = Literal["down", "up"]

NORM_EPS = 1e-5
"""Added to ||w|| where it divides."""
INIT_EPS = 1e-2
"""Added to ||w|| where the first log-norm is taken."""
TINY_INIT = 1e-10
"""Variance scale of layers that start as (almost) zero, so that a block starts as the identity."""


class WeightNormConv2d(nn.Conv2d):
    """Convolution by w_eff = exp(g_c) w / (||w|| + 1e-5), norms per output channel (arXiv:1602.07868).

    g is ``log_weight_norm``, [C_out, 1, 1, 1], initialised as log(||w|| + 1e-2) + log(gain): a gain below 1
    starts the layer that much quieter and is no part of it afterwards. A ``mask`` of 0s and 1s that
    broadcasts against w multiplies it before the norm is taken; it is a constant, kept in no checkpoint.
    """

    is_block: ClassVar[bool] = True
    mask: Tensor | None

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = True,
        mask: Tensor | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__(c_in, c_out, kernel, stride=stride, padding=padding, groups=groups, bias=bias)
        self.register_buffer("mask", None if mask is None else mask.to(self.weight), persistent=False)
        if self.weight.is_meta:  # of which shapes alone are asked, a thousand times
            first = torch.empty(c_out, 1, 1, 1, dtype=self.weight.dtype)
        else:
            first = (_norm(self.masked_weight()) + INIT_EPS).log() + math.log(gain)
        self.log_weight_norm = nn.Parameter(first.detach().clone())

    def effective_weight(self) -> Tensor:
        """Return the kernel that convolves, [C_out, C_in / groups, k, k]."""
        return normalised(self.masked_weight(), self.log_weight_norm)

    def forward(self, x: Tensor) -> Tensor:
        """Return x convolved with the effective kernel, [B, C_out, H', W']."""
        y: Tensor = self._conv_forward(x, self.effective_weight(), self.bias)
        return y

    def masked_weight(self) -> Tensor:
        """Return w times the mask where there is one, [C_out, C_in / groups, k, k]."""
        return self.weight if self.mask is None else self.weight * self.mask


def normalised(w: Tensor, log_norm: Tensor) -> Tensor:
    """Return exp(g) w / (||w|| + 1e-5) for kernels [..., C_out, C_in, k, k] and g [..., C_out, 1, 1, 1]."""
    if w.is_meta:  # of the same shape
        return w
    return w * (log_norm.exp() / (_norm(w) + NORM_EPS))


def _norm(w: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(w, dim=(-3, -2, -1), keepdim=True)
    return norm


def scaled_init(
    layer: nn.Conv2d | nn.Linear, scale: float = 1.0, *, parts: Sequence[int] | None = None
) -> None:
    """Initialise with variance scaling, fan average, uniform, as score_sde's networks do; zero biases.

    ``parts`` gives the outputs of each of several layers that are stacked in this one and have fans of their
    own.
    """
    for weight in torch.split(layer.weight, list(parts or layer.weight.shape[:1])):
        nn.init.xavier_uniform_(weight, gain=math.sqrt(max(scale, TINY_INIT)))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def sides_of(resolution: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of a resolution, which is these or the side of a square."""
    return (resolution, resolution) if isinstance(resolution, int) else resolution


def conv(c_in: int, c_out: int, kernel: int = 3, *, stride: int = 1, scale: float = 1.0) -> nn.Conv2d:
    """Return a convolution that keeps (or with a stride divides) the side, initialised by `scaled_init`."""
    layer = nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=(kernel - 1) // 2)
    scaled_init(layer, scale)
    return layer


def linear(d_in: int, d_out: int, *, scale: float = 1.0) -> nn.Linear:
    """Return a dense layer initialised by `scaled_init`."""
    layer = nn.Linear(d_in, d_out)
    scaled_init(layer, scale)
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """Return GroupNorm with as many groups as divide the channels, at most min(C / 4, 32)."""
    groups = max(1, min(channels // 4, 32))
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels, eps=1e-6)


class Head(nn.Sequential):
    """GroupNorm, SiLU and a 3 x 3 convolution: [B, C_in, H, W] -> [B, C_out, H, W]."""

    def __init__(self, c_in: int, c_out: int, *, scale: float = 1.0) -> None:
        super().__init__(group_norm(c_in), nn.SiLU(), conv(c_in, c_out, scale=scale))


class Resample(nn.Module):
    """Halve the side by 2 x 2 means ("down") or double it by repetition ("up"): [B, C, H, W] -> H', W'."""

    def __init__(self, direction: Direction) -> None:
        super().__init__()
        self.direction = direction

    def forward(self, x: Tensor) -> Tensor:
        """Return the features at half or twice the side."""
        if self.direction == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2.0, mode="nearest")


def binomial() -> Tensor:
    """Return the outer product of [1, 3, 3, 1] with itself, normalised to sum to 1, [1, 1, 4, 4]."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return torch.outer(taps, taps)[None, None]


class FIR(nn.Module):
    """Halve the side of [B, C, H, W] behind the filter, or double it before the filter with gain 4.

    Outside of the image are zeros. On the way up the gain makes up for the zeros between the pixels.
    """

    kernel: Tensor

    def __init__(self, direction: Direction) -> None:
        super().__init__()
        self.direction = direction
        self.register_buffer("kernel", binomial() * (4 if direction == "up" else 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features at half or twice the side."""
        channels = x.shape[1]
        kernel = self.kernel.expand(channels, 1, 4, 4)
        if self.direction == "down":
            return F.conv2d(x, kernel, stride=2, padding=1, groups=channels)
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=channels)


class FIRConv(nn.Conv2d):
    """A 3 x 3 convolution fused with FIR resampling: [B, C_in, H, W] -> [B, C_out, H', W'].

    Down, it is the filter and then the convolution with stride 2; up, zero-insertion, the convolution and
    then the filter. The image is padded once, before the first of the two, and not between them.
    """

    kernel: Tensor

    def __init__(self, c_in: int, c_out: int, direction: Direction) -> None:
        super().__init__(c_in, c_out, 3)
        self.direction = direction
        self.register_buffer("kernel", binomial() * (4 if direction == "up" else 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved features at half or twice the side."""
        if self.direction == "down":
            return F.conv2d(self._filter(x, padding=2), self.weight, self.bias, stride=2)
        # A transposed convolution lays every pixel's kernel down mirrored; mirrored twice, it correlates.
        kernel = self.weight.transpose(0, 1).flip(2, 3)
        # The bias comes last: through the filter it would darken towards the border.
        filtered = self._filter(F.conv_transpose2d(x, kernel, stride=2), padding=1)
        assert self.bias is not None
        return filtered + self.bias[:, None, None]

    def _filter(self, x: Tensor, padding: int) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(x, self.kernel.expand(channels, 1, 4, 4), padding=padding, groups=channels)


class ResBlock(nn.Module):
    """BigGAN residual block: [B, C_in, H, W] and a shift by the time [B, C_out] -> [B, C_out, H', W'].

    h = conv(drop(SiLU(GN(conv(resample(SiLU(GN(x)))) + shift)))), out = (skip(resample(x)) + h) / sqrt(2).
    The last convolution starts at zero. Without a shift it is the VAE's block.
    """

    is_block: ClassVar[bool] = True

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        direction: Direction | None = None,
        fir: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.width = c_out
        self.norm1 = group_norm(c_in)
        self.resample = nn.Identity() if direction is None else (FIR if fir else Resample)(direction)
        self.conv1 = conv(c_in, c_out)
        self.norm2 = group_norm(c_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv(c_out, c_out, scale=0.0)
        self.skip = conv(c_in, c_out, 1) if c_in != c_out or direction is not None else nn.Identity()

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """Return the block's output."""
        h = self.conv1(self.resample(F.silu(self.norm1(x))))
        if shift is not None:
            h = h + shift[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        skipped: Tensor = self.skip(self.resample(x))
        out: Tensor = (skipped + h) * math.sqrt(0.5)
        return out


class Attention(nn.Module):
    """Single-head self-attention over positions, [B, C, H, W] -> same; out = (x + attention) / sqrt(2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = conv(channels, 3 * channels, 1)
        scaled_init(self.qkv, 0.1, parts=[channels] * 3)
        self.out = conv(channels, channels, 1, scale=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return x plus what its positions say to one another."""
        channels = x.shape[1]
        # [B, head, position, channel], the layout that the fused kernels take.
        stacked = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).unsqueeze(1)
        h = F.scaled_dot_product_attention(*stacked.split(channels, dim=-1))
        mixed: Tensor = self.out(h.squeeze(1).transpose(1, 2).reshape(x.shape))
        return (x + mixed) * math.sqrt(0.5)


class TimeEmbedding(nn.Module):
    r"""Waves of t through a two-layer MLP: t [B] -> [B, hidden], activated.

    The E waves are sin and cos of angles :math:`\omega_i t`. "positional": geometric frequencies,
    :math:`\omega_i = s \, 10^{-4 i / (E/2 - 1)}` (arXiv:2006.11239). "fourier": random ones, drawn once and
    saved, :math:`\omega_i = 2 \pi w_i` with :math:`w_i \sim N(0, s^2)` (arXiv:2006.10739).

    The angles are computed in float64, since at scale 1000 float32 would blur t at the sixth digit, and the
    MLP in its own precision under any autocast. ``hidden`` is 4 E where it is left out.
    """

    frequencies: Tensor

    def __init__(
        self,
        size: int,
        scale: float,
        kind: Literal["positional", "fourier"] = "positional",
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        half = size // 2
        if kind == "fourier":
            self.unit = 2 * math.pi
            self.register_buffer("frequencies", scale * torch.randn(half))
        else:
            self.unit = 1.0
            # On the CPU: for arithmetic on the meta device torch imports its compiler, which takes a second.
            exponents = torch.arange(half, dtype=torch.float64, device="cpu") / max(half - 1, 1)
            frequencies = (scale * 10000.0**-exponents).to(torch.get_default_device())
            self.register_buffer("frequencies", frequencies, persistent=False)
        width = 4 * size if hidden is None else hidden
        self.first = linear(size, width)
        self.second = linear(width, width)

    def forward(self, t: Tensor) -> Tensor:
        """Return SiLU of the embedding, ready for `TimeShifts`."""
        angles = t.to(torch.float64)[:, None] * self.frequencies.to(t.device, torch.float64) * self.unit
        waves = torch.cat([angles.sin(), angles.cos()], dim=1).to(self.first.weight.dtype)
        with unrounded(t):
            return F.silu(self.second(F.silu(self.first(waves))))


class TimeShifts(nn.Linear):
    """Every block's own dense layer on the time embedding, [B, hidden] -> one [B, C_i] each, in one product.

    Each part is initialised as the layer that it is: a fan of all blocks together would make them small.
    """

    def __init__(self, size: int, widths: Sequence[int]) -> None:
        super().__init__(size, sum(widths))
        self.widths = list(widths)
        scaled_init(self, parts=self.widths)

    def shifts(self, embedded: Tensor) -> tuple[Tensor, ...]:
        """Return what each block adds to its features, in the order of the widths."""
        return tuple(self(embedded).split(self.widths, dim=1))


def recompute(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``function(*arguments)``, keeping only the arguments for the backward pass (arXiv:1604.06174).

    That trades time for memory. What lies between is computed a second time when gradients are taken: with
    the same random numbers, and without the batch entering BatchNorm's running statistics a second time, so
    that the step is the same.
    Costs nothing where no gradients are recorded.
    """
    if not torch.is_grad_enabled():
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False, context_fn=_contexts)


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), statistics_frozen()


def in_micro_batches(module: nn.Module, count: int) -> None:
    """Tell the parts of a network and its loss that care how many forward passes make up a training step."""
    part: Any
    for part in module.modules():
        if isinstance(getattr(type(part), "micro_batches", None), int):
            part.micro_batches = count


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

    With several ``micro_batches`` to a step each is normalised by itself, and all of a step together move the
    running statistics by the momentum.
    """

    micro_batches = 1
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
        if self.micro_batches > 1 and self.momentum is not None:
            share = 1.0 - (1.0 - share) ** (1 / self.micro_batches)
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
        ctx.save_for_backward(x, weight, mean, var, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, unbiased)
        return y, mean, unbiased

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, var, count = ctx.saved_tensors
        scale, gamma = (var + ctx.eps).rsqrt(), weight.to(mean)
        if x.dtype == mean.dtype == grad.dtype:
            # As if the moments were constants, in torch's own kernels; what hangs on them is added below.
            dx, d_gamma, d_beta = torch.ops.aten.native_batch_norm_backward(
                grad, x, gamma, mean, var, None, None, False, ctx.eps, [True, True, True]
            )
            own = torch.stack([d_beta, d_gamma])
            total = own.clone()
            dist.all_reduce(total)
            a, b = gamma * scale * total / count
            dx += F.batch_norm(x, mean, var, -b, -a, False, 0.0, ctx.eps)
        else:
            g = grad.to(mean.dtype)
            normalised = (x.to(mean.dtype) - _wide(mean)) * _wide(scale)
            own = torch.stack([g.sum(PER_CHANNEL), (g * normalised).sum(PER_CHANNEL)])
            total = own.clone()
            dist.all_reduce(total)
            a, b = total / count
            dx = (_wide(gamma * scale) * (g - _wide(a) - normalised * _wide(b))).to(x.dtype)
        return dx, own[1].to(weight.dtype), own[0].to(weight.dtype), None


def _global_moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean [C], biased variance [C] and number of values per channel over all processes.

    Each process's moments are pooled by var = sum_i n_i (var_i + (mean_i - mean)^2) / n, which cancels no
    digits however far the mean lies from zero.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    if wide.device.type == "cpu":  # the same numbers in a third of the time
        spare = torch.zeros(x.shape[1], dtype=wide.dtype)
        mean, var = torch.batch_norm_update_stats(wide, spare, spare.clone(), 0.0)
    else:
        var, mean = torch.var_mean(wide, PER_CHANNEL, correction=0)
    own = torch.stack([torch.full_like(mean, x.numel() / x.shape[1]), mean, var])
    every = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(every, own)
    counts, means, variances = torch.stack(every, dim=1)
    shares = counts / counts.sum(dim=0)
    mean = (shares * means).sum(dim=0)
    return mean, (shares * (variances + (means - mean) ** 2)).sum(dim=0), counts[:, 0].sum()


def _wide(values: Tensor) -> Tensor:
    return values[None, :, None, None]
