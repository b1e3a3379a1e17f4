"""What stands beside the cross entropy in the losses: the KL by groups of latents, a penalty, a frozen twin.

The KL is balanced over groups while it is annealed, and tells which channels are in use; the penalty holds
the networks' Lipschitz constants down; the twin lets gradients pass a network whose parameters take none.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Generic, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lsgm.nets.compiled import compile_as
from lsgm.nets.layers import Attention, WeightNormConv2d, normalised
from lsgm.recipes.recipe import NormPenaltyConfig
from lsgm.vae.base import LatentDraw, LatentGroups, normal_log_prob

ACTIVE_NATS = 0.1
"""A channel is in use where its KL, summed over pixels and averaged over images, exceeds this."""
FIRST_ITERATIONS = 40
"""Power iterations when a penalty's vectors are new; later ones start from the last step's and need one."""

M = TypeVar("M", bound=nn.Module)


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
    gamma = used / _constants(tuple(shares), used.dtype, used.device)
    return (kl * (gamma / gamma.mean()).to(kl.dtype)).sum(dim=1)


@lru_cache(maxsize=64)
def _constants(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kept where they are used: a copy in every step is one that the host waits for.
    return torch.tensor(values, dtype=dtype, device=device)


class NormPenalty(nn.Module):
    """R = spectral * sum_W sigma_max(W) + gain * sum_gamma max_c |gamma_c|, as in NVAE (arXiv:2007.03898).

    W [C_out, rest] runs over the kernels of the network's convolutions as they convolve, with weight norm and
    mask and without those inside attention; gamma over the gains of its batch and group normalisations.

    sigma_max(W) is u^T W v for unit vectors u, v that follow W by one power iteration per step, all kernels
    of one shape at once; they are constants to the gradient, which is u v^T, that of the singular value
    itself. The vectors are part of the checkpoint. In eval mode they stay as they are. Of several
    ``micro_batches`` of a step the first moves them: the weights are the same for all.
    """

    micro_batches = 1
    warm: Tensor

    def __init__(self, network: nn.Module, config: NormPenaltyConfig) -> None:
        super().__init__()
        self.config = config
        # In plain lists: the layers are the network's, and no part of this module's state.
        kernels = _convolutions(network) if config.spectral else []
        gains = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm) and m.affine]
        self._kernels = _grouped(kernels, lambda m: (m.weight.shape, isinstance(m, WeightNormConv2d)))
        self._gains = _grouped(gains if config.gain else [], lambda m: m.weight.numel())
        generator = torch.Generator().manual_seed(0)  # the same vectors in all processes
        for index, layers in enumerate(self._kernels):
            w = layers[0].weight
            for name, size in (("u", w.shape[0]), ("v", w[0].numel())):
                start = torch.randn(len(layers), size, generator=generator).to(w)
                self.register_buffer(f"{name}{index}", nn.functional.normalize(start, dim=1))
        self.register_buffer("warm", torch.tensor(False))
        # The same as a Python truth: asking the device in every step would make the host wait for it.
        self._warm = False
        self._passes = 0
        self.register_load_state_dict_post_hook(_recall)  # type: ignore[no-untyped-call]

    def forward(self, k: float, kl_end: float) -> Tensor:
        """Return R, a scalar, when the KL's coefficient is k on its way up to ``kl_end``.

        With ``anneal_from`` both coefficients are multiplied by anneal_from^(1 - k / kl_end).
        """
        first = self.config.anneal_from
        factor = 1.0 if first is None else first ** (1 - min(k / kl_end, 1.0))
        total: Any = 0.0
        if self._kernels:
            total = total + factor * self.config.spectral * self.singular_values().sum()
        if self._gains:
            total = total + factor * self.config.gain * self.largest_gains().sum()
        return torch.as_tensor(total, device=self.warm.device)

    def singular_values(self) -> Tensor:
        """Return an estimate of each kernel's largest singular value, kernels of one shape together."""
        found = []
        follows = self.training and self._passes % self.micro_batches == 0
        self._passes += self.training
        with torch.autocast(self.warm.device.type, enabled=False):
            for index, layers in enumerate(self._kernels):
                w = _matrices(layers)
                if follows:
                    self._follow(index, w.detach())
                # Copies: the next step moves the buffers, and a backward pass may come after it.
                u, v = self.get_buffer(f"u{index}").clone(), self.get_buffer(f"v{index}").clone()
                found.append((u[:, None] @ w @ v[:, :, None]).flatten())
        if self.training and not self._warm:
            self.warm.fill_(True)
            self._warm = True
        return torch.cat(found)

    def largest_gains(self) -> Tensor:
        """Return max_c |gamma_c| of every normalisation, those of one width together."""
        stacks = [torch.stack([layer.weight for layer in layers]) for layers in self._gains]
        return torch.cat([gamma.abs().amax(dim=1) for gamma in stacks])

    @torch.no_grad()
    def _follow(self, index: int, w: Tensor) -> None:
        u, v = self.get_buffer(f"u{index}"), self.get_buffer(f"v{index}")
        for _ in range(1 if self._warm else FIRST_ITERATIONS):
            v.copy_(_unit(w.mT @ u[:, :, None], v))
            u.copy_(_unit(w @ v[:, :, None], u))


