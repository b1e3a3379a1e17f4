"""Where numbers live and in which dtype; the clock of a device, its memory, and how many rows go at once."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lsgm.errors import ConfigError

T = TypeVar("T")

_STATUS, _CLEAR, _MEMORY = Path("/proc/self/status"), Path("/proc/self/clear_refs"), Path("/proc/meminfo")


def at_least_float32(x: Tensor) -> Tensor:
    """Return half-precision tensors as float32 and leave float32 and float64 alone.

    Networks may run in bfloat16, latents and log-densities never.
    """
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def unrounded(like: Tensor) -> contextlib.AbstractContextManager[object]:
    """Return a context without autocast on a tensor's device; on ``meta``, shapes alone, there is none."""
    if like.device.type == "meta":
        return contextlib.nullcontext()
    return torch.autocast(like.device.type, enabled=False)


def computes_bfloat16(device: torch.device) -> bool:
    """Return whether a device has arithmetic for bfloat16.

    A CPU without it computes the same by detours: a training step of the smallest recipes takes 14 times as
    long as in float32 there (measured on AVX2).
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type != "cpu" or _mkldnn("bf16")


def computes_float16(device: torch.device) -> bool:
    """Return whether a device has arithmetic for float16, as every GPU has and hardly a CPU."""
    return device.type != "cpu" or _mkldnn("fp16")


def _mkldnn(kind: str) -> bool:
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(built and getattr(torch.ops.mkldnn, f"_is_mkldnn_{kind}_supported")())


def dtype_of(module: nn.Module) -> torch.dtype:
    """Return the dtype a module computes in: that of its first floating-point parameter, else buffer.

    Modules with neither compute in whatever they are given, and get torch's default.
    """
    found = (tensor.dtype for tensor in _tensors(module) if tensor.is_floating_point())
    return next(found, torch.get_default_dtype())


def device_of(module: nn.Module) -> torch.device:
    """Return the device of a module's first parameter, else of its first buffer, else torch's default."""
    return next((tensor.device for tensor in _tensors(module)), torch.get_default_device())


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def pick_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is this process's GPU where there is one, else the CPU.

    On a GPU float32 is float32 from here on (`round_to_tf32`). Raises ConfigError where the name is not a
    device or the device is not here.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        round_to_tf32(False)
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it holds shapes and no numbers")
        torch.empty(0, device=device)
    # torch answers with any of these; an absent backend's answer goes on for a page after its first sentence.
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).strip().split("\n")[0].split(". ")[0].rstrip(".")
        raise ConfigError(f"there is no device '{name}' here ({reason}); try --device cpu") from None
    if device.type == "cuda":
        round_to_tf32(False)
    return device


def round_to_tf32(on: bool) -> None:
    """Let GPUs round float32 to TF32, which keeps 10 of its 23 bits, in convolutions and products, or not.

    torch's own setting rounds convolutions and leaves products of matrices alone. Where speed is asked for,
    a stage or a sampler names bfloat16, which is recorded beside its results; float32 is what it says.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = on


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Round nothing to TF32 meanwhile, whatever a program has set: for features, which others compute too."""
    convolutions: Any = torch.backends.cudnn
    products: Any = torch.backends.cuda.matmul
    name: str = "allow_tf32"
    exact: bool | str = False
    try:
        before = getattr(convolutions, name), getattr(products, name)
    except RuntimeError:  # the program has set torch's newer switches, after which these cannot be read
        convolutions, name, exact = convolutions.conv, "fp32_precision", "ieee"
        before = getattr(convolutions, name), getattr(products, name)
    try:
        for switch in (convolutions, products):
            setattr(switch, name, exact)
        yield
    finally:
        setattr(convolutions, name, before[0])
        setattr(products, name, before[1])


def clock(device: torch.device) -> float:
    """Return the wall clock in seconds once the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def reset_peak(device: torch.device | None = None) -> int | None:
    """Begin a new measurement of the peak and return what is held now, in bytes, as `peak_bytes` counts it.

    On a system that cannot begin anew (any but Linux, where no GPU is asked about) the measurement goes on.
    """
    if _on_gpu(device):
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")
    return peak_bytes(device)


def peak_bytes(device: torch.device | None = None) -> int | None:
    """Return the most bytes held since `reset_peak`: torch's allocations on a GPU, else resident memory.

    Without a device a GPU is asked about where there is one. The answer is None where the system has none.
    """
    if _on_gpu(device):
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text()):
            return int(found[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows has none
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


UNTOLD = 2**31
"""Bytes that are taken to be free on a system that does not tell, as Windows."""


def free_bytes(device: torch.device | str = "cpu") -> int:
    """Return the memory free on a device; on the CPU what the system could give without swapping."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        for line in _MEMORY.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if not hasattr(os, "sysconf"):
        return UNTOLD
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


GAIN = 1.05
"""A batch twice as large counts as faster from so many times the rows a second on."""
PATIENCE = 2.0
"""Seconds of one call beyond which no larger batch is tried."""


def fastest_batch(work: Callable[[int], object], device: torch.device, *, most: int = 4096) -> int:
    """Return how many rows ``work(rows)`` takes at once where it does most of them a second, in powers of 2.

    Sizes grow until memory ends or no more is gained. It is the smallest one that is as fast as the fastest
    but for `GAIN`: what is larger takes memory for nothing. Raises torch.OutOfMemoryError where one row is
    too many.
    """
    rates: dict[int, float] = {}
    best, rows = 1, 1
    while rows <= most:
        held = reset_peak(device)
        try:
            work(rows)  # libraries choose their kernels
            started = clock(device)
            work(rows)
            took = clock(device) - started
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
            break
        rates[rows] = rows / took
        best = rows if rates[rows] > GAIN * rates[best] else best
        if rows >= 4 * best or took > PATIENCE or not _has_room(device, held):
            break
        rows *= 2
    _release(device)
    return next(rows for rows, rate in rates.items() if GAIN * rate >= max(rates.values()))


def backing_off(work: Callable[[int], T], size: int, device: torch.device) -> tuple[T, int]:
    """Return ``work(size)`` at the largest of size, size / 2, ... that memory is enough for, and that
    size."""
    while True:
        try:
            return work(size), size
        except torch.OutOfMemoryError:
            if size <= 1:
                raise
        # Here the error holds no tensors any more.
        size = -(-size // 2)
        _release(device)


def _has_room(device: torch.device, held: int | None) -> bool:
    """Return whether twice what was taken above ``held`` is there; on a GPU only trying tells."""
    peak = peak_bytes(device)
    if _on_gpu(device) or held is None or peak is None:
        return True
    return 2 * (peak - held) < free_bytes(device)


def _release(device: torch.device) -> None:
    """Give back what torch keeps of freed memory, which other sizes of tensors have no use for."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _on_gpu(device: torch.device | None) -> bool:
    return torch.cuda.is_available() if device is None else device.type == "cuda"
