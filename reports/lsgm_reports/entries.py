"""Numbers that ship with the reports as TOML: read into dataclasses, every key checked."""

from __future__ import annotations

import math
import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from lsgm.errors import DataError

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
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get(table, [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}; repair the file") from None
    if not isinstance(tables, list) or not all(isinstance(given, dict) for given in tables):
        raise DataError(f"'{table}' in {path} is no list of tables; write [[{table}]] before each entry")
    return [_entry(path, f"{table} {number}", kind, given) for number, given in enumerate(tables, start=1)]


def _entry(path: Path, place: str, kind: type[Entry], given: dict[str, Any]) -> Entry:
    known: dict[str, Any] = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := [key for key in given if key not in known]:
        raise DataError(f"{path}, {place}: there is no key '{unknown[0]}'; it has {', '.join(known)}")
    values: dict[str, Any] = {}
    for name, field in known.items():
        if name in given:
            values[name] = _value(f"{path}, {place}: '{name}'", given[name], str(field.type))
        elif field.default is MISSING:
            raise DataError(f"{path}, {place}: the key '{name}' is missing; add it")
    return kind(**values)


def _value(place: str, value: Any, annotation: str) -> Any:
    types, said = _KINDS[annotation.partition(" |")[0]]
    wrong = isinstance(value, bool) or not isinstance(value, types)
    wrong = wrong or (isinstance(value, float) and not math.isfinite(value))
    if annotation == _WORDS and not wrong:
        wrong = not all(isinstance(word, str) for word in value)
        value = tuple(value)
    if wrong:
        raise DataError(f"{place} is {value!r}, not {said}; repair it")
    return value
