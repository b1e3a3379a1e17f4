"""Differences of two models' distances to the same reference, and whether they are real."""

from __future__ import annotations

from collections.abc import Sequence

from lsgm.results.metrics import metric_of, named
from lsgm.results.row import Row
from lsgm_reports.blocks import Cell, Column, Footnotes, Table, cell_of
from lsgm_reports.digits import DOUBT

__all__ = ["difference_table", "is_quality_difference"]


def is_quality_difference(row: Row) -> bool:
    """Say whether a row compares two models' sample quality, and not their likelihoods."""
    return row.metric.startswith("paired_") and named(row.metric.removeprefix("paired_")) is not None


def difference_table(rows: Sequence[Row]) -> Table | None:
    """Return the differences of distances, first model minus second, or None where there are none.

    A difference is real where its 95 % interval excludes 0, also without what the biases may make of it.
    """
    mine = [row for row in rows if is_quality_difference(row)]
    if not mine:
        return None
    notes = Footnotes()
    grid = [
        [
            Cell(row.model),
            Cell(_what(row)),
            cell_of(row, notes),
            Cell(_real(row)),
            Cell(row.counted or "not stated"),
        ]
        for row in mine
    ]
    columns = [Column("Models", "left"), Column("Difference of", "left"), Column("Difference")]
    columns += [Column("Real", "left"), Column("n")]
    return Table("Differences in sample quality", columns, grid, notes.notes, _CAPTION)


_CAPTION = (
    "The first model minus the second, images of the same seeds against the same reference: below 0 the "
    "first is nearer to it. Real: the 95 % interval excludes 0, which chance alone does in 1 of 20 "
    "differences of equally good models, and the models' upward biases at this n do not differ by as much."
)


def _what(row: Row) -> str:
    label = metric_of(row).label.removeprefix("paired ")
    found = named(row.metric.removeprefix("paired_"))
    return label if found is None or found.official else f"{label} ({found.space})"


def _real(row: Row) -> str:
    if row.value is None or row.interval is None:
        return "unknown"
    low, high = row.interval
    if low <= 0 <= high:
        return "no: contains 0"
    shift = DOUBT * row.upward_bias
    return "yes" if (low > max(0.0, shift) or high < min(0.0, shift)) else "no verdict: may be bias"
