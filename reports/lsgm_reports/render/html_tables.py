"""HTML as text: elements, and foreign words that stay words."""

from __future__ import annotations

import math
import re
import shlex
import unicodedata
from collections.abc import Container, Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

from lsgm.errors import DataError
from lsgm.files.names import shown
from lsgm.results.labels import sampler_label
from lsgm.results.manifest import Manifest, manifest_of
from lsgm.results.metrics import metric_of
from lsgm.results.row import Row, row_id
from lsgm_reports.blocks import MISSING, Cell, Column, Table
from lsgm_reports.digits import error_bar
from lsgm_reports.render.text import one_line, relative
from lsgm_reports.reproduce.apart import copied, place_word

__all__ = [
    "Anchors",
    "Facts",
    "Records",
    "call_facts",
    "exact",
    "label_of",
    "measured_facts",
    "row_facts",
    "said",
    "said_of",
    "sort_key",
    "table_html",
    "tag",
    "value_of",
    "words",
]


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
    return escape("".join(symbol if _kept(symbol) else shown(symbol) for symbol in text))


def _kept(symbol: str) -> bool:
    return symbol.isprintable() or symbol in "\t\n" or unicodedata.category(symbol) == "Zs"


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


# What is known of a row and of the call that measured it, as names with values

Facts = list[tuple[str, str, bool]]
"""(name, value, whether the value is code: a checksum, a command)."""


def label_of(row: Row) -> str:
    """Return what a row is called: model, metric, sampler."""
    metric = metric_of(row)
    head = f"{metric.label} ({metric.unit})" if metric.unit else metric.label
    parts = [row.model, head, sampler_label(row.sampler) if row.sampler else "", row.target or ""]
    return " · ".join(part for part in parts if part)


def value_of(row: Row) -> str:
    """Return the number of a row with its error, or that there is none."""
    return "not measured" if row.value is None else error_bar(row.value, row.ci_low, row.ci_high)


def said_of(row: Row) -> str:
    """Return a row on one line, as a point of a figure says it."""
    return f"{label_of(row)}: {value_of(row)}"


def row_facts(row: Row) -> Facts:
    """Return what is the row's own: the number unrounded, the images, how they were drawn, the cost."""
    better = {True: "higher", False: "lower", None: None}[row.higher_is_better]
    interval = None if row.interval is None else f"{row.interval[0]!r} to {row.interval[1]!r}"
    spent = None if row.nfe_mean is None else f"{row.nfe_mean!r} per image"
    if spent and row.nfe_max is not None:
        spent += f", at most {row.nfe_max!r}"
    memory = None if row.peak_bytes is None else f"{row.peak_bytes / 2**20:,.0f} MiB"
    return _known(
        ("Value, unrounded", None if row.value is None else repr(row.value), True),
        ("95 % interval", interval, True),
        ("Why there is none" if row.value is None else "Remark", row.note, False),
        ("Solver error", _solver_error(row), True),
        ("Metric", row.metric, True),
        ("Unit", row.unit, False),
        ("Better", better, False),
        ("Images", row.counted, False),
        ("Split", row.split, False),
        ("Sampler", row.sampler, True),
        ("Reaches", row.target, True),
        ("Seeds", row.seeds, False),
        ("Network evaluations", spent, False),
        ("Operations per image", _of(row.flops_per_image, row.decoder_flops_per_image), False),
        ("Seconds", _of(row.seconds, row.decoder_seconds), False),
        ("Peak memory", memory, False),
    )


def _solver_error(row: Row) -> str | None:
    if row.solver_error is None:
        return None
    return repr(row.solver_error) + (f" ± {row.solver_error_margin!r}" if row.solver_error_margin else "")


def _of(whole: float | None, decoder: float | None) -> str | None:
    if whole is None:
        return None
    return f"{whole:.4g}" + ("" if decoder is None else f", the decoder's {decoder:.4g}")


