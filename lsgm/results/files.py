"""Files of rows: JSON lines that are found, read, merged and written, each line one row."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lsgm.errors import DataError
from lsgm.files import text
from lsgm.files.folders import below, present
from lsgm.files.limits import RESULTS, ROWS
from lsgm.files.names import shown
from lsgm.files.regular import refuse_special
from lsgm.files.write import atomic_path
from lsgm.results.row import Row, row_from

__all__ = [
    "FILE_NAME",
    "Parsed",
    "find_results",
    "from_jsonl",
    "is_bare_run",
    "keep_rows",
    "merge_rows",
    "parse_lines",
    "read_rows",
    "read_text",
    "to_jsonl",
    "write_rows",
]

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
