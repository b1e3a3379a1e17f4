"""A report before it has a format: titled sections of text, tables and pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lsgm.files.limits import CELLS
from lsgm.files.names import shown
from lsgm.results.row import Row
from lsgm_reports.digits import error_bar, plain

MISSING = "n/a"
"""What stands where there is no number; a footnote says why."""


@dataclass(frozen=True)
class Column:
    """The head of a column and the side to which its cells keep."""

    head: str
    align: Literal["left", "right"] = "right"
    unit: str = ""
    """Of a column that a page shows in one of two units: that of the head and of the cells."""
    other: Column | None = None
    """The same column in the other unit; what is no page shows the first alone."""


@dataclass(frozen=True)
class Cell:
    """What one place of a table says."""

    text: str
    best: bool = False
    mark: str = ""
    """Letter of a footnote."""
    row: Row | None = None
    """The measured row that the cell shows, whose provenance a page can open; None of words and of numbers
    that were published elsewhere."""
    sort: float | None = None
    """The number by which a page sorts; None sorts words by their text and puts gaps last."""
    other: Cell | None = None
    """The number in the column's other unit."""


@dataclass(frozen=True)
class Table:
    """A titled grid with footnotes, in the order of their letters."""

    title: str
    columns: list[Column]
    lines: list[list[Cell]]
    notes: list[tuple[str, str]] = field(default_factory=list)
    """(letter, text)."""
    caption: str = ""
    rules: list[int] = field(default_factory=list)
    """Indexes of the lines before which a rule stands: measured above it, published below."""


def left(*heads: str) -> list[Column]:
    """Return columns of words."""
    return [Column(head, "left") for head in heads]


def hold_table(title: str, lines: int, columns: int) -> None:
    """Raise DataError for a table of more places than are shown: every model in every metric, say."""
    CELLS.hold(f"the table '{shown(title)[:80]}' of {lines:,} lines", lines * columns)


def transposed(table: Table) -> Table:
    """Return the table turned on its side: one line per column, for narrow terminals."""
    first, *rest = table.columns
    columns = [Column(first.head, "left"), *(Column(line[0].text) for line in table.lines)]
    lines = [
        [Cell(column.head), *(line[index + 1] for line in table.lines)] for index, column in enumerate(rest)
    ]
    return Table(table.title, columns, lines, table.notes, table.caption)


class Footnotes:
    """Hands out letters; the same text gets the same letter."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}

    def mark(self, text: str | None) -> str:
        """Return the letter of a text, or nothing for no text."""
        if not text:
            return ""
        if text not in self._letters:
            index, letter = len(self._letters), ""
            while index >= 0:  # a ... z, aa, ab ...
                letter = chr(ord("a") + index % 26) + letter
                index = index // 26 - 1
            self._letters[text] = letter
        return self._letters[text]

    @property
    def notes(self) -> list[tuple[str, str]]:
        """Letters and texts in order."""
        return [(letter, text) for text, letter in self._letters.items()]


def evaluations(row: Row) -> str:
    """Return the network evaluations of a row per image, ``71.3 (max 80)``, or that they are not known."""
    if row.nfe_mean is None:
        return MISSING
    most = row.nfe_max if row.nfe_max is not None and row.nfe_max > row.nfe_mean else None
    return plain(row.nfe_mean) + (f" (max {plain(most)})" if most else "")


def cell_of(row: Row | None, notes: Footnotes, *, best: bool = False) -> Cell:
    """Return a number with its error, or a marked gap that a footnote explains.

    Remarks on numbers that are there stand with the explanation of their column, not in footnotes, but for
    a solver's error that the interval does not hold.
    """
    if row is None:
        return Cell(MISSING, mark=notes.mark("not measured"))
    if row.value is None:
        return Cell(MISSING, mark=notes.mark(row.note or "not measured"), row=row)
    text = error_bar(row.value, row.ci_low, row.ci_high)
    if row.metric == "nfe" and row.nfe_max is not None and row.nfe_max > row.value:
        text += f" (max {plain(row.nfe_max)})"
    mark = "" if row.solved_finely else notes.mark(COARSE)
    return Cell(text, best=best, mark=mark, row=row, sort=row.value)


COARSE = "its solver's error exceeds half its interval: not shown to be a bound"
"""What is said of a bound by a flow that was not solved finely enough."""


def short(sha: str | None, length: int = 12) -> str:
    """Return the first digits of a checksum or revision."""
    return sha[:length] if sha else "unknown"


@dataclass(frozen=True)
class Text:
    """One paragraph; `code` between backquotes and **bold** are all the mark-up there is."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """Short statements, each marked up as a `Text` is."""

    lines: list[str]


@dataclass(frozen=True)
class Picture:
    """An image file with what it shows."""

    file: Path
    """PNG; of a figure there may be an SVG of the same name beside it."""
    caption: str
    drawn: bool = True
    """Whether this project drew it, so that an SVG beside it may stand among the words of a page."""


Block = Text | Bullets | Table | Picture


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, sections of the next level at the end."""

    title: str
    blocks: list[Block] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """A titled page: what came out, what is missing, the tasks, neighbours, training and provenance."""

    title: str
    sections: list[Section]
