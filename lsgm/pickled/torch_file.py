"""What `torch.save` writes, in either of its formats: where the pickle lies, and the bytes of the tensors.

A file is mapped into memory, not read: tensors that are stored as they are take no more of it than is used.
Writing into them changes the process's own copy alone.
"""

from __future__ import annotations

import argparse
import math
import mmap
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsgm.errors import CheckpointError
from lsgm.files.limits import FOREIGN, INSTRUCTIONS, UNPACKED, Limit
from lsgm.files.names import shown
from lsgm.files.regular import open_regular, open_zip
from lsgm.pickled.machine import Made, MalformedError, Name, PickleMachine

PIECE = 2**20
"""Bytes unpacked at a time."""
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
"""How the older format begins: two numbers, each a pickle of its own."""
_LOCAL = struct.Struct("<4s22xHH")


def open_storages(path: Path) -> Zipped | Legacy:
    """Map a file and tell the two formats apart.

    Raises CheckpointError where it is no regular file or larger than a limit, and whatever damage raises.
    """
    with open_regular(path, CheckpointError) as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        if not zipfile.is_zipfile(file):
            return Legacy(path, content)
    with open_zip(path, CheckpointError) as archive:
        return Zipped(path, content, archive)


class Zipped:
    """The format since 2020: a zip of ``data.pkl`` and ``data/KEY``, stored as they are."""

    def __init__(
        self, path: Path | str, content: memoryview, archive: zipfile.ZipFile, limit: Limit = FOREIGN
    ) -> None:
        self._content, infos = content, archive.infolist()
        self._parts = {info.filename: info for info in infos}
        if len(self._parts) < len(infos) or sum(info.compress_size for info in infos) > len(content):
            raise MalformedError("one part is there twice, or its bytes under several names")
        name = shown(str(path))
        packed = sum(part.file_size for part in self._parts.values() if part.compress_type)
        UNPACKED.hold(f"{name}, unpacked,", packed, CheckpointError)
        inner, *others = [name for name in self._parts if name.split("/")[-1] == "data.pkl"] or [""]
        if others or not inner:
            raise MalformedError("it has no data.pkl, or several")
        self._root = inner.removesuffix("data.pkl")
        limit.hold(f"the pickle in {name}", self._parts[inner].file_size, CheckpointError)
        self.pickle = bytes(self._whole(inner))
        order = f"{self._root}byteorder"
        written = bytes(self._whole(order)[:8]) if order in self._parts else b"little"
        self._swapped = written != sys.byteorder.encode()

    @property
    def packed(self) -> bool:
        """Whether any part is packed, which torch itself never does."""
        return any(part.compress_type for part in self._parts.values())

    def read(self, machine: PickleMachine) -> Any:
        """Let a machine on `pickle` say what the file holds."""
        return machine.run()

    def damaged(self) -> str | None:
        """Return the first part whose checksum is wrong, which torch itself never looks at.

        Where a checksum is 0 torch was asked to write none (`torch.serialization.set_crc32_options`).
        """
        for name, part in self._parts.items():
            checksum = 0
            for piece in self._pieces(name):
                checksum = zlib.crc32(piece, checksum)
            if part.CRC and checksum != part.CRC:
                return name
        return None

    def locate(self, itemsizes: Mapping[str, int]) -> None:
        """Do nothing: the zip says where they lie."""

    def take(self, key: str, size: int, itemsize: int) -> memoryview | bytearray:
        """Return the ``size`` bytes of a storage. Raises MalformedError where it has another size."""
        name = f"{self._root}data/{key}"
        if name not in self._parts or self._parts[name].file_size != size:
            raise MalformedError("a tensor lies in a part that is not there, or of another size")
        whole = self._whole(name)
        if not self._swapped or itemsize == 1:
            return whole
        return bytearray(np.frombuffer(whole, f"u{itemsize}").byteswap().tobytes())

    def _whole(self, name: str) -> memoryview | bytearray:
        if not self._parts[name].compress_type:
            return self._raw(name)
        whole = bytearray()
        for piece in self._pieces(name):
            whole += piece
        return whole

    def _pieces(self, name: str) -> Iterator[memoryview | bytes]:
        """Yield what a part holds, never more than it claims."""
        part = self._parts[name]
        if not part.compress_type:
            yield self._raw(name)
            return
        if part.compress_type != zipfile.ZIP_DEFLATED:
            raise MalformedError("a part is packed in another way")
        unpacker, left, given = zlib.decompressobj(-15), part.file_size, self._raw(name)
        rest: memoryview | bytes = given
        while left:
            piece = unpacker.decompress(rest, min(PIECE, left))
            rest, left = unpacker.unconsumed_tail, left - len(piece)
            if not piece:
                raise MalformedError("a part unpacks to less than it claims")
            yield piece

    def _raw(self, name: str) -> memoryview:
        """Return a part's bytes as they lie in the file."""
        part = self._parts[name]
        sign, name_length, extra = _LOCAL.unpack_from(self._content, part.header_offset)
        start = part.header_offset + _LOCAL.size + name_length + extra
        stored = not part.compress_type
        end = start + part.compress_size
        if sign != b"PK\x03\x04" or part.flag_bits & 1 or end > len(self._content):
            raise MalformedError("a part is encrypted, or lies beyond the end")
        if stored and part.compress_size != part.file_size:
            raise MalformedError("a part claims two sizes")
        return self._content[start:end]


