"""What samples cost, as section 5 and table 9 of arXiv:2106.05931: evaluations and seconds beside FID."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lsgm_reports.costs import seconds_per_image
from lsgm_reports.digits import plain
from lsgm_reports.headline import headline_rows, lines_of
from lsgm_reports.likelihood import labels_of
from lsgm_reports.metrics import metric_of
from lsgm_reports.paper.ruled import (
    HERE,
    PROTOCOLS,
    fid_cell,
    fid_row,
    published_lines,
    ruled,
    scaled_cell,
    winner_of,
)
from lsgm_reports.published import DATASETS, Published
from lsgm_reports.rows import Row, grouped
from lsgm_reports.samplers import sampler_label
from lsgm_reports.table import Cell, Column, Footnotes, Table, cell_of

__all__ = ["BATCH", "sampling_table"]

BATCH = 16
"""Images whose seconds the paper states."""


@dataclass(frozen=True)
class _Drawn:
    """One model with one sampler."""

    label: str
    sampler: str
    nfe: Row | None
    """A row of the metric nfe, or a point of a curve."""
    seconds: Row | None
    """A row of the metric seconds_per_1000, or a point of a curve."""
    rows: dict[str, Row]


def sampling_table(
    rows: Sequence[Row], dataset: str, entries: Sequence[Published], *, recalled: bool
) -> Table | None:
    """Return evaluations, seconds and FID of measured samplers above published ones, or None without any.

    Of a model that was measured along a curve alone the point with the best distance is taken.
    """
    drawn = [*_settled(rows)]
    known = {each.label for each in drawn}
    drawn += [each for each in _on_curves(rows) if each.label not in known]
    if not drawn:
        return None
    notes = Footnotes()
    best = winner_of([fid_row(each.rows) for each in drawn])
    measured = [
        [
            Cell(each.label),
            Cell(HERE),
            _evaluations(each.nfe, notes),
            _seconds(each.seconds, notes),
            fid_cell(each.rows, notes, best),
            Cell(each.sampler),
        ]
        for each in drawn
    ]
    names = ("nfe", "seconds", "fid")
    published = published_lines(entries, names, ("nfe", "seconds"), recalled=recalled)
    columns = [Column("Model", "left"), Column("Kind", "left"), Column("NFE ↓"), Column("Seconds ↓")]
    columns += [Column("FID ↓"), Column("Measured with, or source", "left")]
    title = f"Sampling time and network evaluations on {DATASETS[dataset]}"
    return ruled(title, columns, measured, published, notes, f"{PROTOCOLS} {_COST}")


_COST = (
    f"NFE: evaluations of the score network per image. Seconds measured here are of {BATCH} images at the "
    "rate of the whole run, on its hardware; what the published ones are of stands with their source, and "
    "hardware alone may be most of a difference. – is not published there, or not verified."
)


def _settled(rows: Sequence[Row]) -> list[_Drawn]:
    """Return models with the samplers that their quality was measured with."""
    lines = lines_of([row for row in headline_rows(rows) if row.group in ("quality", "cost")])
    return [
        _Drawn(
            line.label,
            sampler_label(line.sampler),
            line.rows["nfe"],
            line.rows.get("seconds_per_1000"),
            line.rows,
        )
        for line in lines
        if line.sampler and "nfe" in line.rows
    ]


def _on_curves(rows: Sequence[Row]) -> list[_Drawn]:
    """Return each model's point of the best distance, of FID where that was measured."""
    measured = [row for row in rows if row.group == "curve" and row.value is not None]
    points = [row for row in measured if row.nfe_mean is not None]
    labels = labels_of(points)
    found = []
    for key, mine in grouped(points, lambda row: (row.model, row.checkpoint_sha256)).items():
        label = labels[key]
        metric = next((row.metric for row in mine if row.metric in ("fid", "fid_clean")), mine[0].metric)
        point = min((row for row in mine if row.metric == metric), key=lambda row: row.value or 0.0)
        lowest = f"the lowest {metric_of(point).label} of its curve"
        said = f"{sampler_label(point.sampler)}: {lowest}"
        found.append(_Drawn(label, said, point, point, {metric: point}))
    return found


def _evaluations(row: Row | None, notes: Footnotes) -> Cell:
    if row is None or row.group != "curve":
        return cell_of(row, notes)
    assert row.nfe_mean is not None
    return Cell(plain(row.nfe_mean), row=row, sort=row.nfe_mean)


def _seconds(row: Row | None, notes: Footnotes) -> Cell:
    if row is None or row.value is None:
        return cell_of(row, notes)
    if row.group != "curve":
        return scaled_cell(row, BATCH / 1000)
    each = seconds_per_image(row)
    if each is None or not math.isfinite(BATCH * each):
        return cell_of(None, notes)
    return Cell(plain(BATCH * each), row=row, sort=BATCH * each)
