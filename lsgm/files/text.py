"""JSON, JSON lines and TOML as others may have written them: one sentence for whatever a file holds."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lsgm.errors import DataError, UserError
from lsgm.files.limits import DOCUMENT, LINES, TABLES, Limit
from lsgm.files.names import shown
from lsgm.files.regular import read_bytes
from lsgm.structure import from_dict

NESTING = 64
"""Lists and tables within one another."""
DIGITS = 308
"""Of a whole number: more is beyond the largest float."""
_TOO_LONG = 10**DIGITS
REPAIR = "restore it from a copy"

_PART = r"""(?:[^\s.=\[\]{},"']+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*"""
_DOTTED = re.compile(rf"(?:^|[\[{{,])[ \t]*(?:{_PART}){{{NESTING}}}", re.MULTILINE)
"""A key of so many parts, over which tomllib takes time as their square."""
_EMPTY = re.compile(r"\n+")
T = TypeVar("T")


@dataclass(frozen=True)
class TextLine:
    """A line of a file that is not blank."""

    number: int
    """From 1."""
    text: str
    torn: bool
    """Whether the file ends within it: no line feed follows."""


def read_text(path: Path | str, limit: Limit = DOCUMENT, error: type[UserError] = DataError) -> str:
    """Return a file's text without a byte order mark. Raises ``error`` for what is no UTF-8, or too large."""
    return _decoded(read_bytes(path, limit, error), path, error)


def read_json(path: Path | str, error: type[UserError] = DataError, repair: str = REPAIR) -> Any:
    """Return the JSON document in a file. Raises ``error``, ending in ``repair``, for anything else."""
    return parse_json(read_text(path, DOCUMENT, error), path, error, repair)


def read_table(path: Path | str, error: type[UserError] = DataError, repair: str = REPAIR) -> dict[str, Any]:
    """Return the JSON object in a file. Raises ``error``, ending in ``repair``, for anything else."""
    content = read_json(path, error, repair)
    if not isinstance(content, dict):
        raise error(f"{shown(str(path))} is not a JSON object; {repair}")
    return content


def read_toml(path: Path | str, error: type[UserError] = DataError, repair: str = REPAIR) -> dict[str, Any]:
    """Return the tables of a TOML file. Raises ``error``, ending in ``repair``, for anything else."""
    return parse_toml(read_text(path, TABLES, error), path, error, repair)


def json_lines(
    path: Path | str, limit: Limit = LINES, error: type[UserError] = DataError
) -> Iterator[TextLine]:
    """Return a file's lines that are not blank, for `parse_json`. Raises ``error`` as `read_text` does."""
    return lines_of(read_text(path, limit, error))


def lines_of(text: str) -> Iterator[TextLine]:
    """Yield the lines of a text that are not blank, one at a time: a list of them may take much more room."""
    # Not splitlines: JSON may hold the line separators of Unicode within its texts.
    at = number = 0
    while at < len(text):
        if blank := _EMPTY.match(text, at):  # millions of them in one step
            number, at = number + blank.end() - at, blank.end()
            continue
        end = text.find("\n", at)
        line = text[at:] if end < 0 else text[at:end]
        number += 1
        if line.strip():
            yield TextLine(number, line, torn=end < 0)
        at += len(line) + 1


def parse_json(
    text: str | bytes, where: object, error: type[UserError] = DataError, repair: str = REPAIR
) -> Any:
    """Return what a JSON text says; ``where`` opens the sentence of ``error``, ``repair`` ends it."""
    if isinstance(text, bytes):
        text = _decoded(text, where, error)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise error(f"{shown(str(where))} is not valid JSON ({_why(problem)}); {repair}") from problem
    _sane(content, where, error, repair)
    return content


def parse_toml(
    text: str, where: object, error: type[UserError] = DataError, repair: str = REPAIR
) -> dict[str, Any]:
    """Return what a TOML text says; ``where`` opens the sentence of ``error``, ``repair`` ends it."""
    if _DOTTED.search(text):
        raise error(f"{shown(str(where))} nests more than {NESTING} lists and tables; {repair}")
    try:
        content = tomllib.loads(text)
    # tomllib lets through what int() and datetime() say of their own, and the depth of its recursion.
    except (ValueError, OverflowError, RecursionError) as problem:
        raise error(f"{shown(str(where))} is not valid TOML ({_why(problem)}); {repair}") from problem
    _sane(content, where, error, repair)
    return content


def record_of(
    cls: type[T],
    mapping: Mapping[str, Any],
    where: object,
    error: type[UserError] = DataError,
    repair: str = REPAIR,
) -> T:
    """Return the dataclass ``cls`` that a table of a file describes; keys it does not know are left out.

    Files of later versions have more keys, and pass. Raises ``error``, which names the key by its path and
    ends in ``repair``, where a key is missing, of another type, or refused by the dataclass itself.
    """
    try:
        return from_dict(cls, mapping, shown(str(where)), unknown="ignore", null=True)
    except UserError as problem:
        raise error(f"{problem}; {repair}") from None


def read_record(
    cls: type[T], path: Path | str, error: type[UserError] = DataError, repair: str = REPAIR
) -> T:
    """Return the dataclass ``cls`` that a JSON file holds. Raises as `record_of` and `read_json` do."""
    return record_of(cls, read_table(path, error, repair), path, error, repair)


def _decoded(raw: bytes, where: object, error: type[UserError]) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(
            f"{shown(str(where))} is not text in UTF-8 (byte {problem.start} is not); save it as UTF-8"
        ) from problem


def _why(problem: Exception) -> str:
    if isinstance(problem, RecursionError):
        return "it nests too deeply"
    return shown(str(problem))[:200]


def _sane(content: Any, where: object, error: type[UserError], repair: str) -> None:
    """Walk through a document without recursion and refuse what no later step could bear."""
    level: list[Any] = [content]
    for _ in range(NESTING + 1):
        below: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                below += value.keys()
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif problem := _refused(value):
                raise error(f"{shown(str(where))} {problem}; {repair}")
        if not below:
            return
        level = below
    raise error(f"{shown(str(where))} nests more than {NESTING} lists and tables; {repair}")


def _refused(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= _TOO_LONG:
        return f"holds a whole number of more than {DIGITS} digits"
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return f"holds half of a character, in {shown(value)[:40]!r}"
    if isinstance(value, str) and "\0" in value:
        return f"holds a text with a zero byte, {shown(value)[:40]!r}"
    return ""
