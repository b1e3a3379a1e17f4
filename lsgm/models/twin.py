"""A second self of a module that shares its memory and needs no gradient."""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar

from torch import nn

__all__ = ["Frozen"]

M = TypeVar("M", bound=nn.Module)


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
    for own, other in zip(module.modules(), twin.modules(), strict=True):
        if own._compiled_call_impl is not None:
            other.compile()
    return twin
