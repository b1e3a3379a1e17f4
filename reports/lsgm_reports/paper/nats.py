"""Likelihood of binary images in nats, as tables 4 (OMNIGLOT) and 5 (MNIST) of arXiv:2106.05931."""

from __future__ import annotations

from collections.abc import Sequence

from lsgm_reports.estimators import estimator_label
from lsgm_reports.likelihood import Estimate, estimates_of, winners_of
from lsgm_reports.metrics import BOUNDS
from lsgm_reports.paper.ruled import HERE, PROTOCOLS, published_lines, ruled
from lsgm_reports.published import DATASETS, Published
from lsgm_reports.rows import Row
from lsgm_reports.table import Cell, Column, Footnotes, Table, cell_of

__all__ = ["nats_table"]


def nats_table(
    rows: Sequence[Row], dataset: str, entries: Sequence[Published], *, recalled: bool
) -> Table | None:
    """Return every measured bound in nats above published ones, or None where none was measured.

    Bold: the lowest of its kind of bound, as in the likelihood table.
    """
    estimates = [estimate for estimate in estimates_of(rows) if "nats" in estimate.rows]
    if not estimates:
        return None
    notes = Footnotes()
    winners = {id(row) for row in winners_of(estimates, "nats")}
    measured = [
        [
            Cell(estimate.model),
            Cell(HERE),
            cell_of(estimate.rows["nats"], notes, best=id(estimate.rows["nats"]) in winners),
            Cell(_measured_with(estimate)),
        ]
        for estimate in estimates
    ]
    published = published_lines(entries, ("nats",), ("nats",), recalled=recalled)
    columns = [Column("Model", "left"), Column("Kind", "left"), Column("NLL (nats) ↓")]
    columns.append(Column("Measured with, or source", "left"))
    title, caption = f"Likelihood on {DATASETS[dataset]}", f"{PROTOCOLS} {_BOUNDS}"
    return ruled(title, columns, measured, published, notes, caption)


_BOUNDS = (
    "Nats per image; ≤ is a published bound, and every number measured here is one, by a flow to within its "
    "solver's error. Bounds of different kinds are not ranked, and published ones are of several; test sets "
    "and binarisation may differ, too."
)


def _measured_with(estimate: Estimate) -> str:
    row = estimate.rows["nats"]
    bound = BOUNDS.get(estimate.bound, estimate.bound)
    if row.value is None:
        return bound
    count = f"; n = {row.counted}" if row.n else ""
    return f"{bound}, {estimator_label(estimate.estimator)}{count}"
