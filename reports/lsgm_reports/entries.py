"""Numbers that ship with the reports as TOML: read into dataclasses, every key checked."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from lsgm.errors import DataError
from lsgm.files.shown import brief, shown
from lsgm.files.text import read_toml

__all__ = ["read_entries"]

Entry = TypeVar("Entry")
_WORDS = "tuple[str, ...]"
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "text"),
    "float": ((int, float), "a number"),
    "int": ((int,), "a whole number"),
    _WORDS: ((list,), "a list of texts"),
}


def read_entries(path: Path, table: str, kind: type[Entry]) -> list[Entry]:
    """Return the array of tables of that name as dataclasses of str, int, float (or None) and tuples of str.

    Raises DataError naming file and entry where a key is missing or unknown, or a value of another type.
    """
    about = path.stat() if path.is_file() else None
    tables = _tables(path, table, about and (about.st_mtime_ns, about.st_size))
    where = shown(str(path))
    return [_entry(f"{where}, {table} {number}", kind, given) for number, given in enumerate(tables, start=1)]


@lru_cache(maxsize=32)
def _tables(path: Path, table: str, version: object) -> list[dict[str, Any]]:
    """Return the tables of a name; a report of many tasks asks for the same few, as ``version`` tells."""
    tables = read_toml(path, repair="repair the file").get(table, [])
    if not isinstance(tables, list) or not all(isinstance(given, dict) for given in tables):
        raise DataError(
            f"'{table}' in {shown(str(path))} is no list of tables; write [[{table}]] before each entry"
        )
    return tables


def _entry(place: str, kind: type[Entry], given: dict[str, Any]) -> Entry:
    known: dict[str, Any] = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := [key for key in given if key not in known]:
        raise DataError(f"{place}: there is no key {brief(unknown[0])}; it has {', '.join(known)}")
    values: dict[str, Any] = {}
    for name, field in known.items():
        if name in given:
            values[name] = _value(f"{place}: '{name}'", given[name], str(field.type))
        elif field.default is MISSING:
            raise DataError(f"{place}: the key '{name}' is missing; add it")
    try:
        return kind(**values)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None


_LONGEST, _LARGEST = 2_000, 1e15
"""Letters of a text, and the largest number: what is published has no more."""


def _value(place: str, value: Any, annotation: str) -> Any:
    types, said = _KINDS[annotation.partition(" |")[0]]
    wrong = isinstance(value, bool) or not isinstance(value, types)
    if annotation == _WORDS and not wrong:
        wrong = not all(isinstance(word, str) for word in value)
        value = tuple(value)
    if wrong or (isinstance(value, float) and not math.isfinite(value)):
        raise DataError(f"{place} is {brief(value)}, not {said}; repair it")
    if isinstance(value, (int, float)) and abs(value) > _LARGEST:
        raise DataError(f"{place} is {brief(value)}; give at most {_LARGEST:g}")
    if any(len(word) > _LONGEST for word in (value if isinstance(value, tuple) else (str(value),))):
        raise DataError(f"{place} is {brief(value)}; give at most {_LONGEST:,} letters")
    return value
