"""What a safetensors file says of its tensors, read before any of them: names, types, shapes, places."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsgm.errors import DataError, UserError
from lsgm.files.limits import DOCUMENT, WEIGHTS
from lsgm.files.records import record_of
from lsgm.files.regular import open_regular
from lsgm.files.shown import shown
from lsgm.files.text import parse_json

__all__ = ["BYTES", "Entry", "Header", "parse_header", "read_header"]

BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "C64": 8,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Bytes of one number of each type that the format has and a network could."""
_FIRST = 8
"""Bytes that say how long the header is."""


@dataclass(frozen=True)
class Entry:
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
class Header:
    """The tensors of a file by name, and where their bytes begin."""

    entries: Mapping[str, Entry]
    start: int


def read_header(path: Path | str, error: type[UserError] = DataError) -> Header:
    """Return the header of a file, of which nothing else is read. Raises ``error`` as `parse_header` does."""
    with open_regular(path, error) as file:
        return parse_header(file, path, error)


def parse_header(
    file: io.BufferedReader | io.BytesIO,
    path: Path | str,
    error: type[UserError] = DataError,
    size: int | None = None,
) -> Header:
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
    return Header(entries, _FIRST + length)


def _entry(table: Any, where: str, error: type[UserError]) -> Entry:
    if not isinstance(table, Mapping):
        raise error(f"{where} is not described by a table; restore it from a copy")
    entry = record_of(Entry, table, where, error)
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


def _follow(entries: Mapping[str, Entry], where: str, room: int, error: type[UserError]) -> None:
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
