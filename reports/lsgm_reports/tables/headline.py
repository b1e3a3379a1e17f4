"""The tables of measured models: models as lines, metrics as columns; the headline, and quality in detail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lsgm.files.limits import CELLS
from lsgm.files.names import shown
from lsgm_reports.blocks import Cell, Column, Footnotes, Table, cell_of, hold_table, short
from lsgm_reports.digits import best_of, comparable
from lsgm_reports.families import FAMILIES, HEADLINE, named
from lsgm_reports.labels import sampler_label
from lsgm_reports.metrics import GROUPS, Metric, metric_of
from lsgm_reports.rows import Row, grouped

__all__ = ["Line", "detail_rows", "detail_table", "headline", "headline_rows", "lines_of", "metrics_of"]


@dataclass(frozen=True)
class Line:
    """One model, with one sampler, as a line of the table."""

    label: str
    sampler: str | None
    rows: dict[str, Row]
    """Metric -> row; of several measurements of the same thing the last."""


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
    return found is not None and found.family not in HEADLINE


def metrics_of(rows: Sequence[Row]) -> list[Metric]:
    """Return the metrics that occur: quality by family, likelihood, cost, and else in the order of the file.

    Where one label would stand for several feature spaces, each says its own.
    """
    found: dict[str, tuple[tuple[int, int], Metric]] = {}
    for row in rows:
        name = named(row.metric)
        group = GROUPS.index(row.group) if row.group in GROUPS else len(GROUPS)
        rank = (group, list(FAMILIES).index(name.family) if name else 0)
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
    shown_samplers = any(line.sampler for line in lines)
    winners: dict[str, Row | None] = {}
    for metric in metrics:
        column = [line.rows[metric.key] for line in lines if metric.key in line.rows]
        winners[metric.key] = best_of(_once(column))
    grid: list[list[Cell]] = []
    for line in lines:
        cells = [Cell(line.label)]
        if shown_samplers:
            cells.append(Cell(sampler_label(line.sampler)))
        for metric in metrics:
            row = line.rows.get(metric.key)
            winner = winners[metric.key]
            cells.append(cell_of(row, notes, best=row is not None and row is winner))
        grid.append(cells)
    for metric in metrics:
        column = [line.rows[metric.key] for line in lines if metric.key in line.rows]
        if not comparable(column):
            notes.mark(f"{metric.label}: the models were measured against different data, none is marked")
    heads = [Column("Model", "left"), *([Column("Sampler", "left")] if shown_samplers else [])]
    return Table(title, [*heads, *(Column(metric.head) for metric in metrics)], grid, notes.notes, _CAPTION)


_CAPTION = (
    "± is half the 95 % interval and sets the digits. Bold: the best of its column, "
    "where the lead over every other model exceeds the error of the lead."
)


def _once(rows: Sequence[Row]) -> list[Row]:
    """Drop repetitions of the same row, which stands on several lines of one model."""
    return list({id(row): row for row in rows}.values())
