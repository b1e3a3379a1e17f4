"""Arrays of an npz or npy file, and the header of a safetensors file: held against what they claim.

Nothing is unpickled, and no room is taken for numbers that are not there.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from lsgm.errors import DataError, UserError
from lsgm.files.limits import ARRAYS, DOCUMENT, WEIGHTS, Limit
from lsgm.files.names import said, shown
from lsgm.files.regular import open_regular, zip_of
from lsgm.files.text import parse_json, record_of

_KINDS = {
    "f": "real numbers",
    "iu": "whole numbers",
    "biuf": "real numbers",
    "U": "texts",
    "b": "truth values",
}
_PLAIN = "biufcUS"
"""Kinds of arrays that are read at all: no objects, dates or records."""
_REPAIR = "remove it, or write it again"
PIECE = 2**24
"""Bytes that are read at once."""


class Arrays(dict[str, NDArray[Any]]):
    """The arrays of a file by name, and what was expected of one said in a sentence where it is not so."""

    def __init__(self, where: Path | str, content: Mapping[str, NDArray[Any]]) -> None:
        super().__init__(content)
        self.where = where

    def take(self, name: str, kinds: str = "f", ndim: int | None = None) -> NDArray[Any]:
        """Return an array of one of NumPy's ``kinds`` and, where it is given, of ``ndim`` dimensions.

        Raises DataError where it is missing or another: integers are not taken for measurements, complex
        numbers not for real ones.
        """
        if name not in self:
            raise self.refused(f"has no array '{name}'")
        array = self[name]
        if array.dtype.kind not in kinds:
            what = _KINDS.get(kinds, f"of a kind in '{kinds}'")
            raise self.refused(f": '{name}' is {array.dtype}, and {what} belong there")
        if ndim is not None and array.ndim != ndim:
            raise self.refused(
                f": '{name}' has the shape {list(array.shape)}; it must have {ndim} dimensions"
            )
        return array

    def text(self, name: str) -> str:
        """Return the text that an array of one entry holds. Raises DataError where it is none."""
        array = self.take(name, "U")
        if array.size != 1:
            raise self.refused(f": '{name}' has the shape {list(array.shape)}; it must be one text")
        return str(array.reshape(())[()])

    def refused(self, what: str) -> DataError:
        """Return the error for a file that ``what`` is said of."""
        joint = "" if what.startswith(":") else " "
        return DataError(f"{shown(str(self.where))}{joint}{what}; {_REPAIR}")


def read_arrays(
    path: Path | str,
    names: Iterable[str] | None = None,
    *,
    limit: Limit = ARRAYS,
    error: type[UserError] = DataError,
) -> Arrays:
    """Return the arrays of an npz, all or those of ``names`` that it has; of an npy one, named ``""``.

    Nothing is unpickled and nothing unpacked that claims more than it is, or more than ``limit``. Raises
    ``error`` for whatever else a file may hold: damage, objects, one name twice, a header of other bytes.
    """
    with _opened(path, "arrays", error) as file:
        if file.peek(6)[:6] != npy.MAGIC_PREFIX:
            return Arrays(path, _members(file, path, names, limit, error))
        size = file.seek(0, 2)
        file.seek(0)
        return Arrays(path, {"": _array(file, size, str(path), limit, error)})


def array_names(path: Path | str, error: type[UserError] = DataError) -> list[str]:
    """Return the names of the arrays in an npz, none of which is read. Raises ``error`` for no such file."""
    with _opened(path, "an npz", error) as file, zip_of(file, str(path), error) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


@contextmanager
def _opened(path: Path | str, what: str, error: type[UserError]) -> Iterator[io.BufferedReader]:
    """Open a file, and raise ``error`` for whatever its bytes make a library say."""
    with open_regular(path, error) as file:
        try:
            yield file
        except UserError:
            raise
        # A list of what damaged bytes raise would never be whole: BadZipFile, zlib.error, TokenError for a
        # header, NotImplementedError for a packing method, RuntimeError for encryption, MemoryError.
        except Exception as problem:
            why = said(problem)
            raise error(f"{shown(str(path))} cannot be read as {what} ({why}); {_REPAIR}") from problem


def map_array(path: Path | str, *, error: type[UserError] = DataError) -> NDArray[Any]:
    """Return the array of an npy file, memory-mapped: what is written to it stays in memory.

    Raises ``error`` for what is no regular file, and a header that claims other bytes than there are.
    """
    with _opened(path, "an array", error) as file:
        shape, fortran, dtype = _header(file, str(path), error)
        start, size = file.tell(), file.seek(0, 2)
        if start + math.prod(shape) * dtype.itemsize != size:
            raise error(
                f"{shown(str(path))} claims the shape {list(shape)} and is truncated, or another's; {_REPAIR}"
            )
        if not math.prod(shape):
            return np.zeros(shape, dtype)
        order: Literal["F", "C"] = "F" if fortran else "C"
        return np.memmap(file, dtype, "c", start, shape, order)


def _members(
    file: IO[bytes], path: Path | str, names: Iterable[str] | None, limit: Limit, error: type[UserError]
) -> dict[str, NDArray[Any]]:
    with zip_of(file, str(path), error) as archive:
        infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if len(infos) != len(archive.infolist()):
            raise error(f"{shown(str(path))} has one array twice; {_REPAIR}")
        if names is not None:
            infos = {name: infos[name] for name in names if name in infos}
        limit.hold(shown(str(path)), sum(info.file_size for info in infos.values()), error)
        found = {}
        for name, info in infos.items():
            with archive.open(info) as stream:
                found[name] = _array(stream, info.file_size, f"{path}: {name}", limit, error)
        return found


def _header(
    file: IO[bytes], where: str, error: type[UserError]
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an array: its shape, whether it is stored by columns, its type."""
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise error(f"{shown(where)} has an array of format {version}; {_REPAIR}")
    shape, fortran, dtype = read(file)
    if dtype.kind not in _PLAIN or dtype.hasobject or dtype.subdtype is not None:
        raise error(f"{shown(where)} is an array of {dtype}, which is not read; {_REPAIR}")
    if any(side < 0 for side in shape):
        raise error(f"{shown(where)} claims the shape {list(shape)}; {_REPAIR}")
    return shape, fortran, dtype


