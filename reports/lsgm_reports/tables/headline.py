"""The tables of measured models: models as lines, metrics as columns; the headline, and quality in detail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lsgm.files.limits import CELLS
from lsgm.files.names import shown
from lsgm.results.labels import sampler_label
from lsgm.results.metrics import Shown, families, metric_of, named
from lsgm.results.row import GROUPS, Row
from lsgm_reports.blocks import Cell, Column, Footnotes, Table, cell_of, hold_table, left, short
from lsgm_reports.digits import best_of, comparable
from lsgm_reports.read import grouped

__all__ = [
    "UNITS",
    "Line",
    "detail_rows",
    "detail_table",
    "headline",
    "headline_rows",
    "lines_of",
    "metrics_of",
    "units_of",
    "units_said",
]


@dataclass(frozen=True)
class Line:
    """One model, with one sampler, as a line of the table."""

    label: str
    sampler: str | None
    rows: dict[str, Row]
    """Shown -> row; of several measurements of the same thing the last."""


def headline_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that are neither points of a curve, nor terms, differences or details of quality."""
    return _single(rows, detail=False)


def detail_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of sample quality beyond distances and class scores: precision, recall, and so on."""
    return _single(rows, detail=True)


def _single(rows: Sequence[Row], *, detail: bool) -> list[Row]:
    single = [row for row in rows if row.group not in ("curve", "reach", "terms")]
    found = [(row, named(row.metric)) for row in single if not row.metric.startswith("paired_")]
    return [
        row for row, name in found if (name is not None and not families()[name.family].headline) == detail
    ]


def metrics_of(rows: Sequence[Row]) -> list[Shown]:
    """Return the metrics that occur: quality by family, likelihood, cost, and else in the order of the file.

    Where one label would stand for several feature spaces, each says its own.
    """
    found: dict[str, tuple[tuple[int, int], Shown]] = {}
    for row in rows:
        name = named(row.metric)
        group = GROUPS.index(row.group) if row.group in GROUPS else len(GROUPS)
        rank = (group, list(families()).index(name.family) if name else 0)
        known = found.get(row.metric)
        # A row without a value may not know in which direction its metric is better.
        if known is None or (known[1].higher_is_better is None and row.higher_is_better is not None):
            found[row.metric] = (rank, metric_of(row))
    metrics = [metric for _, metric in sorted(found.values(), key=lambda pair: pair[0])]
    heads = Counter(metric.head for metric in metrics)
    return [
        replace(metric, label=f"{metric.label} ({metric.space})")
        if metric.space and heads[metric.head] > 1
        else metric
        for metric in metrics
    ]


def lines_of(rows: Sequence[Row]) -> list[Line]:
    """Return one line per model; per checkpoint or sampler where a model has several of them.

    Raises DataError where these are so many that no table holds them.
    """
    lines: list[Line] = []
    for name, mine in grouped(rows, lambda row: row.model).items():
        parts = _apart(name, mine, lambda row: row.checkpoint_sha256)
        for checkpoint, here in parts:
            label = f"{name} ({short(checkpoint, 8)})" if len(parts) > 1 else name
            lines.extend(_by_sampler(label, here))
    return lines


def _by_sampler(label: str, rows: Sequence[Row]) -> list[Line]:
    """Split into samplers; bounds, whose ``sampler`` is an estimator, stand on every line."""
    drawn = dict.fromkeys(row.sampler for row in rows if row.sampler and row.group in ("quality", "cost"))
    parts = dict(_apart(label, rows, lambda row: None if row.group == "likelihood" else row.sampler))
    if not drawn:
        parts = {None: [row for row in rows if row.group == "likelihood" or row.sampler is None]}
    return [Line(label, name, {row.metric: row for row in parts[name]}) for name in drawn or (None,)]


def _apart(
    name: str, rows: Sequence[Row], key: Callable[[Row], str | None]
) -> list[tuple[str | None, list[Row]]]:
    """Return the rows by a key, each part with those that have none, in their order."""
    own: dict[str | None, list[tuple[int, Row]]] = {}
    for place, row in enumerate(rows):
        own.setdefault(key(row) or None, []).append((place, row))
    shared = own.pop(None, [])
    CELLS.hold(f"the table of the model '{shown(name)[:80]}'", len(own) * len(shared))
    merged = {word: sorted([*mine, *shared], key=lambda pair: pair[0]) for word, mine in own.items()}
    return [(word, [row for _, row in pairs]) for word, pairs in (merged or {None: shared}).items()]


def headline(rows: Sequence[Row], title: str) -> Table:
    """Return the table of one task; the best of a column is marked where its lead exceeds its error."""
    return _table(headline_rows(rows), title)


def detail_table(rows: Sequence[Row]) -> Table | None:
    """Return what else is known of the samples' quality, or None where nothing is."""
    chosen = detail_rows(rows)
    return _table(chosen, "Sample quality in detail") if chosen else None


