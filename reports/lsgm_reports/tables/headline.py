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
from lsgm_reports.blocks import Cell, Column, Footnotes, Table, cell_of, hold_table, short
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
    return [row for row in _single(rows) if not _is_detail(row)]


def detail_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of sample quality beyond distances and class scores: precision, recall, and so on."""
    return [row for row in _single(rows) if _is_detail(row)]


def _single(rows: Sequence[Row]) -> list[Row]:
    return [
        row
        for row in rows
        if row.group not in ("curve", "reach", "terms") and not row.metric.startswith("paired_")
    ]


def _is_detail(row: Row) -> bool:
    found = named(row.metric)
    return found is not None and not families()[found.family].headline


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
        parts = _apart(name, mine, lambda row: row.checkpoint_sha256, shared=lambda row: False)
        for checkpoint, here in parts:
            label = f"{name} ({short(checkpoint, 8)})" if len(parts) > 1 else name
            lines.extend(_by_sampler(label, here))
    return lines


def _by_sampler(label: str, rows: Sequence[Row]) -> list[Line]:
    """Split into samplers; bounds, whose ``sampler`` is an estimator, stand on every line."""
    drawn = dict.fromkeys(row.sampler for row in rows if row.sampler and row.group in ("quality", "cost"))

    def shared(row: Row) -> bool:
        return row.group == "likelihood"

    parts = dict(_apart(label, rows, lambda row: row.sampler, shared))
    if not drawn:
        return [_line(label, None, [row for row in rows if shared(row) or row.sampler is None])]
    return [_line(label, sampler, parts[sampler]) for sampler in drawn]


def _line(label: str, sampler: str | None, rows: Sequence[Row]) -> Line:
    return Line(label, sampler, {row.metric: row for row in rows})


def _apart(
    name: str, rows: Sequence[Row], key: Callable[[Row], str | None], shared: Callable[[Row], bool]
) -> list[tuple[str | None, list[Row]]]:
    """Return the rows by a key, each part with those that are ``shared`` or have no key, in their order."""
    common = [(place, row) for place, row in enumerate(rows) if shared(row) or not key(row)]
    own: dict[str | None, list[tuple[int, Row]]] = {}
    for place, row in enumerate(rows):
        if key(row) and not shared(row):
            own.setdefault(key(row), []).append((place, row))
    CELLS.hold(f"the table of the model '{shown(name)[:80]}'", len(own) * len(common))
    merged = [(word, sorted([*mine, *common], key=lambda pair: pair[0])) for word, mine in own.items()]
    return [(word, [row for _, row in pairs]) for word, pairs in merged] or [
        (None, [row for _, row in common])
    ]


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
    measured = {
        metric.key: [line.rows[metric.key] for line in lines if metric.key in line.rows] for metric in metrics
    }
    # A row that is every sampler's stands on several lines of one model, and competes once.
    best = {id(best_of(_once(column))) for column in measured.values()}
    others = _other_units(metrics, lines)
    shown = [metric for metric in metrics if metric not in others.values()]

    def cell(line: Line, metric: Shown) -> Cell:
        row = line.rows.get(metric.key)
        other = others.get(metric.key)
        return replace(
            cell_of(row, notes, best=row is not None and id(row) in best),
            other=cell(line, other) if other else None,
        )

    def column(metric: Shown) -> Column:
        other = others.get(metric.key)
        unit = UNITS.get(metric.key.rpartition("_")[2], "")
        return Column(metric.head, unit=unit, other=column(other) if other else None)

    sampled = any(line.sampler for line in lines)
    grid = [
        [
            Cell(line.label),
            *([Cell(sampler_label(line.sampler))] if sampled else []),
            *(cell(line, metric) for metric in shown),
        ]
        for line in lines
    ]
    for metric in shown:
        if not comparable(measured[metric.key]):
            notes.mark(f"{metric.label}: the models were measured against different data, none is marked")
    heads = [Column("Model", "left"), *([Column("Sampler", "left")] if sampled else [])]
    caption = _CAPTION
    if others:
        caption += f" {units_said(next(iter(others)).rpartition('_')[2])}"
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


def _once(rows: Sequence[Row]) -> list[Row]:
    """Drop repetitions of the same row, which stands on several lines of one model."""
    return list({id(row): row for row in rows}.values())
