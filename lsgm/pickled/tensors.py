"""Tensors of a checkpoint: each a view of a storage, within its bounds; and weights taken of them by name."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsgm.pickled.machine import Made, MalformedError, Name
from lsgm.pickled.torch_file import Storages

__all__ = ["Storage", "View", "with_tensors"]

KINDS = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "Untyped": torch.uint8,
    "QInt8": torch.qint8,
    "QUInt8": torch.quint8,
    "QInt32": torch.qint32,
}
"""The types of numbers by the names of their storages."""
LARGEST = 2**62
MOST = 500_000
"""Tensors of a file, each of which needs half a kilobyte besides its numbers."""


@dataclass(frozen=True)
class Storage:
    """The numbers that tensors look at, which lie in the file under a key."""

    key: str
    dtype: torch.dtype
    entries: int
    start: int = 0
    """Where, in old files, what is called by this key begins in the storage that the file has."""

    @classmethod
    def of(cls, *saved: Any) -> Storage:
        """Return the storage that a persistent id describes. Raises MalformedError for anything else."""
        kind, type_, key, _, entries, *more = saved
        start = 0
        if kind != "storage" or type(type_) is not Name or type(key) is not str or not _count(entries):
            raise MalformedError("a storage of no kind")
        if more and more[0] is not None:
            _, start, _ = more[0]
            if not _count(start):
                raise MalformedError("a storage that begins nowhere")
        name = type_.name.rpartition(".")[2].removesuffix("Storage")
        if name not in KINDS:
            raise MalformedError("a storage of numbers of no known type")
        return cls(key, KINDS[name], entries, start)

    @property
    def itemsize(self) -> int:
        """Bytes of an entry."""
        return self.dtype.itemsize

    @property
    def size(self) -> int:
        """Bytes of all."""
        return self.entries * self.itemsize


class View:
    """A tensor that is not there yet: the part of a storage that it looks at."""

    __slots__ = ("dtype", "offset", "size", "storage", "stride")

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, dtype: Any = None) -> None:
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride
        self.dtype = dtype

    def tensor(self, flat: Tensor) -> Tensor:
        """Return the tensor, given the storage's numbers. Raises MalformedError where it reaches beyond."""
        size, stride = self.size, self.stride
        lists = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= 16
        if not lists or not all(map(_count, (*size, *stride, self.offset))):
            raise MalformedError("a tensor of no size")
        if math.prod(size) == 0:
            return flat[:0].reshape(size)
        start = self.offset + self.storage.start
        last = start + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
        if last >= len(flat):
            raise MalformedError("a tensor reaches beyond its storage")
        return flat.as_strided(size, stride, start)


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < LARGEST


def with_tensors(content: Any, storages: Storages) -> Any:
    """Return containers with their views made tensors, each storage read once.

    Containers are changed in place and must be bounded (`unfolded`). What has no numbers that tensors here
    can hold, or is a tensor of another kind, stays a `Made`.
    """
    return _Filler(storages).filled(content)


class _Filler:
    def __init__(self, storages: Storages) -> None:
        self._storages = storages
        self._flat: dict[tuple[str, torch.dtype], Tensor] = {}
        self._tensors = 0
        self._done: dict[int, tuple[Any, Any]] = {}
        """What stood, kept so that no other object takes its number, and what stands for it."""

    def filled(self, value: Any) -> Any:
        if not isinstance(value, (View, dict, list, tuple, argparse.Namespace)):
            return value
        if id(value) not in self._done:
            self._done[id(value)] = (value, self._made(value))
        return self._done[id(value)][1]

    def _made(self, value: Any) -> Any:
        if isinstance(value, View):
            return self._tensor(value)
        if isinstance(value, tuple):
            return tuple(map(self.filled, value))
        table: Any = vars(value) if isinstance(value, argparse.Namespace) else value
        for key in table if isinstance(table, dict) else range(len(table)):
            table[key] = self.filled(table[key])
        return value

    def _tensor(self, view: View) -> Tensor | Made:
        storage = view.storage
        self._tensors += 1
        if self._tensors > MOST:
            raise MalformedError("more tensors than any checkpoint has")
        if not isinstance(storage, Storage):
            raise MalformedError("a tensor of no storage")
        dtype = storage.dtype if view.dtype is None else _dtype_of(view.dtype)
        if dtype in (torch.qint8, torch.quint8, torch.qint32):
            return Made("torch._utils._rebuild_qtensor", ())
        if storage.size % dtype.itemsize:
            raise MalformedError("a storage of half a number")
        place = (storage.key, dtype)
        if place not in self._flat:
            self._flat[place] = self._numbers(storage, dtype)
        return view.tensor(self._flat[place])

    def _numbers(self, storage: Storage, dtype: torch.dtype) -> Tensor:
        content = self._storages.take(storage.key, storage.size, dtype.itemsize)
        if not len(content):
            return torch.empty(0, dtype=dtype)
        bytes_ = torch.frombuffer(content, dtype=torch.uint8)
        if bytes_.data_ptr() % dtype.itemsize:
            bytes_ = bytes_.clone()
        return bytes_.view(dtype)


def _dtype_of(name: Any) -> torch.dtype:
    dtype = getattr(torch, name.name.partition(".")[2], None) if isinstance(name, Name) else None
    if not isinstance(dtype, torch.dtype):
        raise MalformedError("a tensor of numbers of no type")
    return dtype