def _table(chosen: Sequence[Row], title: str) -> Table:
    metrics, lines, notes = metrics_of(chosen), lines_of(chosen), Footnotes()
    hold_table(title, len(lines), len(metrics))
    columns = {
        key: [line.rows[key] for line in lines if key in line.rows] for key in (m.key for m in metrics)
    }
    best = [best_of(column) for column in columns.values()]
    winners = {id(row) for row in best if row is not None}
    others = _other_units(metrics, lines)
    shown = [metric for metric in metrics if metric not in others.values()]
    sampled = any(line.sampler for line in lines)

    def cell(line: Line, key: str) -> Cell:
        row = line.rows.get(key)
        other = cell(line, others[key].key) if key in others else None
        return replace(cell_of(row, notes, best=id(row) in winners), other=other)

    def column(metric: Shown) -> Column:
        other = column(others[metric.key]) if metric.key in others else None
        return Column(metric.head, unit=UNITS.get(metric.key.rpartition("_")[2], ""), other=other)

    grid = [
        [
            Cell(line.label),
            *([Cell(sampler_label(line.sampler))] if sampled else []),
            *(cell(line, metric.key) for metric in shown),
        ]
        for line in lines
    ]
    for metric in shown:
        if not comparable(columns[metric.key]):
            notes.mark(f"{metric.label}: the models were measured against different data, none is marked")
    caption = _CAPTION
    if others:
        caption += f" {units_said(next(iter(others)).rpartition('_')[2])}"
    heads = left("Model", *(["Sampler"] if sampled else []))
    return Table(title, [*heads, *map(column, shown)], grid, notes.notes, caption)


def _other_units(metrics: Sequence[Shown], lines: Sequence[Line]) -> dict[str, Shown]:
    """Return the bounds of which every line has both units: the metric in the usual one -> in the other.

    A bound that some line has in the other unit alone keeps a column for each, so that no number is hidden.
    """
    known = {metric.key: metric for metric in metrics}
    found = {}
    for stem in dict.fromkeys(key.rpartition("_")[0] for key in known):
        rows = [row for line in lines for key, row in line.rows.items() if key.rpartition("_")[0] == stem]
        usual, other = (f"{stem}_{unit}" for unit in units_of(rows[0].dataset_name)) if rows else ("", "")
        both = usual in known and other in known
        if both and not any(other in line.rows and usual not in line.rows for line in lines):
            found[usual] = known[other]
    return found


_BINARY = ("glyphs", "mnist", "mnist-fixed", "omniglot", "omniglot-lake28")
"""Data sets whose literature counts in nats; images of many levels are compared in bits/dim."""


UNITS = {"nats": "nats", "bpd": "bits/dim"}
"""Ends of the names of bounds, and what the units are called."""


def units_of(dataset: str) -> tuple[str, str]:
    """Return the units of a bound, ``nats`` and ``bpd``, first that in which the literature counts."""
    return ("nats", "bpd") if dataset in _BINARY else ("bpd", "nats")


def units_said(unit: str) -> str:
    """Return in which unit a table shows bounds, and where the other is."""
    if unit == "nats":
        return "Bounds in nats per image, as usual for binary images; results.csv has bits/dim too."
    return "Bounds in bits per dimension, as usual for images of many levels; results.csv has nats too."


_CAPTION = (
    "± is half the 95 % interval and sets the digits. Bold: the best of its column, "
    "where the lead over every other model exceeds the error of the lead."
)