def measured_facts(row: Row) -> Facts:
    """Return what a row shares with others: model, data, features, code."""
    return _known(
        ("Task", row.task, True),
        ("Model", row.model, False),
        ("Checkpoint sha256", row.checkpoint_sha256, True),
        ("Data set", row.dataset, True),
        ("Reference sha256", row.reference_sha256, True),
        ("Extractor", row.extractor, True),
        ("Bits scored sha256", row.levels_sha256, True),
        ("Git revision", row.git_revision, True),
        ("Run", row.run_id, True),
        ("Versions", row.versions, False),
    )


def call_facts(manifest: Manifest) -> Facts:
    """Return what a measuring call was given and what it ran on."""
    task = manifest.task
    typed = copied(manifest.command, manifest.directory, manifest.processes)
    facts = _known(
        ("Command", typed.line, True),
        ("Why no command is shown", typed.why, False),
        ("Typed in", manifest.directory, True),
        ("Environment", _listed(manifest.environment), True),
        ("Started", manifest.started, False),
        ("Git revision", manifest.git_revision, True),
        ("Code version", manifest.code_version, True),
        ("Versions", _listed(manifest.versions), False),
        ("Hardware", _listed(manifest.hardware), False),
        ("Device", manifest.device, False),
        ("Task", f"{task.identity}, sha256 {task.sha256}", True),
        ("Data", f"{task.data}: {task.dataset}", True),
        ("Extractors", ", ".join(task.extractors), True),
    )
    for model in manifest.models:
        parameters = ", ".join(f"{name} {count:,}" for name, count in model.parameters.items())
        parts = [model.path or model.spec, f"sha256 {model.sha256}" if model.sha256 else "", parameters]
        facts.append((f"Model {model.name}", "; ".join(part for part in parts if part), True))
    return facts


def _listed(values: dict[str, Any]) -> str:
    """Return names with what is known of them, one after the other."""
    return ", ".join(f"{name} {value}" for name, value in values.items() if value not in (None, "", {}))


def _known(*facts: tuple[str, str | None, bool]) -> Facts:
    return [(name, value, code) for name, value, code in facts if value]


# The provenance of every number: a record per row, which a page opens where the number stands

_INTRODUCTION = (
    "Each number of this report, unrounded, with what it was measured on. The command, typed in the folder "
    "of this report, says what must hold to measure it again and what to type, and does it with "
    f"{tag('code', '--run')}."
)


class Records:
    """The records of rows that lie in the files ``places`` says, for a page in the folder ``out``."""

    def __init__(self, rows: Sequence[Row], places: Mapping[Row, Path], out: Path) -> None:
        self._rows = {row_id(row): row for row in rows}
        self._places = places
        self._names = {place: relative(place, out) for place in dict.fromkeys(places.values())}
        self._shared: dict[tuple[tuple[str, str, bool], ...], str] = {}
        self._calls: dict[tuple[Path, str], tuple[str, Row]] = {}

    @property
    def labels(self) -> dict[str, str]:
        """Id of every row -> what it says, on one line."""
        return {name: said_of(row) for name, row in self._rows.items()}

    def html(self, heading: str) -> str:
        """Return the records, then what several share: data, checkpoints and code, and the measuring calls.

        ``heading`` is the element of the headings within, ``h4``.
        """
        records = "".join(self._record(name, row) for name, row in self._rows.items())
        shared = [
            tag(
                "div",
                tag(heading, f"Model, data and code ({number})") + _list(list(facts)),
                cls="facts",
                id=anchor,
            )
            for number, (facts, anchor) in enumerate(self._shared.items(), start=1)
        ]
        calls = [
            tag("div", tag(heading, f"Call {words(name)}") + _call(folder, row), cls="facts", id=anchor)
            for (folder, name), (anchor, row) in self._calls.items()
        ]
        return tag("p", _INTRODUCTION) + tag("div", records, cls="records") + "".join([*shared, *calls])

    def _record(self, name: str, row: Row) -> str:
        place = self._places.get(row)
        links, anchors = [], []
        shared = tuple(measured_facts(row))
        anchors.append(self._shared.setdefault(shared, f"measured-{len(self._shared) + 1}"))
        links.append(tag("a", "model, data and code", href=f"#{anchors[0]}"))
        if row.manifest and place is not None:
            anchor = f"call-{len(self._calls) + 1}"
            anchors.append(self._calls.setdefault((place.parent, row.manifest), (anchor, row))[0])
            links.append(tag("a", f"call {words(row.manifest)}", href=f"#{anchors[1]}"))
        head = tag("span", words(label_of(row)), cls="name") + tag("span", words(value_of(row)), cls="value")
        inner = _list([*row_facts(row), ("Row", name, True)])
        inner += tag("p", f"Measured with {' by '.join(links)}.", cls="links")
        if place is not None:
            word = f"{place_word(self._names[place])}#{name}"
            inner += _command(f"lsgm reproduce {shlex.quote(word)}")
        return tag(
            "details",
            tag("summary", head) + tag("div", inner),
            cls="record",
            id=f"row-{name}",
            data_with=" ".join(anchors),
        )


