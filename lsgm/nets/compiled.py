"""Networks compiled block by block: blocks of one structure share one compilation, whatever their number.

A whole network is one graph, which takes the longer to compile the deeper it is; its repeated blocks are a
few graphs, and hold all the arithmetic. What stands between them runs as it is. Compiled are shapes as they
are met: training has one shape, and validation, whose last batch is smaller, runs uncompiled (`uncompiled`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import nn

from lsgm.errors import ConfigError

BACKEND = "inductor"
"""Of `torch.compile`."""


def compile_blocks(network: nn.Module, *, cuda_graphs: bool = False) -> int:
    """Compile a network's blocks in place, the whole of it where it has none; return how many graphs' worth.

    Blocks are the outermost modules whose class says ``is_block``. Random numbers are those that the network
    draws uncompiled. With ``cuda_graphs`` what is compiled is recorded and replayed; call `new_step` before
    each step.
    """
    calls: dict[Any, Callable[..., Any]] = {}
    for block in list(_blocks(network)) or [network]:
        structure = _structure(block)
        if structure not in calls:
            calls[structure] = _compiled(f"{type(block).__name__}_{len(calls)}", cuda_graphs)
        block._compiled_call_impl = partial(calls[structure], block)
    return len(calls)


def compile_as(module: nn.Module, like: nn.Module) -> None:
    """Compile a copy of a network as the network is, block by block; what is not compiled there stays."""
    for copy, own in zip(module.modules(), like.modules(), strict=True):
        if isinstance(own._compiled_call_impl, partial):
            copy._compiled_call_impl = partial(own._compiled_call_impl.func, copy)
        elif own._compiled_call_impl is not None:
            copy.compile()


def release(module: nn.Module) -> None:
    """Undo `compile_blocks`."""
    for part in module.modules():
        if isinstance(part._compiled_call_impl, partial):
            part._compiled_call_impl = None


def uncompiled() -> AbstractContextManager[Any]:
    """Return a context in which compiled networks run as they are: other shapes ask for no other graphs."""
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def new_step() -> None:
    """Say that results of the step before are needed no more, so that their memory may be replayed over."""
    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]


def require_compiler(device: torch.device, *, cuda_graphs: bool) -> None:
    """Raise ConfigError where nothing can be compiled on a device, or recorded."""
    if cuda_graphs and device.type != "cuda":
        raise ConfigError(f"cuda-graphs is on, and the device is {device}; leave it out, or take a GPU")
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise ConfigError(
                "compile needs triton on a GPU, which is not installed; install it, or leave out compile"
            )
        return
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:  # InvalidCxxCompiler is where torch keeps it, which has moved before
        raise ConfigError(
            "compile needs a C++ compiler on this device; install one (g++), or leave compile out"
        ) from error


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost blocks, in the order of the network's children."""
    for child in module.children():
        if getattr(child, "is_block", False):
            yield child
        else:
            yield from _blocks(child)


def _structure(block: nn.Module) -> Any:
    """Return what blocks have in common that one graph may serve; what else differs is for its guards."""
    tensors = (*block.named_parameters(), *block.named_buffers())
    return type(block), tuple((name, tuple(tensor.shape)) for name, tensor in tensors)


def _compiled(name: str, cuda_graphs: bool) -> Callable[..., Any]:
    # Variants are kept, counted and looked through by code object: each structure gets one of its own.
    call = FunctionType(_call.__code__.replace(co_name=name), _call.__globals__, name)
    options: dict[str, Any] = {"fallback_random": True, "triton.cudagraphs": cuda_graphs}
    more: dict[str, Any] = {"options": options} if BACKEND == "inductor" else {}
    return torch.compile(call, dynamic=False, backend=BACKEND, **more)


def _call(block: nn.Module, *inputs: Any) -> Any:
    return block.forward(*inputs)
