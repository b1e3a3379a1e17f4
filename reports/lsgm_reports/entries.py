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
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "text"),
    "float": ((int, float), "a number"),
    "int": ((int,), "a whole number"),
}


def read_entries(path: Path, table: str, kind: type[Entry]) -> list[Entry]:
    """Return the array of tables of that name as dataclasses, whose types are str, int, float or one or None.

    Raises DataError naming file and entry where a key is missing or unknown, or a value of another type.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get(table, [])
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}; repair the file") from None
    return [_entry(path, f"{table} {number}", kind, given) for number, given in enumerate(tables, start=1)]


def _entry(path: Path, place: str, kind: type[Entry], given: dict[str, Any]) -> Entry:
    known: dict[str, Any] = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := [key for key in given if key not in known]:
        raise DataError(f"{path}, {place}: there is no key '{unknown[0]}'; it has {', '.join(known)}")
    for name, field in known.items():
        if name not in given:
            if field.default is MISSING:
                raise DataError(f"{path}, {place}: the key '{name}' is missing; add it")
            continue
        value, (types, said) = given[name], _KINDS[str(field.type).partition(" |")[0]]
        wrong = isinstance(value, bool) or not isinstance(value, types)
        if wrong or (isinstance(value, float) and not math.isfinite(value)):
            raise DataError(f"{path}, {place}: '{name}' is {value!r}, not {said}; repair it")
    return kind(**given)
