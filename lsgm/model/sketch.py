"""Networks drawn before they are built: shapes without memory, counted while they come to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.utils.flop_counter import FlopCounterMode

from lsgm.errors import ConfigError
from lsgm.files.limits import LAYERS, MODEL, Limit
from lsgm.generative import Pixels
from lsgm.kinds import find_kind

__all__ = ["operations", "sketch"]


def sketch(recipe: Any, pixels: Pixels) -> nn.Module:
    """Return a recipe's networks on the meta device, which holds shapes alone; generators stay as they are.

    Raises ConfigError once there are more layers or numbers than `LAYERS` and `MODEL` let pass, and where
    sizes are beyond what a tensor can have.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), _counted():
            networks: nn.Module = find_kind(recipe.kind).build(recipe, pixels)
            return networks
    except (RuntimeError, OverflowError, MemoryError, RecursionError) as error:
        why = str(error).split("\n")[0][:160] or type(error).__name__
        raise ConfigError(f"networks of these sizes cannot be built ({why}); give smaller ones") from error


@contextmanager
def _counted() -> Iterator[None]:
    """Count modules, and the numbers that any is given meanwhile, and stop where they are too many."""
    layers, numbers = _Counter(LAYERS), _Counter(MODEL)

    def of_tensor(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        numbers.add(0 if tensor is None else tensor.numel())

    def of_module(module: nn.Module, name: str, part: nn.Module | None) -> None:
        layers.add(1)

    with ExitStack() as stack:
        stack.enter_context(_hooked(hooks.register_module_parameter_registration_hook, of_tensor))
        stack.enter_context(_hooked(hooks.register_module_buffer_registration_hook, of_tensor))
        stack.enter_context(_hooked(hooks.register_module_module_registration_hook, of_module))
        yield


@contextmanager
def _hooked(register: Any, hook: Any) -> Iterator[None]:
    handle = register(hook)
    try:
        yield
    finally:
        handle.remove()


class _Counter:
    """Adds up, and raises ConfigError above a limit."""

    def __init__(self, limit: Limit) -> None:
        self._limit, self._largest, self._count = limit, limit.value, 0

    def add(self, count: int) -> None:
        self._count += count
        if self._count > self._largest:
            raise ConfigError(
                f"the networks have at least {self._count:,} {self._limit.unit}, and {self._largest:,} at "
                f"most are built; give smaller ones, or raise {self._limit.variable}"
            )


# Floating-point operations of a computation, by which models of different networks share one currency


@torch.no_grad()
def operations(compute: Callable[[], Any]) -> int:
    """Return the operations of one call: 2 per multiply-add of matrix products, convolutions and attention.

    What acts number by number (activations, norms, the sampler's own arithmetic) is not counted, as is usual.
    """
    with FlopCounterMode(display=False) as counter:
        compute()
    return int(counter.get_total_flops())