def _call(folder: Path, row: Row) -> str:
    """Return what is known of the call that measured a row; a damaged manifest takes no number away."""
    try:
        manifest = manifest_of(row, folder)
    except DataError as error:
        return tag("p", words(str(error)))
    if manifest is None:
        return tag("p", f"Its file {tag('code', words(f'manifests/{row.manifest}.json'))} is gone.")
    return _list(call_facts(manifest))


def _list(facts: Facts) -> str:
    """Return names and values as a list of definitions."""
    pairs = (
        tag("div", tag("dt", words(name)) + tag("dd", tag("code", exact(value)) if code else words(value)))
        for name, value, code in facts
    )
    return tag("dl", "".join(pairs))


def _command(line: str) -> str:
    return tag("div", tag("code", exact(line)), cls="command")


# Tables as HTML: numbers lead to their provenance, marks to their notes, and a page sorts by columns

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
    other = words(column.other.head) if column.other else None
    return tag("th", _in_units(words(column.head), other, column), scope="col", cls=_side(column))


def _in_units(first: str, other: str | None, column: Column) -> str:
    """Return markup in both units of a column, of which a page shows one: the first until it is switched."""
    if other is None or column.other is None:
        return first
    units = ((column.unit, first, False), (column.other.unit, other, True))
    return "".join(tag("span", inner, data_unit=unit, hidden=hidden) for unit, inner, hidden in units)


def _side(column: Column) -> str | None:
    return "right" if column.align == "right" else None


def _line(line: list[Cell], table: Table, letters: Container[str], anchor: str, known: Container[str]) -> str:
    cells = []
    for index, (cell, column) in enumerate(zip(line, table.columns, strict=True)):
        name, extra = ("td", {}) if index else ("th", {"scope": "row"})
        key = sort_key(cell, column)
        other = _content(cell.other, letters, anchor, known) if cell.other else None
        inner = _in_units(_content(cell, letters, anchor, known), other, column)
        marks = (_side(column), "best" if cell.best else None, "long" if len(cell.text) > _LONG else None)
        sides = " ".join(mark for mark in marks if mark) or None
        cells.append(tag(name, inner, **extra, cls=sides, data_sort=key))
    return tag("tr", "".join(cells))


def _content(cell: Cell, letters: Container[str], anchor: str, known: Container[str]) -> str:
    mark = _mark(cell.mark, letters, anchor) if cell.mark else ""
    value, _, error = words(cell.text).partition(" ± ")
    inner = value + (" " + tag("span", f"± {error}", cls="error") if error else "")
    if cell.best:
        inner = tag("strong", inner)
    if cell.row is not None and (name := row_id(cell.row)) in known:
        return tag("a", inner, href=f"#row-{name}", cls="number") + mark
    return (tag("span", inner, cls="gap") if cell.text == MISSING else inner) + mark


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
