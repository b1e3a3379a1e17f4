"""Tables as HTML: numbers lead to their provenance, marks to their notes, and a page sorts by columns."""

from __future__ import annotations

import math
import re
from collections.abc import Container
from itertools import pairwise

from lsgm_reports.html.markup import Anchors, said, tag, words
from lsgm_reports.provenance import row_id
from lsgm_reports.table import MISSING, Cell, Column, Table

__all__ = ["sort_key", "table_html"]

_TALL = 30
"""Lines from which on a table scrolls within a box of its own, under a head that stays."""
_LONG = 28
"""Letters from which on a cell takes several lines."""
_NUMBER = re.compile(r"\(?([-−+]?[\d,]*\.?\d+)(?: ±[^)]*\))?(e[-−+]?\d+)?")


def table_html(table: Table, anchors: Anchors, known: Container[str], *, titled: bool = True) -> str:
    """Return a table within a box that scrolls when the page is narrower, and its notes.

    A number whose row has its id among ``known`` is a link to ``#row-ID``. Lines between two rules are a
    `tbody` of their own, within which a page sorts. ``titled`` shows the title, which is read out anyway.
    """
    anchor = anchors.new(f"table {table.title}")
    heads = "".join(_head(column) for column in table.columns)
    letters = frozenset(letter for letter, _ in table.notes)
    bodies = []
    for first, last in pairwise([0, *table.rules, len(table.lines)]):
        lines = [_line(line, table, letters, anchor, known) for line in table.lines[first:last]]
        if lines:
            bodies.append(tag("tbody", "".join(lines)))
    title = tag("caption", words(table.title), id=anchor, cls=None if titled else "unseen")
    grid = tag("table", title + tag("thead", tag("tr", heads)) + "".join(bodies))
    tall = " tall" if len(table.lines) >= _TALL else ""
    # A box that scrolls must be reachable by keys, and say what it is.
    box = tag("div", grid, cls=f"scroll{tall}", tabindex=0, role="region", aria_labelledby=anchor)
    caption = tag("p", said(table.caption), cls="caption") if table.caption else ""
    return tag("div", box + caption + _notes(table, anchor), cls="table")


def _head(column: Column) -> str:
    return tag("th", words(column.head), scope="col", cls=_side(column))


def _side(column: Column) -> str | None:
    return "right" if column.align == "right" else None


def _line(line: list[Cell], table: Table, letters: Container[str], anchor: str, known: Container[str]) -> str:
    cells = []
    for index, (cell, column) in enumerate(zip(line, table.columns, strict=True)):
        name, extra = ("td", {}) if index else ("th", {"scope": "row"})
        key = sort_key(cell, column)
        inner = _content(cell, known)
        if cell.mark:
            inner += _mark(cell.mark, letters, anchor)
        marks = (_side(column), "best" if cell.best else None, "long" if len(cell.text) > _LONG else None)
        sides = " ".join(mark for mark in marks if mark) or None
        cells.append(tag(name, inner, **extra, cls=sides, data_sort=key))
    return tag("tr", "".join(cells))


def _content(cell: Cell, known: Container[str]) -> str:
    value, plus_minus, error = words(cell.text).partition(" ± ")
    inner = value + (tag("span", f"{plus_minus}{error}", cls="error") if error else "")
    if cell.best:
        inner = tag("strong", inner)
    if cell.row is not None and (name := row_id(cell.row)) in known:
        return tag("a", inner, href=f"#row-{name}", cls="number")
    return tag("span", inner, cls="gap") if cell.text == MISSING else inner


def _mark(mark: str, letters: Container[str], anchor: str) -> str:
    """Return the letter of a note above the line, a link where the note is there."""
    letter = words(mark)
    if mark in letters:
        letter = tag("a", letter, href=f"#{anchor}-{mark}", aria_label=f"note {mark}")
    return tag("sup", letter)


def _notes(table: Table, anchor: str) -> str:
    if not table.notes:
        return ""
    lines = [
        tag("li", f"{tag('sup', words(letter))} {said(text)}", id=f"{anchor}-{letter}")
        for letter, text in table.notes
    ]
    return tag("ul", "".join(lines), cls="notes")


def sort_key(cell: Cell, column: Column) -> str | None:
    """Return what a page sorts a cell by where that is not its text: a number; "" of a gap, which is last.

    Where a column keeps right and a cell does not say its number, that is read: ``1,024 (max 2,000)``.
    """
    if cell.sort is not None and math.isfinite(cell.sort):
        return repr(cell.sort)
    if cell.text in (MISSING, ""):
        return ""
    if column.align == "left":
        return None
    found = _NUMBER.match(cell.text)
    if found is None:
        return None
    number = float(f"{found[1]}{found[2] or ''}".replace(",", "").replace("−", "-"))
    return repr(number) if math.isfinite(number) else None
