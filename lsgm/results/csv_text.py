r"""Rows as CSV and back without loss: numbers by ``repr``, None apart from empty text.

A spreadsheet takes a text that begins with ``=``, ``+``, ``-`` or ``@`` for a formula, whoever wrote it: in
CSV an apostrophe stands before it. What a terminal would obey or a page turn round (escapes, U+202E) stands
as ``\x1b``, ``\u202e``. Reading undoes both; texts without any of it are as they are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from lsgm.errors import DataError
from lsgm.results.row import KINDS, Row, row_from

__all__ = ["from_csv", "to_csv"]


def to_csv(rows: Sequence[Row]) -> str:
    """Return all rows with all keys, numbers as they were measured, not rounded; `from_csv` is the inverse.

    As RFC 4180 with a header and line feeds; a field without quotes that is empty is None, ``""`` empty text.
    Texts hold nothing that another program would run or obey, as the module says.
    """
    lines = [",".join(KINDS), *(",".join(_field(getattr(row, key)) for key in KINDS) for row in rows)]
    return "\n".join(lines) + "\n"


def _field(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value)
    text = _guarded(value)
    quoted = text == "" or any(symbol in text for symbol in ',"\r\n')
    return '"{}"'.format(text.replace('"', '""')) if quoted else text


_FORMULA = re.compile(r"'*\s*[=+\-@\t\r\n＝＋－＠]")
"""The beginning of what a spreadsheet computes, and of what stands guarded already."""
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")


def _guarded(text: str) -> str:
    """Return a text as no program that opens the CSV runs or obeys it; `_unguarded` is the inverse."""
    if "\\" in text:  # a backslash that would be taken for that of an escape is one itself
        text = _ESCAPE.sub(lambda found: found[0] if _meant(found) is None else rf"\x5c{found[0][1:]}", text)
    if not text.isprintable():
        text = "".join(_escaped(symbol) if _is_escaped(symbol) else symbol for symbol in text)
    return f"'{text}" if _FORMULA.match(text) else text


def _unguarded(text: str) -> str:
    """Return the text that `_guarded` was given."""
    if text.startswith("'") and _FORMULA.match(text):
        text = text[1:]
    return _ESCAPE.sub(lambda found: found[0] if (meant := _meant(found)) is None else meant, text)


def _meant(found: re.Match[str]) -> str | None:
    """Return the character that an escape stands for, or None where it is none of ours."""
    number = int(found[1] or found[2] or found[3], 16)
    symbol = chr(number) if number <= 0x10FFFF else " "
    return symbol if symbol == "\\" or _is_escaped(symbol) else None


def _is_escaped(symbol: str) -> bool:
    """Say whether a character is obeyed and not shown; spaces, tabs and line feeds do no harm."""
    kept = symbol.isprintable() or symbol in "\t\n" or unicodedata.category(symbol) == "Zs"
    return not kept


def _escaped(symbol: str) -> str:
    number = ord(symbol)
    return (
        f"\\x{number:02x}"
        if number < 0x100
        else f"\\u{number:04x}"
        if number < 0x10000
        else f"\\U{number:08x}"
    )


_FIELD = re.compile(r'(?:"([^"]*(?:""[^"]*)*)"|([^,"\r\n]*))(,|\r?\n|\Z)')


def from_csv(text: str) -> list[Row]:
    """Return the rows of a table that `to_csv` wrote, or that has some of its columns in any order.

    Raises DataError naming the line of whatever is malformed, lines counted as an editor does.
    """
    records = _records(text)
    if not records:
        raise DataError("the CSV is empty; `lsgm report` writes one with a header")
    (_, head), *lines = records
    rows = []
    for number, line in lines:
        if len(line) != len(head):
            raise DataError(f"line {number} of the CSV has {len(line)} fields and the header {len(head)}")
        try:
            mapping = {key or "": _value(key, field) for key, field in zip(head, line, strict=True)}
            rows.append(row_from(mapping))
        except (DataError, ValueError) as error:
            raise DataError(f"line {number} of the CSV: {error}") from None
    return rows


def _records(text: str) -> list[tuple[int, list[str | None]]]:
    """Return the fields of every record with the line that it begins on."""
    records: list[tuple[int, list[str | None]]] = []
    at, line = 0, 1
    fields_here: list[str | None] = []
    begins = line
    while at < len(text) or fields_here:
        found = _FIELD.match(text, at)
        if found is None:
            raise DataError(f"line {line} of the CSV has a quote that is not closed or stands within a field")
        quoted, bare, end = found.groups()
        fields_here.append(quoted.replace('""', '"') if quoted is not None else bare or None)
        line, at = line + found.group().count("\n"), found.end()
        if end != ",":
            if fields_here != [None]:  # an empty line is no record
                records.append((begins, fields_here))
            fields_here, begins = [], line
    return records


def _value(key: str | None, field: str | None) -> Any:
    """Return a field as JSON would have it."""
    if field is None:
        return None
    kind = KINDS.get(key or "", "str")
    if kind in ("int", "float"):
        return int(field) if kind == "int" else float(field)
    if kind == "bool":
        if field not in ("True", "False"):
            raise DataError(f"'{key}' is '{field}', neither True nor False")
        return field == "True"
    return _unguarded(field)
