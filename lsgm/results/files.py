r"""Files of rows: JSON lines and CSV, found, read, merged and written without loss: numbers by ``repr``.

A spreadsheet takes a text that begins with ``=``, ``+``, ``-`` or ``@`` for a formula, whoever wrote it: in
CSV an apostrophe stands before it. What a terminal would obey or a page turn round (escapes, U+202E) stands
as ``\x1b``, ``\u202e``. Reading undoes both; texts without any of it are as they are.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsgm.errors import DataError
from lsgm.files import text
from lsgm.files.limits import RESULTS, ROWS
from lsgm.files.names import shown
from lsgm.files.regular import below, present, refuse_special
from lsgm.files.write import atomic_path
from lsgm.results.row import KINDS, Row, row_from


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


# Files of rows: JSON lines that are found, read, merged and written, each line one row

FILE_NAME = "results.jsonl"
_LONGEST_LINE = 2**20
"""Letters of a line, of which a row has about a thousand."""
_REMOVE = "remove the line or the file"
_SKIP = "repair or remove it, or leave it out with --skip-malformed"


@dataclass(frozen=True)
class Parsed:
    """What a text of JSON lines holds."""

    rows: list[tuple[int, Row]]
    """Each row with the number of its line, from 1."""
    left_out: list[str]
    """A sentence for each line that was skipped, on request."""


def parse_lines(
    content: str, name: str, *, skip_malformed: bool = False, keep: bool = False, repair: str = _SKIP
) -> Parsed:
    """Return the rows of JSON lines; blank lines are passed over. ``keep`` is that of `row_from`.

    Raises DataError naming ``name`` and the line of whatever is malformed, and ending in ``repair``, or skips
    it on request; a last line without a line feed that cannot be read is called half-written. More rows than
    a command takes are refused either way.
    """
    rows: list[tuple[int, Row]] = []
    left_out: list[str] = []
    for line in text.lines_of(content):
        ROWS.hold(shown(name), len(rows) + len(left_out) + 1)
        try:
            rows.append((line.number, _row_of(line, f"{shown(name)} line {line.number}", keep)))
        except DataError as error:
            if not skip_malformed:
                raise DataError(f"{error}; {repair}") from None
            left_out.append(str(error))
    return Parsed(rows, left_out)


def _row_of(line: text.TextLine, where: str, keep: bool) -> Row:
    """Return the row that a line is. Raises DataError, a sentence that ``where`` opens."""
    if len(line.text) > _LONGEST_LINE:
        raise DataError(f"{where} is {len(line.text):,} letters long; a row has at most {_LONGEST_LINE:,}")
    try:
        mapping = text.parse_json(line.text, where, repair="")
    except DataError as error:
        if line.torn:
            raise DataError(f"{where} is half-written: the file ends within it") from None
        raise DataError(str(error).removesuffix("; ")) from None
    if not isinstance(mapping, dict):
        raise DataError(f"{where} is not a JSON object")
    try:
        return row_from(mapping, keep=keep)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def read_text(file: Path) -> str:
    """Return what a file of rows holds. Raises DataError naming one that cannot be read."""
    return text.read_text(file, RESULTS)


def read_rows(file: Path, *, keep: bool = False) -> list[Row]:
    """Return the rows of a file; ``keep`` (`row_from`) where they are to be written again.

    Raises DataError naming file and line of whatever is malformed.
    """
    return [row for _, row in parse_lines(read_text(file), str(file), keep=keep, repair=_REMOVE).rows]


def to_jsonl(rows: Iterable[Row]) -> str:
    """Return a JSON object of all keys per line; `from_jsonl` is the inverse."""
    return "".join(json.dumps(row.as_dict(), allow_nan=False) + "\n" for row in rows)


def from_jsonl(content: str) -> list[Row]:
    """Return the rows of JSON lines. Raises DataError naming the line that is malformed."""
    return [row for _, row in parse_lines(content, "the text").rows]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON lines, atomically: a reader sees the old file or the new one, never a half."""
    content = to_jsonl(rows)
    with atomic_path(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def keep_rows(path: Path, measured: list[Row]) -> list[Row]:
    """Write rows to a file of results, in the place of those they measure again, and return them."""
    write_rows(path, merge_rows(read_rows(path, keep=True) if path.exists() else [], measured))
    return measured


def merge_rows(old: Iterable[Row], new: Sequence[Row]) -> list[Row]:
    """Return ``old`` without what ``new`` measures again, then ``new``.

    Numbers of other data, of another extractor or of another reference stand beside each other. A row that
    says only why there is no number gives way to whatever is measured in its place, and takes the place of
    numbers of another checkpoint alone: those of its own hold, whatever was missing at the later call.
    """
    measured: dict[tuple[str | None, ...], list[Row]] = {}
    for row in new:
        measured.setdefault(_identity(row), []).append(row)

    def stands(row: Row) -> bool:
        again = measured.get(_identity(row), [])
        if row.value is None:
            return not again
        space = (row.extractor, row.reference_sha256)
        return not any(
            (other.extractor, other.reference_sha256) == space
            or (other.value is None and other.checkpoint_sha256 != row.checkpoint_sha256)
            for other in again
        )

    kept = [row for row in old if stands(row)]
    numbers = {_identity(row) for row in kept}
    return kept + [row for row in new if row.value is not None or _identity(row) not in numbers]


def _identity(row: Row) -> tuple[str | None, ...]:
    """Return in what rows agree that measure the same thing, but for the space of a distance.

    A row without a value need not know the extractor and the reference.
    """
    return (
        *(row.task, row.model, row.metric, row.group, row.sampler, row.split, row.target),
        row.dataset,
    )


def is_bare_run(place: Path) -> bool:
    """Return whether a folder is a training run without results in it or below it.

    Raises DataError as `find_results`, of a folder that cannot be looked into.
    """
    trained = present(place / "config.toml") or present(place / "checkpoints")
    return trained and not any(file.name == FILE_NAME for file in below(place))


def find_results(place: Path) -> list[Path]:
    """Return the result files of a file or folder: itself, ``results.jsonl`` in it, or those below it.

    Links to folders are not followed. Raises DataError where there are none, and for a folder below that
    cannot be looked into: what it holds would be missing unsaid.
    """
    if not present(place):
        raise DataError(f"there is no {shown(str(place))}; give a results.jsonl or a folder that holds one")
    if not os.path.isdir(place):
        refuse_special(place)
        return [place]
    here = place / FILE_NAME
    found = [here] if present(here) else sorted(file for file in below(place) if file.name == FILE_NAME)
    if found:
        return found
    where = shown(str(place))
    if not any(place.iterdir()):
        raise DataError(
            f"{where} is empty; `lsgm eval TASK --model MODEL --out {where}` writes results there"
        )
    if is_bare_run(place):
        raise DataError(
            f"{where} is a training run without results; run `lsgm eval TASK --model {where}` first"
        )
    raise DataError(f"there is no results.jsonl in {where}; run `lsgm eval` or `lsgm nll` first")