class Legacy:
    """The format before: several pickles, then the number of entries and the bytes of each storage."""

    def __init__(self, path: Path, content: memoryview) -> None:
        self._path, self._content = path, content
        self.pickle = bytes(self._content[: FOREIGN.value])
        self._places: dict[str, tuple[int, int]] = {}
        self._keys: Any = []
        self._after = 0

    def read(self, machine: PickleMachine) -> Any:
        """Let a machine on `pickle` say what the file holds."""
        try:
            if machine.run() != MAGIC or machine.run() != VERSION:
                raise MalformedError("no file of torch's")
            machine.run()  # about the machine that wrote it
            said, self._keys = machine.run(), machine.run()
        except (IndexError, MalformedError):
            if machine.at >= len(self.pickle):
                FOREIGN.hold(shown(str(self._path)), len(self._content), CheckpointError)
            raise
        self._after = machine.at
        return said

    def damaged(self) -> str | None:
        """Return None: the format has no checksums."""

    def locate(self, itemsizes: Mapping[str, int]) -> None:
        """Find the storages, which follow upon each other in the order that the file says.

        ``itemsizes`` are the bytes of an entry of each. Raises MalformedError where one lies beyond the end.
        """
        at = self._after
        for key in self._keys:
            (entries,) = struct.unpack_from("<q", self._content, at)
            size = entries * itemsizes[key]
            if entries < 0 or at + 8 + size > len(self._content) or key in self._places:
                raise MalformedError("a storage reaches beyond the end of the file")
            self._places[key] = (at + 8, size)
            at += 8 + size

    def take(self, key: str, size: int, itemsize: int) -> memoryview | bytearray:
        """Return the ``size`` bytes of a storage. Raises MalformedError where it has another size."""
        start, there = self._places[key]
        if there != size:
            raise MalformedError("a storage has another size than its tensors say")
        return self._content[start : start + size]


# Tensors: each a view of a storage, within its bounds

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
NESTING = 64
"""Containers within one another."""
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


class Filler:
    """Makes the views in containers tensors, each storage read once, and each container walked through once.

    Containers are changed in place. What has no numbers that tensors here can hold, or is a tensor of another
    kind, stays a `Made`. Raises CheckpointError, which ``name`` opens, where a container lies within itself,
    where they nest more than `NESTING` deep, and where they have more entries than `INSTRUCTIONS`, each
    counted as often as it can be reached: a hundred lists, each of the one before ten times, are 10^100.
    """

    def __init__(self, storages: Zipped | Legacy, name: str) -> None:
        self._storages, self._name = storages, name
        self._flat: dict[tuple[str, torch.dtype], Tensor] = {}
        self._tensors = 0
        self._done: dict[int, tuple[Any, Any, int, int] | None] = {}
        """What stood, kept so that no other object takes its number, what stands for it, entries, depth."""

    def filled(self, value: Any) -> Any:
        """Return a value with tensors in place of views."""
        return self._walked(value, 0)[0]

    def _walked(self, value: Any, above: int) -> tuple[Any, int, int]:
        """Return what stands for a value, how many entries it unfolds into, and how deep it nests."""
        if not isinstance(value, (View, dict, list, tuple, argparse.Namespace)):
            return value, 1, 0
        if id(value) not in self._done:
            self._done[id(value)] = None
            self._done[id(value)] = (value, *self._made(value, above))
        done = self._done[id(value)]
        if done is None:
            raise CheckpointError(
                f"{self._name} holds a list or table that lies within itself; get the file from its authors "
                "again"
            )
        self._hold_nesting(above + done[3])
        return done[1:]

    def _hold_nesting(self, depth: int) -> None:
        if depth > NESTING:
            raise CheckpointError(
                f"{self._name} nests more than {NESTING} lists and tables; get the file from its authors "
                "again"
            )

    def _made(self, value: Any, above: int) -> tuple[Any, int, int]:
        if isinstance(value, View):
            return self._tensor(value), 1, 0
        self._hold_nesting(above + 1)
        table: Any = vars(value) if isinstance(value, argparse.Namespace) else value
        pairs = table.items() if isinstance(table, dict) else enumerate(table)
        inner = {key: self._walked(item, above + 1) for key, item in pairs}
        size = 1 + sum(entries for _, entries, _ in inner.values())
        INSTRUCTIONS.hold(f"what {self._name} unfolds into", min(size, 10**18), CheckpointError)
        depth = 1 + max((deep for _, _, deep in inner.values()), default=0)
        if isinstance(value, tuple):
            return tuple(item for item, _, _ in inner.values()), size, depth
        for key, (item, _, _) in inner.items():
            table[key] = item
        return value, size, depth

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
