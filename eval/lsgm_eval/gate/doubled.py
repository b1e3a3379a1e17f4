"""The same computation in float64, whatever the model: what float32 rounding does to its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Doubled"]

KEPT = frozenset({"grad", "backward", "seed", "manual_seed", "empty", "randn", "rand"})
"""Functions that are left alone: those of the autograd graph, and those that make room for random numbers,
which would be other numbers in float64."""
VIEWS = frozenset(
    {"unbind", "select", "narrow", "__getitem__", "view", "view_as", "reshape", "flatten", "unflatten"}
    | {"expand", "expand_as", "permute", "transpose", "t", "squeeze", "unsqueeze", "chunk", "split"}
    | {"detach", "contiguous"}
)
"""Functions that compute nothing, and whose results may be written to in the place of their arguments."""


class Doubled(TorchFunctionMode):
    """Within it every torch function sees float64 in the place of float32.

    Random numbers and whatever is written in place keep their dtype, so that seeds give the same noise;
    weights stay float32 and are widened where they are used. Everything between two such places is computed
    in float64: the differences from a computation outside are float32's roundings.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``func`` with float32 arguments widened."""
        given = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in KEPT or name in VIEWS or _in_place(name):
            return func(*args, **given)
        if func is Tensor.float:
            return args[0].double()
        return func(*_wide(args), **{key: _wide(value) for key, value in given.items()})


def _in_place(name: str) -> bool:
    if name in ("__get__", "__set__", "__setitem__", "__delete__"):
        return True
    operator = name.startswith("__i") and name.endswith("__") and name not in ("__invert__", "__index__")
    return operator or (name.endswith("_") and not name.endswith("__"))


def _wide(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.dtype is torch.float32 else value
    if value is torch.float32:
        return torch.float64
    if type(value) in (list, tuple):
        return type(value)(_wide(item) for item in value)
    return value
