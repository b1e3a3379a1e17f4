"""How a stage computes its steps: in which dtype, in which order of memory, in how many parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.amp import GradScaler

from lsgm.devices import computes_bfloat16, computes_float16
from lsgm.errors import ConfigError
from lsgm.logs import log
from lsgm.nets.layers import BatchNorm, in_micro_batches
from lsgm.train.stage import Losses

LEAST_SCALE = 1.0
"""Of the loss in float16: gradients that overflow unscaled are no matter of the scale."""


def low_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the autocast dtype of a stage's precision, None for float32.

    What a device has no arithmetic for is computed in float32 there, which says the same more precisely.
    """
    known = {"bfloat16": computes_bfloat16, "float16": computes_float16}
    if precision not in known:
        return None
    if not known[precision](device):
        if device.type != "cpu":
            other = "; precision float16 is faster there" if precision == "bfloat16" else ""
            log.warning(f"{device} has no arithmetic for {precision} and computes in float32{other}")
        return None
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


def lay_out(module: nn.Module, memory_format: str, device: torch.device) -> None:
    """Order a network's kernels in memory as a stage wants it; features come out in the same order."""
    last = memory_format == "channels_last" or (memory_format == "auto" and device.type == "cuda")
    order = torch.channels_last if last else torch.contiguous_format
    module.to(memory_format=order)  # type: ignore[call-overload]


def parts_of(rows: slice, count: int) -> list[slice]:
    """Return the parts of a process's rows of a batch. Raises ConfigError where they would not be equal."""
    share = rows.stop - rows.start
    if share % count:
        raise ConfigError(
            f"accumulate is {count}, and a process's share of {share} images cannot be cut into so many "
            "equal parts; give a divisor of it"
        )
    size = share // count
    return [slice(start, start + size) for start in range(rows.start, rows.stop, size)]


def mean_of(parts: Sequence[Losses]) -> Losses:
    """Return the losses of a batch from those of its equal parts."""
    if len(parts) == 1:
        return parts[0]
    columns = {name: torch.stack([part.terms[name] for part in parts]) for name in parts[0].terms}
    terms = {name: column.double().mean() for name, column in columns.items()}
    return Losses(torch.stack([part.total for part in parts]).mean(), terms)


def saved(scaler: GradScaler) -> dict[str, Any]:
    """Return what a checkpoint says of the scale (`lsgm.runs.records.LossScale`)."""
    state = scaler.state_dict()
    return {"scale": state["scale"], "steps": state["_growth_tracker"]}


def restored(scaler: GradScaler, said: Mapping[str, Any]) -> None:
    """Give a scaler the scale that a checkpoint says."""
    known = scaler.state_dict()
    scaler.load_state_dict({**known, "scale": said["scale"], "_growth_tracker": said["steps"]})


def tell_parts(module: nn.Module, name: str, count: int) -> None:
    """Tell a stage's loss and networks in how many parts a batch comes, and people what that changes."""
    in_micro_batches(module, count)
    if count > 1 and any(isinstance(part, BatchNorm) for part in module.modules()):
        log.warning(
            f"{name}: batch normalisation sees each of the {count} parts of a batch by itself, so that the "
            "gradient is not quite that of the batch in one piece"
        )
