"""What moves the weights: optimisers at rates that follow progress, clipping; and the weights' average."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Adamax, AdamW, Optimizer

from lsgm.config import OptimConfig


@dataclass(frozen=True)
class ParamGroup:
    """Parameters that share an optimiser, a schedule and a gradient norm."""

    name: str
    params: Sequence[nn.Parameter]
    config: OptimConfig


def learning_rate(config: OptimConfig, warmup: float, progress: float) -> float:
    """Return the rate at `progress` p: lr p / w up to w = `warmup`, then the half cosine from lr to lr_min.

    lr(p) = lr_min + (lr - lr_min) (1 + cos(pi (p - w) / (1 - w))) / 2 for p >= w; p is clamped to [0, 1].
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        return config.lr * progress / warmup
    share = (progress - warmup) / (1.0 - warmup)
    return config.lr_min + (config.lr - config.lr_min) * 0.5 * (1.0 + math.cos(math.pi * share))


def build_optimizer(group: ParamGroup) -> Optimizer:
    """Return the optimiser of one group, in its fused form where torch has one, else multi-tensor.

    Adam adds weight decay to the gradient (L2), AdamW decouples it; Adamax takes eps inside the maximum.
    """
    config, params = group.config, list(group.params)
    if not params:
        raise ValueError(f"parameter group '{group.name}' is empty")
    betas, decay = (config.beta1, config.beta2), config.weight_decay
    if config.name == "adamax":
        foreach = all(p.is_cuda for p in params)
        return Adamax(params, config.lr, betas, config.eps, weight_decay=decay, foreach=foreach)
    rule = AdamW if config.name == "adamw" else Adam
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in params)
    return rule(params, config.lr, betas, config.eps, weight_decay=decay, fused=fused)


def clip_gradients(params: Iterable[nn.Parameter], largest: float) -> Tensor:
    """Scale the gradients to a joint norm of at most `largest` (0: leave them); return the norm before."""
    params = list(params)
    if largest > 0:
        return nn.utils.clip_grad_norm_(params, largest)
    grads = [p.grad for p in params if p.grad is not None]
    return nn.utils.get_total_norm(grads)


def freeze_all_but(module: nn.Module, groups: Iterable[ParamGroup]) -> None:
    """Let the groups' parameters require gradients, and no other parameter of the module.

    Raises ValueError where a parameter is in two groups or in none of the module's children.
    """
    trained: set[int] = set()
    for group in groups:
        for parameter in group.params:
            if id(parameter) in trained:
                raise ValueError(f"a parameter of group '{group.name}' is in two groups")
            trained.add(id(parameter))
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) in trained)
    if trained - {id(parameter) for parameter in module.parameters()}:
        raise ValueError("a parameter group holds parameters that are not the stage's module's")


class WeightAverage:
    """The averaged weights of some child modules, W_ema <- d W_ema + (1 - d) W; all else stands in as it is.

    Parameters and the floating-point buffers that checkpoints hold are averaged by multi-tensor lerps:
    BatchNorm's running statistics must be those of the weights that they serve. Other buffers, counts for
    one, are copied. The first update copies all, so that the average starts from the weights after the first
    step.
    """

    def __init__(self, module: nn.Module, children: tuple[str, ...], decay: float) -> None:
        self._module = module
        self._names = children
        self._decay = decay
        self._live = nn.ModuleList([module.get_submodule(name) for name in children])
        self._average = deepcopy(self._live).requires_grad_(False)
        self._slots = (_slots(self._live), _slots(self._average))
        self._updates = 0

    @property
    def updates(self) -> int:
        """How many steps the average has seen."""
        return self._updates

    @property
    def decay(self) -> float:
        """d."""
        return self._decay

    def covers(self, name: str) -> bool:
        """Return whether the tensor of that name in the module's state dict is averaged."""
        return any(not root or name.startswith(f"{root}.") for root in self._names)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the current weights."""
        if self._updates == 0:
            self.copy_from_module()
        else:
            live, shadow = self._pairs()
            for dtype in {tensor.dtype for tensor in shadow}:
                new = [x for x in live if x.dtype == dtype]
                old = [x for x in shadow if x.dtype == dtype]
                if dtype.is_floating_point:
                    torch._foreach_lerp_(old, new, 1 - self._decay)
                else:
                    torch._foreach_copy_(old, new)
        self._updates += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Return a complete state dict of the module, averaged where an average is kept."""
        state: dict[str, Tensor] = dict(self._module.state_dict())
        for name, shadow in zip(self._names, self._average, strict=True):
            prefix = f"{name}." if name else ""
            state.update({prefix + key: value for key, value in shadow.state_dict().items()})
        return state

    def load(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Restore the average from a complete state dict of the module and its number of updates."""
        for name, shadow in zip(self._names, self._average, strict=True):
            prefix = f"{name}." if name else ""
            own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            shadow.load_state_dict(own)
        self._updates = updates

    def copy_from_module(self) -> None:
        """Overwrite the average with the module's weights."""
        live, shadow = self._pairs()
        if live:
            torch._foreach_copy_(shadow, live)

    def copy_to_module(self) -> None:
        """Overwrite the module's weights with the averaged ones."""
        live, shadow = self._pairs()
        if live:
            torch._foreach_copy_(live, shadow)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the averaged weights in the module for a while; the raw ones return bit for bit."""
        live, _ = self._pairs()
        raw = [tensor.clone() for tensor in live]
        self.copy_to_module()
        try:
            yield
        finally:
            if live:
                torch._foreach_copy_(live, raw)

    def averaged(self, name: str) -> nn.Module:
        """Return the averaged self of a child module that is averaged, alone or as a part of another."""
        for root, shadow in zip(self._names, self._average, strict=True):
            if name == root or not root or name.startswith(f"{root}."):
                return shadow.get_submodule(name.removeprefix(root).removeprefix("."))
        raise KeyError(f"no average of '{name}' is kept")

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the tensors that a checkpoint holds, of the module and of the average, in one order."""
        live, shadow = ([t[name].detach() for t, name in slots] for slots in self._slots)
        return live, shadow


def _slots(module: nn.Module) -> list[tuple[Mapping[str, Any], str]]:
    """Return where a module keeps its parameters and persistent buffers; the other buffers are constants."""
    slots: dict[int, tuple[Mapping[str, Any], str]] = {}
    for part in module.modules():
        tables: tuple[Mapping[str, Any], ...] = (part._parameters, part._buffers)
        for table in tables:
            for name, tensor in table.items():
                if tensor is not None and name not in part._non_persistent_buffers_set:
                    # Tied weights stand in several places and are averaged once.
                    slots.setdefault(id(tensor), (table, name))
    return list(slots.values())
