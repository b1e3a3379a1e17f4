"""Exponential moving average of the weights: W_ema <- d W_ema + (1 - d) W, from step one on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """The averaged weights of some child modules of a module; everything else stands in as it is.

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
