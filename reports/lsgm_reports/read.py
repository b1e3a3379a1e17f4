"""Rows with the places they were read from, and what is refused before they stand in one table."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from lsgm.errors import DataError, did_you_mean
from lsgm.files.limits import ROWS
from lsgm.files.names import shown
from lsgm.files.regular import present
from lsgm.results.files import find_results, parse_lines, read_text
from lsgm.results.metrics import known_metrics
from lsgm.results.row import Row, row_id
from lsgm.results.status import FILE_NAME, Status, read_status
from lsgm_reports.reproduce.apart import copied

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Placed:
    """A row and the line that it is."""

    row: Row
    file: Path
    line: int

    @property
    def place(self) -> str:
        """File and line in words."""
        return f"{self.file} line {self.line}"


@dataclass(frozen=True)
class Reading:
    """What files of rows hold."""

    placed: list[Placed]
    left_out: list[str]
    """A sentence for each line that was skipped, on request."""
    blank: list[Path] = field(default_factory=list)
    """The files that hold nothing."""


def results_of(place: Path) -> list[Path]:
    """Return the result files of a file or folder.

    Raises DataError where there are none, which says of a command that finished nothing how it ended.
    """
    try:
        return find_results(place)
    except DataError:
        if os.path.isdir(place) and present(place / FILE_NAME):
            sentence = sentence_on(read_status(place / FILE_NAME))
            raise DataError(f"nothing is measured yet in {shown(str(place))}: {sentence}") from None
        raise


def sentence_on(status: Status) -> str:
    """Return what became of a command that measures, as one types it: one from a folder may say anything."""
    typed = copied(status.command)
    subject = f"`{typed.line}`" if typed.line else f"A command that is not shown ({typed.why})"
    return f"{subject} {status.outcome}"


def grouped(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    """Return the rows by a key, keys and rows in the order in which they come."""
    found: dict[Key, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def ranks(words: Iterable[Key]) -> dict[Key, int]:
    """Return the place of each word among those that differ, in the order in which they come."""
    return {word: place for place, word in enumerate(dict.fromkeys(words))}


def read_placed(files: Iterable[Path], *, skip_malformed: bool = False) -> Reading:
    """Return the rows of JSONL files in order.

    Raises DataError as `lsgm.results.files.parse_lines`, also of more rows than a command takes in all files.
    """
    placed: list[Placed] = []
    left_out: list[str] = []
    blank: list[Path] = []
    for file in files:
        parsed = parse_lines(read_text(file), str(file), skip_malformed=skip_malformed)
        placed += [Placed(row, file, number) for number, row in parsed.rows]
        left_out += parsed.left_out
        blank += [] if parsed.rows or parsed.left_out else [file]
        ROWS.hold(f"{shown(str(file))}, with the files before it,", len(placed) + len(left_out))
    return Reading(placed, left_out, blank)


def one_protocol(placed: Sequence[Placed]) -> None:
    """Raise DataError where a task occurs at two versions or tiers, whose numbers do not compare.

    ``-limit-N``, ``-images-N``, ``-seed-N`` and ``-custom`` behind a tier are the same protocol on other
    numbers of images, on others of the same models, or with other samplers.
    """
    first: dict[str, tuple[str, Placed]] = {}
    for each in placed:
        task = each.row.task
        protocol = re.sub(r"(-limit-\d+)?(-images-(\d+|all))?(-seed-\d+)?(-custom)?$", "", task)
        known, other = first.setdefault(task.partition("@")[0], (protocol, each))
        if known != protocol:
            raise DataError(
                f"{known} ({other.place}) and {protocol} ({each.place}) are different protocols, whose "
                "numbers do not compare; give one of them, or add --separate for a section of each"
            )


_IDENTITY = (
    *("task", "model", "metric", "group", "sampler", "split", "target"),
    *("dataset", "extractor", "reference_sha256", "checkpoint_sha256", "seeds", "n"),
)
"""Rows that agree in these measure the same thing."""
_NUMBERS = ("value", "ci_low", "ci_high")


def distinct(placed: Sequence[Placed], *, keep_last: bool = False) -> tuple[list[Placed], list[str]]:
    """Return the rows without repetitions, and a sentence for each kind of what was dropped.

    Equal rows count once. Rows that measure the same thing (task, model, metric, group, sampler, split,
    target, data, extractor, reference, checkpoint, seeds and n) are one where value and interval agree: the
    last stands. Where they do not, DataError names both places, or with ``keep_last`` the last stands too.
    """
    found: dict[tuple[object, ...], Placed] = {}
    equal = again = replaced = 0
    for each in placed:
        key = tuple(getattr(each.row, name) for name in _IDENTITY)
        if (other := found.get(key)) is not None:
            if each.row == other.row:
                equal += 1
            elif all(getattr(each.row, end) == getattr(other.row, end) for end in _NUMBERS):
                again += 1
            elif keep_last:
                replaced += 1
            else:
                raise DataError(
                    f"{each.row.metric} of {each.row.model} is {_said(other.row)} in {other.place} and "
                    f"{_said(each.row)} in {each.place}; remove one of them, or add --keep-last"
                )
        found[key] = each
    said = [
        (equal, "found more than once, and counted once"),
        (again, "measured again with the same outcome; the last stands"),
        (replaced, "replaced by a later one that measures the same"),
    ]
    return list(found.values()), [
        f"{count} {'row was' if count == 1 else 'rows were'} {what}" for count, what in said if count
    ]


def _said(row: Row) -> str:
    if row.value is None:
        return "missing"
    return repr(row.value) if row.interval is None else f"{row.value!r} [{row.ci_low!r}, {row.ci_high!r}]"


def unknown_metrics(rows: Sequence[Row]) -> list[str]:
    """Return a sentence for each metric that this version does not know, with the nearest that it does.

    Of many only the first have one of their own.
    """
    known = known_metrics([row.metric for row in rows])
    names = set(known)
    unknown = list(dict.fromkeys(row.metric for row in rows if row.metric not in names))
    # Looking for what is near is slow.
    said = [
        f"the metric '{metric}' is unknown to this version{did_you_mean(metric, known[:500])}"
        for metric in unknown[:20]
    ]
    more = len(unknown) - len(said)
    return [*said, *([f"and so are {more:,} other metrics"] if more > 0 else [])]


# Rows by what one types: PLACE#ID, PLACE:LINE, PLACE


def rows_at(
    place: str, *, model: str | None = None, metric: str | None = None, sampler: str | None = None
) -> list[Placed]:
    """Return the rows that ``PLACE#ID``, ``PLACE:LINE`` or ``PLACE`` name, each once.

    PLACE is a file of rows or a folder that holds some, ID the beginning of a row's id, LINE a line's number
    in one file; the selectors are whole words of the row's keys. Raises DataError where there is no such
    place and where no row fits.
    """
    path, named = _split(place)
    given = named | {"model": model, "metric": metric, "sampler": sampler}
    wanted = {key: word for key, word in given.items() if word is not None}
    files = results_of(path)
    if "line" in wanted and len(files) > 1:
        said = f"give FILE:{wanted['line']}, such as {files[0]}"
        raise DataError(f"{path} holds {len(files)} files of rows; {said}")
    found = {
        (each.file.parent, row_id(each.row)): each
        for each in read_placed(files).placed
        if all(_fits(each, key, word) for key, word in wanted.items())
    }
    if not found:
        said = " and ".join(f"{key} {word}" for key, word in wanted.items())
        with_ = f" with {said}" if said else ""
        raise DataError(f"{path} has no row{with_}; `lsgm reproduce {path}` lists its rows")
    return list(found.values())


def _fits(placed: Placed, key: str, word: str) -> bool:
    match key:
        case "id":
            return row_id(placed.row).startswith(word)
        case "line":
            return str(placed.line) == word
    return bool(getattr(placed.row, key) == word)


def _split(place: str) -> tuple[Path, dict[str, str | None]]:
    """Return the path of a place, and the id or the line behind it, unless a file has that very name."""
    if os.path.exists(place):
        return Path(place), {}
    if found := re.fullmatch(r"(.+)#([0-9a-f]{1,12})", place):
        return Path(found[1]), {"id": found[2]}
    if found := re.fullmatch(r"(.+):([1-9][0-9]*)", place):
        return Path(found[1]), {"line": found[2]}
    if "#" in place:
        raise DataError(f"'{place}' has no row's id behind '#'; an id is of the digits 0-9 and a-f, up to 12")
    return Path(place), {}
