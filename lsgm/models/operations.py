"""Floating-point operations of a computation, by which models of different networks share one currency."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["operations"]


@torch.no_grad()
def operations(compute: Callable[[], Any]) -> int:
    """Return the operations of one call: 2 per multiply-add of matrix products, convolutions and attention.

    What acts number by number (activations, norms, the sampler's own arithmetic) is not counted, as is usual.
    """
    with FlopCounterMode(display=False) as counter:
        compute()
    return int(counter.get_total_flops())
