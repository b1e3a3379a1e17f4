"""The KL term by groups of latents: balancing while it is annealed, and counting the channels in use."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from lsgm.vae import LatentDraw, LatentGroups, normal_log_prob

__all__ = [
    "ACTIVE_NATS",
    "active_channels",
    "balanced",
    "batch_mean",
    "channel_sums",
    "group_shares",
    "normal_kl",
]

ACTIVE_NATS = 0.1
"""A channel is in use where its KL, summed over pixels and averaged over images, exceeds this."""


def channel_sums(x: Tensor) -> Tensor:
    """Sum over pixels: [B, C, h, w] -> [B, C]."""
    return x.flatten(2).sum(dim=2)


def normal_kl(draw: LatentDraw) -> Tensor:
    """Return log q - log N(0, I) by channels, one draw's estimate of the KL in nats: [B, C_l]."""
    return channel_sums(draw.log_q - normal_log_prob(draw.z))


def active_channels(kl: Tensor, *, everywhere: bool) -> Tensor:
    """Return which channels are in use, bool [C], from the KL of a batch by channels, [B, C].

    With ``everywhere`` the batch is that of all processes, which must all come here.
    """
    return batch_mean(kl, everywhere=everywhere) > ACTIVE_NATS


def batch_mean(values: Tensor, *, everywhere: bool) -> Tensor:
    """Return the mean over the batch of [B, ...], float64; with ``everywhere`` that of all processes."""
    mean = values.double().mean(dim=0)
    if everywhere and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(mean)
        mean = mean / dist.get_world_size()
    return mean


def group_shares(groups: LatentGroups) -> list[float]:
    """Return alpha_l of every group: in proportion to the scale's pixels over its number of groups, least 1.

    From the top scale down these are (2^s)^2 / (number of groups in scale s), divided by the smallest.
    """
    areas = [height * width for _, height, width in groups.shapes]
    shares = [area / areas.count(area) for area in areas]
    return [share / min(shares) for share in shares]


def balanced(kl: Tensor, shares: list[float], *, everywhere: bool) -> Tensor:
    """Return sum_l gamma_l KL_l [B] from KL_l by groups [B, G] (NVAE, arXiv:2007.03898, appendix A).

        a_l = E |KL_l| + 0.01,   gamma_l = a_l / alpha_l,   divided by its mean over the groups

    and without a gradient: groups that are used little pay little. With ``everywhere`` the expectation is
    over the batches of all processes, which must all come here.
    """
    used = batch_mean(kl.detach().abs(), everywhere=everywhere) + 0.01
    gamma = used / torch.tensor(shares, dtype=used.dtype, device=used.device)
    return (kl * (gamma / gamma.mean()).to(kl.dtype)).sum(dim=1)
