"""A pretended second device: the CPU by another name, which refuses what a GPU would refuse.

``FAR`` is ``cpu:0``, which torch's own tensors never say they are on. While `Elsewhere` is on, tensors that
are made there or moved there say so, an operation between one of them and one of the CPU fails, as it does
between a GPU and the CPU, and whatever brings a number of theirs to Python is noted: there the host would
wait for the device. Numbers without dimensions may come from anywhere, as with a GPU. Tensors of before, and
those that only C++ has seen, belong to no side.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["FAR", "Elsewhere"]

FAR = torch.device("cpu", 0)
HERE = torch.device("cpu")
_DEVICE = Tensor.device.__get__  # type: ignore[attr-defined]
_GRAD = Tensor.grad.__get__  # type: ignore[attr-defined]
_TO_PYTHON = {
    *(Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.nonzero, torch.nonzero, torch.equal),
    *(Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.__index__, Tensor.equal, torch.allclose),
}
_MIXED = {"copy_", "__setitem__", "__set__", "__deepcopy__", "_has_compatible_shallow_copy_type"}
_MOVES = {Tensor.to, Tensor.cpu}


def _tensors(values: list[Any] | tuple[Any, ...]) -> Iterator[Tensor]:
    """Yield the tensors among values and in lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


class Elsewhere(TorchFunctionMode):
    """Keeps the two sides apart."""

    def __init__(self) -> None:
        super().__init__()
        self._sides: dict[int, tuple[Any, bool]] = {}
        self.waits: Counter[str] = Counter()
        """Lines of the packages that brought a number to Python, and how often."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what a function of torch does, as if there were two devices."""
        kwargs = dict(kwargs or {})
        if func == _DEVICE:
            return FAR if self.far(args[0]) else func(*args)
        tensors = [*_tensors(args), *_tensors(tuple(kwargs.values()))]
        sides = {self._side(x) for x in tensors if x.dim()} - {None}
        any_far = True in sides or any(self.far(x) for x in tensors)
        if func in _MOVES and tensors:
            return self._moved(func, args, kwargs)
        if func in _TO_PYTHON and any_far:
            self._note()
        elif len(sides) == 2 and not self._may_mix(func, args):
            raise RuntimeError(f"{func.__name__} of tensors on two devices")
        asked = kwargs.get("device")
        if asked is not None and torch.device(asked) == FAR:
            kwargs["device"] = HERE
            any_far = True
        out = func(*args, **kwargs)
        if func == _GRAD or tensors or asked is not None or any(x is torch.dtype for x in types):
            self._mark(out, any_far if tensors or asked is not None else None)
        else:
            self._mark(out, False)
        return out

    def _may_mix(self, func: Any, args: Any) -> bool:
        """Return whether torch takes tensors of two devices here: copies, and indices of the CPU."""
        return func.__name__ in _MIXED or (func == Tensor.__getitem__ and self.far(args[0]))

    def far(self, x: Tensor) -> bool:
        """Return whether a tensor is on the other device."""
        return self._side(x) is True

    def _side(self, x: Tensor) -> bool | None:
        with torch._C.DisableTorchFunction():
            found = self._sides.get(x.untyped_storage()._cdata)
        return None if found is None else found[1]

    def _mark(self, out: Any, side: bool | None) -> None:
        if side is None:
            return
        with torch._C.DisableTorchFunction():
            for x in _tensors((out,)):
                storage = x.untyped_storage()
                if side or storage._cdata not in self._sides:
                    self._sides[storage._cdata] = storage, side

    def _moved(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x, *rest = args
        target = HERE if func is Tensor.cpu else None
        for value in (*rest, *kwargs.values()):
            if isinstance(value, Tensor):
                target = FAR if self.far(value) else HERE
            elif isinstance(value, torch.device | str):
                target = torch.device(value)
        was = self.far(x)
        stays = target is None or (target == FAR) == was
        if not stays and target != FAR:
            self._note(moved=True)
        kwargs = {key: HERE if isinstance(v, torch.device) else v for key, v in kwargs.items()}
        rest = [HERE if isinstance(v, torch.device) else v for v in rest]
        out = func(x if stays else x.clone(), *rest, **kwargs)
        self._mark(out, was if stays else target == FAR)
        return out

    def _note(self, *, moved: bool = False) -> None:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename == __file__:
            frame = frame.f_back
        if moved and frame is not None and "/lsgm" not in frame.f_code.co_filename:
            return  # torch's own C++ tells it the true device of what it moves there
        while frame is not None:
            file = Path(frame.f_code.co_filename)
            if file.parts[-3:-1] and any(part.startswith("lsgm") for part in file.parts[-4:-1]):
                self.waits[f"{file.parent.name}/{file.name}:{frame.f_lineno}"] += 1
                return
            frame = frame.f_back
