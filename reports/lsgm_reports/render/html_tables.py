"""Tables as HTML, and the elements and foreign words that a page is made of."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Container
from html import escape
from itertools import pairwise

from lsgm.files.names import one_line, shown
from lsgm.results.row import row_id
from lsgm_reports.blocks import MISSING, Cell, Column, Table

__all__ = ["Anchors", "exact", "said", "sort_key", "table_html", "tag", "words"]


def tag(name: str, inner: str = "", /, **attributes: str | int | bool | None) -> str:
    """Return an element around markup, `inner`; attribute values are plain text.

    ``cls`` is written ``class``, an underscore a hyphen; True is an attribute without a value, None and
    False are none.
    """
    parts = [name]
    for key, value in attributes.items():
        label = "class" if key == "cls" else key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(label)
        elif value is not None and value is not False:
            parts.append(f'{label}="{exact(str(value))}"')
    return f"<{' '.join(parts)}>{inner}</{name}>"


def words(text: str) -> str:
    """Return markup that shows this text, on one line."""
    return escape(one_line(text))


def exact(text: str) -> str:
    """Return markup that holds every character of a text, but an escape for those that are not printed.

    A page may not hold some of them, and obeys others; spaces, tabs and line feeds stay.
    """
    if text.isprintable():
        return escape(text)
    kept = (
        symbol.isprintable() or symbol in "\t\n" or unicodedata.category(symbol) == "Zs" for symbol in text
    )
    return escape(
        "".join(symbol if stays else shown(symbol) for symbol, stays in zip(text, kept, strict=True))
    )


_CODE = re.compile(r"`([^`]+)`")
_BOLD = re.compile(r"\*\*(.+?)\*\*")


def said(text: str) -> str:
    """Return markup of a text in which `code` and **bold** are marked up, and nothing else is."""
    parts = _CODE.split(one_line(text))  # every second part is code
    marked = (
        f"<code>{escape(part)}</code>" if k % 2 else _BOLD.sub(r"<strong>\1</strong>", escape(part))
        for k, part in enumerate(parts)
    )
    return "".join(marked).replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")


class Anchors:
    """Hands out the ids of a page, each once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def new(self, title: str) -> str:
        """Return an id that resembles a title and is no other's."""
        stem = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60].strip("-") or "part"
        found, count = f"s-{stem}", self._counts.get(stem, 1)
        while found in self._taken:
            count += 1
            found = f"s-{stem}-{count}"
        self._taken.add(found)
        self._counts[stem] = count
        return found


# Tables as HTML: numbers lead to their provenance, marks to their notes, and a page sorts by columns

_TALL = 30
"""Lines from which on a table scrolls within a box of its own, under a head that stays."""
_LONG = 28
"""Letters from which on a cell takes several lines."""


def table_html(table: Table, anchors: Anchors, known: Container[str], *, titled: bool = True) -> str:
    """Return a table within a box that scrolls when the page is narrower, and its notes.

    A number whose row has its id among ``known`` is a link to ``#row-ID``. Lines between two rules are a
    `tbody` of their own, within which a page sorts. ``titled`` shows the title, which is read out anyway.
    """
    anchor = anchors.new(f"table {table.title}")
    heads = ""
    for column in table.columns:
        other = words(column.other.head) if column.other else None
        head = _in_units(words(column.head), other, column)
        heads += tag("th", head, scope="col", cls="right" if column.align == "right" else None)
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


def _in_units(first: str, other: str | None, column: Column) -> str:
    """Return markup in both units of a column, of which a page shows one: the first until it is switched."""
    if other is None or column.other is None:
        return first
    units = ((column.unit, first, False), (column.other.unit, other, True))
    return "".join(tag("span", inner, data_unit=unit, hidden=hidden) for unit, inner, hidden in units)


def _line(line: list[Cell], table: Table, letters: Container[str], anchor: str, known: Container[str]) -> str:
    cells = []
    for index, (cell, column) in enumerate(zip(line, table.columns, strict=True)):
        name, extra = ("td", {}) if index else ("th", {"scope": "row"})
        key = sort_key(cell)
        other = _content(cell.other, letters, anchor, known) if cell.other else None
        inner = _in_units(_content(cell, letters, anchor, known), other, column)
        marks = {"right": column.align == "right", "best": cell.best, "long": len(cell.text) > _LONG}
        kinds = " ".join(mark for mark, holds in marks.items() if holds) or None
        cells.append(tag(name, inner, **extra, cls=kinds, data_sort=key))
    return tag("tr", "".join(cells))


def _content(cell: Cell, letters: Container[str], anchor: str, known: Container[str]) -> str:
    mark = words(cell.mark)
    if cell.mark in letters:
        mark = tag("a", mark, href=f"#{anchor}-{cell.mark}", aria_label=f"note {cell.mark}")
    mark = tag("sup", mark) if cell.mark else ""
    value, _, error = words(cell.text).partition(" ± ")
    inner = value + (" " + tag("span", f"± {error}", cls="error") if error else "")
    if cell.best:
        inner = tag("strong", inner)
    if cell.row is not None and (name := row_id(cell.row)) in known:
        return tag("a", inner, href=f"#row-{name}", cls="number") + mark
    return (tag("span", inner, cls="gap") if cell.text == MISSING else inner) + mark


def _notes(table: Table, anchor: str) -> str:
    if not table.notes:
        return ""
    lines = [
        tag("li", f"{tag('sup', words(letter))} {said(text)}", id=f"{anchor}-{letter}")
        for letter, text in table.notes
    ]
    return tag("ul", "".join(lines), cls="notes")


def sort_key(cell: Cell) -> str | None:
    """Return what a page sorts a cell by where that is not its text: a number; "" of a gap, which is last."""
    if cell.sort is not None and math.isfinite(cell.sort):
        return repr(cell.sort)
    return "" if cell.text in (MISSING, "") else None
