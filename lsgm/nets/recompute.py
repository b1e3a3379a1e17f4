"""Trading time for memory: activations recomputed in the backward pass instead of kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from lsgm.nets.batchnorm import statistics_frozen

__all__ = ["recompute"]


def recompute(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``function(*arguments)``, keeping only the arguments for the backward pass (arXiv:1604.06174).

    What lies between is computed a second time when gradients are taken: with the same random numbers, and
    without the batch entering BatchNorm's running statistics a second time, so that the step is the same.
    Costs nothing where no gradients are recorded.
    """
    if not torch.is_grad_enabled():
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False, context_fn=_contexts)


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), statistics_frozen()
