"""The headline table: models as lines, metrics as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lsgm_reports.best import best_of, comparable
from lsgm_reports.metrics import GROUPS, Metric, metric_of
from lsgm_reports.rows import Row
from lsgm_reports.samplers import sampler_label
from lsgm_reports.table import Cell, Column, Footnotes, Table, cell_of, short

__all__ = ["Line", "headline", "headline_rows", "lines_of", "metrics_of"]


@dataclass(frozen=True)
class Line:
    """One model, with one sampler, as a line of the table."""

    label: str
    sampler: str | None
    rows: dict[str, Row]
    """Metric -> row; of several measurements of the same thing the last."""


def headline_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that are neither points of a curve, nor terms of a bound, nor differences of models."""
    return [
        row for row in rows if row.group not in ("curve", "terms") and not row.metric.startswith("paired_")
    ]


def metrics_of(rows: Sequence[Row]) -> list[Metric]:
    """Return the metrics that occur: quality, likelihood, cost, and in the order of the file within each."""
    found: dict[str, tuple[int, Metric]] = {}
    for row in rows:
        rank = GROUPS.index(row.group) if row.group in GROUPS else len(GROUPS)
        known = found.get(row.metric)
        # A row without a value may not know in which direction its metric is better.
        if known is None or (known[1].higher_is_better is None and row.higher_is_better is not None):
            found[row.metric] = (rank, metric_of(row))
    return [metric for _, metric in sorted(found.values(), key=lambda pair: pair[0])]


def lines_of(rows: Sequence[Row]) -> list[Line]:
    """Return one line per model; per checkpoint or sampler where a model has several of them."""
    lines: list[Line] = []
    names = list(dict.fromkeys(row.model for row in rows))
    for name in names:
        mine = [row for row in rows if row.model == name]
        checkpoints: list[str | None] = list(
            dict.fromkeys(row.checkpoint_sha256 for row in mine if row.checkpoint_sha256)
        )
        for checkpoint in checkpoints or [None]:
            here = [row for row in mine if row.checkpoint_sha256 in (checkpoint, None)]
            label = f"{name} ({short(checkpoint, 8)})" if len(checkpoints) > 1 else name
            lines.extend(_by_sampler(label, here))
    return lines


def _by_sampler(label: str, rows: Sequence[Row]) -> list[Line]:
    """Split into samplers; bounds, whose ``sampler`` is an estimator, stand on every line."""
    drawn = [row for row in rows if row.group in ("quality", "cost")]
    samplers: list[str | None] = list(dict.fromkeys(row.sampler for row in drawn if row.sampler)) or [None]
    lines = []
    for sampler in samplers:
        kept = [row for row in rows if row.group == "likelihood" or row.sampler in (sampler, None)]
        lines.append(Line(label, sampler, {row.metric: row for row in kept}))
    return lines


def headline(rows: Sequence[Row], title: str) -> Table:
    """Return the table of one task; the best of a column is marked where its lead exceeds its error."""
    chosen = headline_rows(rows)
    metrics, lines, notes = metrics_of(chosen), lines_of(chosen), Footnotes()
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
