"""Where a step's time goes, and the least that it could take: operations over a device's measured rate.

The rates are measured in the same run: a large matrix product and a convolution that fills the device, in the
step's own dtype, and a copy that is larger than any cache, read and written. The floor of a step is its
convolutions and products at the better of the two rates, and then the optimiser's traffic at the copy's:
every parameter with its gradient, its moments and its average.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from lsgm.bench.measuring import Columns, time_in_turn
from lsgm.bench.ways import Stepper, Way, flops_of

CLASSES: Mapping[str, Sequence[str]] = {
    "optimiser": ("_fused_adam", "_foreach", "lerp", "optimizer"),
    "convolutions": ("conv", "cudnn"),
    "resampling": ("upsample", "pool", "pixel_shuffle", "pixel_unshuffle"),
    "products": ("mm", "attention", "linear", "matmul"),
    "normalisation": ("batch_norm", "group_norm", "layer_norm"),
    "compiled": ("triton", "compiled", "inductor"),
    "copies": ("copy", "cat", "clone", "stack", "index", "slice", "fill", "zero", "pad", "repeat", "gather"),
    "random": ("normal_", "uniform", "rand", "bernoulli", "dropout"),
    "reductions": ("sum", "mean", "norm", "amax", "max", "min", "softmax", "std", "var"),
    "host": ("autograd::engine", "empty", "view", "as_strided", "expand", "detach", "reshape", "profiler"),
}
"""Class of operations -> what their names have in them, the first that fits; others are elementwise."""
BYTES = 36
"""Of a parameter in float32 in a step's last part: read and write it, both moments and the average; read its
gradient."""


def class_of(name: str) -> str:
    """Return the class of an operation by the name that torch gives it."""
    low = name.lower()
    return next(
        (kind for kind, words in CLASSES.items() if any(word in low for word in words)), "elementwise"
    )


def rates(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Return a device's rates: matrix products and convolutions in FLOP/s, copies in B/s."""
    on_gpu = device.type == "cuda"
    side, batch, channels, resolution = (8192, 256, 256, 32) if on_gpu else (1024, 8, 128, 32)
    a = torch.randn(side, side, device=device).to(dtype)
    order = torch.channels_last if on_gpu else torch.contiguous_format
    x = torch.randn(batch, channels, resolution, resolution, device=device).to(dtype)
    x = x.contiguous(memory_format=order)
    w = torch.randn(channels, channels, 3, 3, device=device).to(dtype).contiguous(memory_format=order)
    source = torch.randn((2**30 if on_gpu else 2**28) // 4, device=device)
    target = torch.empty_like(source)
    ways: dict[str, Callable[[], object]] = {
        "product": lambda: a @ a,
        "convolution": lambda: F.conv2d(x, w, padding=1),
        "copy": lambda: target.copy_(source),
    }
    seconds = time_in_turn(ways, 5, device, desc="rates")
    work = {
        "product": 2.0 * side**3,
        "convolution": 2.0 * 9 * batch * channels**2 * resolution**2,
        "copy": 8.0 * len(source),
    }
    return {name: work[name] / float(np.median(seconds[name])) for name in ways}


def profile_step(recipe: Any, stepper: Stepper, way: Way, *, steps: int, label: str) -> dict[str, Any]:
    """Return the row of where a step's time goes and of its floor."""
    device = stepper.levels.device
    stepper.become(way)
    for _ in range(2):
        stepper.step(way)
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as seen:
        for _ in range(steps):
            stepper.step(way)
        if on_gpu:
            torch.cuda.synchronize(device)
    spent: dict[str, float] = {}
    for event in seen.key_averages():
        if event.device_type.name != "CPU":
            continue  # a kernel, whose time is counted at the operation that launched it
        taken = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        kind = class_of(event.key)
        spent[kind] = spent.get(kind, 0.0) + taken / 1e3 / steps
    found = rates(device, way.dtype or torch.float32)
    parameters = sum(p.numel() for p in stepper.loss.parameters())
    flops = flops_of(recipe, len(stepper.levels))
    arithmetic = 1e3 * flops / max(found["product"], found["convolution"])
    traffic = 1e3 * BYTES * parameters / found["copy"]
    total = sum(spent.values())
    return {
        "what": "profile",
        "recipe": label,
        "way": way.says,
        "batch_size": len(stepper.levels),
        "steps": steps,
        "total_ms": total,
        "classes_ms": dict(sorted(spent.items(), key=lambda item: -item[1])),
        "flops": flops,
        "parameters": parameters,
        "rates": found,
        "floor_arithmetic_ms": arithmetic,
        "floor_traffic_ms": traffic,
        "floor_share": (arithmetic + traffic) / total,
    }


def _classes(row: Mapping[str, Any]) -> str:
    shares = {kind: ms / row["total_ms"] for kind, ms in row["classes_ms"].items()}
    return ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items() if share >= 0.005)


COLUMNS: Columns = {
    "recipe": "{recipe}",
    "way": "{way}",
    "batch": "{batch_size}",
    "step, ms": "{total_ms:.0f}",
    "of which": _classes,
    "GFLOP": lambda row: f"{row['flops'] / 1e9:.3g}",
    "GFLOP/s, product": lambda row: f"{row['rates']['product'] / 1e9:.0f}",
    "convolution": lambda row: f"{row['rates']['convolution'] / 1e9:.0f}",
    "copy, GB/s": lambda row: f"{row['rates']['copy'] / 1e9:.3g}",
    "floor, ms": lambda row: f"{row['floor_arithmetic_ms']:.0f} + {row['floor_traffic_ms']:.1f}",
    "floor / step": "{floor_share:.0%}",
}