def _array(file: IO[bytes], size: int, where: str, limit: Limit, error: type[UserError]) -> NDArray[Any]:
    """Read one array of a stream of ``size`` bytes, after its header has been held against them."""
    shape, fortran, dtype = _header(file, where, error)
    length = math.prod(shape) * dtype.itemsize
    if length > size:
        raise error(f"{shown(where)} claims the shape {list(shape)} and has not the bytes of it; {_REPAIR}")
    # Sides beside an empty one, and entries of no bytes, take room as soon as something is made like them.
    like = math.prod(max(side, 1) for side in shape) * max(dtype.itemsize, 4)
    limit.hold(shown(where), length if length else like, error)
    raw = bytearray(length)
    filled = 0
    while filled < length:
        piece = file.read(min(length - filled, PIECE // 2))
        if not piece:
            raise error(f"{shown(where)} ends after {filled:,} of {length:,} bytes; {_REPAIR}")
        raw[filled : filled + len(piece)] = piece
        filled += len(piece)
    if file.read(1):  # also what makes a zip's checksum be looked at
        raise error(f"{shown(where)} goes on after its {length:,} bytes; {_REPAIR}")
    array = np.frombuffer(raw, dtype=dtype) if dtype.itemsize else np.zeros(shape, dtype)
    return array.reshape(shape, order="F" if fortran else "C")


# What a safetensors file says of its tensors before any of them is read

BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "C64": 8,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Bytes of one number of each type that the format has and a network could."""
_FIRST = 8
"""Bytes that say how long the header is."""


@dataclass(frozen=True)
class TensorEntry:
    """One tensor."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]
    """Where its bytes begin and end, counted from the header's end."""

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class TensorHeader:
    """The tensors of a file by name, and where their bytes begin."""

    entries: Mapping[str, TensorEntry]
    start: int


def parse_header(
    file: io.BufferedReader | io.BytesIO,
    path: Path | str,
    error: type[UserError] = DataError,
    size: int | None = None,
) -> TensorHeader:
    """Return the header of an open file of ``size`` bytes, by default as many as there are.

    Raises ``error``, one sentence, for a file that is no safetensors file or larger than `WEIGHTS`, and
    where types, shapes and places of its tensors do not go together: each has as many bytes as its shape
    needs, and they follow upon one another from the header to the file's end.
    """
    where = shown(str(path))
    size = file.seek(0, os.SEEK_END) if size is None else size
    WEIGHTS.hold(where, size, error)
    file.seek(0)
    length = int.from_bytes(file.read(_FIRST), "little")
    if size < _FIRST or length > size - _FIRST:
        raise error(f"{where} is not a safetensors file, or is truncated; restore it from a copy")
    DOCUMENT.hold(f"the header of {where}", length, error)
    table = parse_json(file.read(length), f"the header of {where}", error)
    if not isinstance(table, dict):
        raise error(f"the header of {where} is not a JSON object; restore it from a copy")
    entries = {
        name: _entry(entry, f"{where}: '{shown(name)}'", error)
        for name, entry in table.items()
        if name != "__metadata__"
    }
    _follow(entries, where, size - _FIRST - length, error)
    return TensorHeader(entries, _FIRST + length)


def _entry(table: Any, where: str, error: type[UserError]) -> TensorEntry:
    if not isinstance(table, Mapping):
        raise error(f"{where} is not described by a table; restore it from a copy")
    entry = _at_once(table) or record_of(TensorEntry, table, where, error)
    if entry.dtype not in BYTES:
        raise error(f"{where} is of type '{shown(entry.dtype)[:40]}', which is not read; save it as float32")
    if any(side < 0 for side in entry.shape) or len(entry.shape) > 16:
        raise error(f"{where} claims the shape {list(entry.shape)[:17]}; restore it from a copy")
    begin, end = entry.data_offsets
    if end - begin != entry.numbers * BYTES[entry.dtype] or begin < 0:
        raise error(
            f"{where} claims the shape {list(entry.shape)} and has {end - begin} bytes; "
            "restore it from a copy"
        )
    return entry


def _at_once(table: Mapping[str, Any]) -> TensorEntry | None:
    """Return the entry of a table that is as it is written; of a network's thousands, almost all are."""
    match table:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end], **others}:
            if not others and all(
                type(number) is int and abs(number) < 2**63 for number in (*shape, begin, end)
            ):
                return TensorEntry(dtype, tuple(shape), (begin, end))
    return None


def _follow(entries: Mapping[str, TensorEntry], where: str, room: int, error: type[UserError]) -> None:
    """Raise ``error`` unless the tensors' bytes fill the file without overlap or gap."""
    place = 0
    for begin, end in sorted(entry.data_offsets for entry in entries.values()):
        if begin != place:
            raise error(f"{where} has tensors that overlap or leave gaps; restore it from a copy")
        place = end
    if place != room:
        raise error(
            f"{where} has {room} bytes of tensors and its header tells of {place}; restore it from a copy"
        )
