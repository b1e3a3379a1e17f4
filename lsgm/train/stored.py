"""Files of `torch.save` that this project writes itself, read as data: nothing in them is imported or called.

The pickle in such a file is a list of instructions. The few that containers, numbers and tensors need are
followed here one by one; any other is a damaged file. A tensor is described by the pickle and lies beside it
in the zip; it is built only when its type, shape and place have been held against the bytes that are there.
"""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsgm.files.limits import PICKLE

__all__ = ["Stored", "StoredFile", "StoredTensor"]

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
}
_MARK = object()
_NUMBERS = frozenset({"BINFLOAT", "BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"})
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as its pickle describes it."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    key: str
    """Its part of the zip."""
    offset: int
    strides: tuple[int, ...]


Stored = Mapping[Any, Any] | list[Any] | tuple[Any, ...] | StoredTensor | str | float | bool | None
"""What a file may hold; keys are texts and whole numbers."""


class StoredFile:
    """The bytes of a file. Raises ValueError, a few words, wherever it is not one that `torch.save` wrote."""

    def __init__(self, content: bytes) -> None:
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(content))
        except Exception as error:  # damaged lists of members raise many kinds
            raise ValueError("it is no zip of torch's") from error
        members = self._archive.infolist()
        if any(member.compress_type or member.file_size != member.compress_size for member in members):
            raise ValueError("it is packed, which torch never does")
        if sum(member.file_size for member in members) > len(content):
            raise ValueError("its parts claim more bytes than there are")
        found = [name for name in self._archive.namelist() if name.endswith("/data.pkl")]
        if len(found) != 1:
            raise ValueError("it has no data.pkl")
        self._root = found[0].removesuffix("data.pkl")
        if self._archive.getinfo(found[0]).file_size > PICKLE.value:
            raise ValueError(f"its data.pkl has more than {PICKLE.value:,} bytes: see {PICKLE.variable}")
        if self._read("byteorder", b"little") != b"little":
            raise ValueError("its numbers have another order of bytes")
        self.content = _followed(self._read("data.pkl"))

    def tensor(self, stored: StoredTensor) -> Tensor:
        """Return a tensor of its own memory, strided as it was saved."""
        raw = bytearray(self._read(f"data/{stored.key}"))
        size = stored.dtype.itemsize
        if not _fits(stored, len(raw) // size):
            raise ValueError(f"a tensor {list(stored.shape)[:16]} does not fit into its {len(raw):,} bytes")
        if not raw:
            return torch.empty(stored.shape, dtype=stored.dtype)
        whole = torch.frombuffer(raw[: len(raw) // size * size], dtype=stored.dtype)
        return whole.as_strided(stored.shape, stored.strides, stored.offset)

    def _read(self, name: str, default: bytes | None = None) -> bytes:
        try:
            return self._archive.read(self._root + name)
        except KeyError as error:
            if default is not None:
                return default
            raise ValueError(f"it has no part '{name[:80]}'") from error
        except Exception as error:  # BadZipFile for a checksum, RuntimeError for encryption, and others
            raise ValueError(f"its part '{name[:80]}' is damaged") from error


def _fits(stored: StoredTensor, count: int) -> bool:
    """Say whether every number of a tensor lies among ``count`` numbers, and there are no more of them."""
    numbers = (*stored.shape, *stored.strides, stored.offset)
    if len(stored.shape) != len(stored.strides) or len(stored.shape) > 16:
        return False
    if min(numbers) < 0 or max(numbers) >= 2**62:
        return False
    total = math.prod(stored.shape)
    last = stored.offset + sum(
        (n - 1) * stride for n, stride in zip(stored.shape, stored.strides, strict=True)
    )
    return total == 0 or (total <= count and last < count)


def _followed(pickle: bytes) -> Any:
    """Return what a pickle's instructions make. Raises ValueError for one that is not expected."""
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(pickle):
            machine.step(opcode.name, argument)
        return machine.result()
    # The instructions of a damaged pickle do not go together: an empty stack, a list in a number's place.
    except (IndexError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ValueError("its pickle is damaged") from error


class _Machine:
    """The instructions of protocol 2 that `torch.save` writes for containers, numbers and tensors."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def result(self) -> Any:
        if len(self._stack) != 1:
            raise ValueError("its pickle is damaged")
        return self._stack[0]

    def step(self, name: str, argument: Any) -> None:
        """Follow one instruction."""
        stack = self._stack
        if name in _NUMBERS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "MARK"):
            new: Any = {"EMPTY_DICT": {}, "EMPTY_LIST": [], "EMPTY_TUPLE": (), "MARK": _MARK}[name]
            stack.append(new)
        elif name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            items = self._marked() if name == "TUPLE" else self._last(int(name[-1]))
            stack.append(tuple(items))
        elif name in ("APPEND", "APPENDS"):
            items = self._marked() if name == "APPENDS" else self._last(1)
            _of(list, stack[-1]).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._marked() if name == "SETITEMS" else self._last(2)
            _fill(_of(dict, stack[-1]), items)
        elif name == "GLOBAL":
            stack.append(_named(argument))
        elif name == "BINPERSID":
            stack.append(_storage(_of(tuple, stack.pop())))
        elif name == "REDUCE":
            function, arguments = self._last(2)
            stack.append(_made(function, _of(tuple, arguments)))
        elif name not in ("PROTO", "STOP"):
            raise ValueError(f"its pickle has the instruction {name}, which is not read")

    def _marked(self) -> list[Any]:
        """Take what stands above the last mark."""
        place = next(i for i in range(len(self._stack) - 1, -2, -1) if self._stack[i] is _MARK)
        items = self._stack[place + 1 :]
        del self._stack[place:]
        return items

    def _last(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise IndexError
        items = self._stack[-count:]
        del self._stack[-count:]
        return items


@dataclass(frozen=True)
class _Name:
    """A class or function that a pickle names, of which the name alone is looked at."""

    text: str


@dataclass(frozen=True)
class _Storage:
    dtype: torch.dtype
    key: str


def _of(kind: type[Any], value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value


def _named(argument: str) -> _Name:
    text = argument.replace(" ", ".")
    module, _, name = text.rpartition(".")
    if text in ("collections.OrderedDict", "torch._utils._rebuild_tensor_v2"):
        return _Name(text)
    if module == "torch" and name in DTYPES:
        return _Name(name)
    raise ValueError(f"it names {text[:80]}, which does not belong there; nothing of it was executed")


def _storage(described: tuple[Any, ...]) -> _Storage:
    sort, kind, key, _, _ = described
    if sort != "storage" or not isinstance(key, str):
        raise TypeError
    return _Storage(DTYPES[kind.text], key)


def _made(function: Any, arguments: tuple[Any, ...]) -> Any:
    """Return what a call would make: an empty dictionary, or a tensor's description."""
    if function == _Name("collections.OrderedDict") and not arguments:
        return {}
    if function != _Name("torch._utils._rebuild_tensor_v2"):
        raise TypeError
    storage, offset, shape, strides = arguments[:4]
    if not all(type(number) is int for number in (offset, *_of(tuple, shape), *_of(tuple, strides))):
        raise TypeError
    return StoredTensor(storage.dtype, shape, storage.key, offset, strides)


def _fill(table: dict[Any, Any], items: list[Any]) -> None:
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) not in (str, int):
            raise TypeError
        table[key] = value