def _recall(penalty: Any, _: Any) -> None:
    penalty._warm = bool(penalty.warm)


def _unit(x: Tensor, otherwise: Tensor) -> Tensor:
    """Return x [L, n, 1] with rows of length 1; where a kernel is zero, what was there before."""
    x = x.squeeze(-1)
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return torch.where(norm > 0, x / norm, otherwise)


def _matrices(layers: list[nn.Conv2d]) -> Tensor:
    """Return the kernels of convolutions of one sort as they convolve, [L, C_out, rest]."""
    if not isinstance(layers[0], WeightNormConv2d):
        return torch.stack([layer.weight for layer in layers]).flatten(2)
    normed = [layer for layer in layers if isinstance(layer, WeightNormConv2d)]
    w = torch.stack([layer.masked_weight() for layer in normed])
    return normalised(w, torch.stack([layer.log_weight_norm for layer in normed])).flatten(2)


def _convolutions(network: nn.Module) -> list[nn.Conv2d]:
    inside = {
        id(part) for module in network.modules() if isinstance(module, Attention) for part in module.modules()
    }
    return [m for m in network.modules() if isinstance(m, nn.Conv2d) and id(m) not in inside]


def _grouped(modules: Iterable[M], key: Callable[[M], Any]) -> list[list[M]]:
    """Return the modules that can be stacked together, in the order in which the network names them."""
    groups: dict[Any, list[M]] = defaultdict(list)
    for module in modules:
        groups[key(module)].append(module)
    return list(groups.values())


class Frozen(Generic[M]):
    """Holds a module's twin: parameters and buffers are the module's own memory, without requires_grad.

    A backward pass through the twin goes on to its input and leaves the parameters alone, which saves the
    weight gradients' third of the work. That holds for as long as the twin exists, not for a context only:
    layers that recompute their activations during the backward pass still find themselves frozen.
    """

    def __init__(self, module: M) -> None:
        self._module = module
        self._twin: M | None = None
        self._memory: list[int] = []

    def twin(self) -> M:
        """Return the twin, in the module's mode; made anew where the module has moved or changed dtype."""
        memory = [tensor.data_ptr() for tensor in (*self._module.parameters(), *self._module.buffers())]
        if self._twin is None or memory != self._memory:
            self._twin, self._memory = _twin(self._module), memory
        if self._twin.training != self._module.training:
            self._twin.train(self._module.training)
        return self._twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen[M]:
        # A copy of the holder holds a copy of the module, and makes that one's twin when asked.
        return Frozen(copy.deepcopy(self._module, memo))


def _twin(module: M) -> M:
    memo: dict[int, Any] = {id(buffer): buffer for buffer in module.buffers()}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    twin = copy.deepcopy(module, memo)
    compile_as(twin, module)
    return twin
