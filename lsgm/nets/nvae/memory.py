"""The decoder's state after a draw, kept for whoever decodes that very draw."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor, nn

from lsgm.precision import device_of, dtype_of

__all__ = ["StateMemory"]

Moment = tuple[object, ...]


class StateMemory:
    """One state: kept when latents are drawn, taken when the same tensors are decoded next.

    Drawing from q runs the decoder's tower already, since later groups depend on earlier ones. Decoding the
    draw starts where that ended: half the work saved, and in training every batch enters the running
    statistics of batch normalisation once. A state is handed out at most once, and only for the same
    tensors, weights, mode, grad mode and autocast; copies and pickles of a memory are empty.
    """

    def __init__(self) -> None:
        self._kept: tuple[list[weakref.ref[Tensor]], Moment, Tensor] | None = None

    def keep(self, module: nn.Module, z: tuple[Tensor, ...], state: Tensor) -> None:
        """Keep the state after the latents ``z``, in place of any other."""
        self._kept = [weakref.ref(z_l) for z_l in z], _moment(module), state

    def take(self, module: nn.Module, z: tuple[Tensor, ...]) -> Tensor | None:
        """Return the state after ``z`` if it is the one kept, and forget it in any case."""
        kept, self._kept = self._kept, None
        if kept is None:
            return None
        references, moment, state = kept
        same = len(references) == len(z) and all(ref() is z_l for ref, z_l in zip(references, z, strict=True))
        return state if same and moment == _moment(module) else None

    def __deepcopy__(self, memo: object) -> StateMemory:
        return StateMemory()

    def __reduce__(self) -> tuple[type[StateMemory], tuple[()]]:
        return StateMemory, ()


def _moment(module: nn.Module) -> Moment:
    """Return what a state depends on besides z; optimisers and loading alter all parameters, so one tells."""
    parameter = next(module.parameters(), None)
    version = None if parameter is None or parameter.is_inference() else parameter._version
    autocast = torch.is_autocast_enabled(device_of(module).type)
    return dtype_of(module), version, module.training, torch.is_grad_enabled(), autocast
