"""Tables as HTML, and the elements and foreign words that a page is made of."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Container, Sequence
from html import escape
from itertools import pairwise

from lsgm.files.names import one_line, shown
from lsgm.results.row import row_id
from lsgm_reports.blocks import MISSING, Cell, Column, Table


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


def said(text: str) -> str:
    """Return markup of a text in which `code` and **bold** are marked up, and nothing else is."""
    parts = [escape(part) for part in _CODE.split(one_line(text))]  # every second part is code
    parts[::2] = [re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", part) for part in parts[::2]]
    parts[1::2] = [f"<code>{part}</code>" for part in parts[1::2]]
    return "".join(parts).replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")


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


def table_html(table: Table, anchors: Anchors, known: Container[str], *, titled: bool = True) -> str:
    """Return a table within a box that scrolls when the page is narrower, and its notes.

    A number whose row has its id among ``known`` is a link to ``#row-ID``. Lines between two rules are a
    `tbody` of their own, within which a page sorts. ``titled`` shows the title, which is read out anyway.
    """
    anchor = anchors.new(f"table {table.title}")
    letters = frozenset(letter for letter, _ in table.notes)

    def content(cell: Cell) -> str:
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

    def line(cells: Sequence[Cell]) -> str:
        parts = []
        for index, (cell, column) in enumerate(zip(cells, table.columns, strict=True)):
            name, extra = ("td", {}) if index else ("th", {"scope": "row"})
            inner = _in_units(content(cell), content(cell.other) if cell.other else None, column)
            # A long cell takes several lines.
            marks = {"right": column.align == "right", "best": cell.best, "long": len(cell.text) > 28}
            kinds = " ".join(mark for mark, holds in marks.items() if holds) or None
            parts.append(tag(name, inner, **extra, cls=kinds, data_sort=sort_key(cell)))
        return tag("tr", "".join(parts))

    heads = ""
    for column in table.columns:
        head = _in_units(words(column.head), words(column.other.head) if column.other else None, column)
        heads += tag("th", head, scope="col", cls="right" if column.align == "right" else None)
    between = pairwise([0, *table.rules, len(table.lines)])
    parts = ["".join(map(line, table.lines[first:last])) for first, last in between]
    title = tag("caption", words(table.title), id=anchor, cls=None if titled else "unseen")
    inner = title + tag("thead", tag("tr", heads)) + "".join(tag("tbody", part) for part in parts if part)
    # A long table scrolls under a head that stays; its box must be reachable by keys, and say what it is.
    kinds = "scroll tall" if len(table.lines) >= 30 else "scroll"
    box = tag("div", tag("table", inner), cls=kinds, tabindex=0, role="region", aria_labelledby=anchor)
    if table.caption:
        box += tag("p", said(table.caption), cls="caption")
    notes = [
        tag("li", f"{tag('sup', words(letter))} {said(text)}", id=f"{anchor}-{letter}")
        for letter, text in table.notes
    ]
    return tag("div", box + (tag("ul", "".join(notes), cls="notes") if notes else ""), cls="table")


def _in_units(first: str, other: str | None, column: Column) -> str:
    """Return markup in both units of a column, of which a page shows one: the first until it is switched."""
    if other is None or column.other is None:
        return first
    units = ((column.unit, first, False), (column.other.unit, other, True))
    return "".join(tag("span", inner, data_unit=unit, hidden=hidden) for unit, inner, hidden in units)


def sort_key(cell: Cell) -> str | None:
    """Return what a page sorts a cell by where that is not its text: a number; "" of a gap, which is last."""
    if cell.sort is not None and math.isfinite(cell.sort):
        return repr(cell.sort)
    return "" if cell.text in (MISSING, "") else None
