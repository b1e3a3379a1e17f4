"""Generative performance: bits per dimension and FID side by side, as tables 2 and 3 of arXiv:2106.05931."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lsgm_reports.estimators import estimator_label
from lsgm_reports.headline import Line, detail_rows, headline_rows, lines_of
from lsgm_reports.metrics import BOUNDS
from lsgm_reports.paper.ruled import HERE, PROTOCOLS, fid_cell, fid_row, published_lines, ruled, winner_of
from lsgm_reports.published import DATASETS, Published
from lsgm_reports.rows import Row
from lsgm_reports.samplers import sampler_label
from lsgm_reports.table import COARSE, Cell, Column, Footnotes, Table, cell_of

__all__ = ["generative_table"]

_ORDER = ("ode_nll", "nelbo", "iw")
"""Bounds by how near they are to what the paper prints: it takes the prior's density from the flow."""

_MORE = {"inception_score": "Inception Score ↑", "recall": "Recall ↑"}
"""Metrics that stand in later papers on these models, and here where they were measured."""


def generative_table(
    rows: Sequence[Row], dataset: str, entries: Sequence[Published], *, recalled: bool
) -> Table | None:
    """Return NLL (bits/dim) and FID of measured models above published ones, or None without any.

    Of a model's bounds the one by the probability flow is taken, as in the paper, else the NELBO, else the
    importance-weighted one; a footnote says which. Inception Score and recall join where they were measured.
    """
    more = [name for name in _MORE if any(row.metric == name and row.value is not None for row in rows)]
    shown = [*headline_rows(rows), *(row for row in detail_rows(rows) if row.metric in more)]
    lines = lines_of([row for row in shown if row.group in ("quality", "likelihood")])
    if not lines:
        return None
    notes = Footnotes()
    bounds = [_bound(line) for line in lines]
    best_bound, best_fid = winner_of(bounds), winner_of([fid_row(line.rows) for line in lines])
    best = {name: winner_of([line.rows.get(name) for line in lines]) for name in more}
    measured = []
    for line, bound in zip(lines, bounds, strict=True):
        others = [_cell(line.rows.get(name), best[name], notes) for name in more]
        numbers = [_bound_cell(bound, notes, best_bound), fid_cell(line.rows, notes, best_fid), *others]
        measured.append([Cell(line.label), Cell(HERE), *numbers, Cell(_measured_with(line, bound))])
    models = [entry for entry in entries if not entry.sampler]
    names = ("bits_per_dim", "fid")
    published = published_lines(models, (*names, *more), names, recalled=recalled)
    depth = ", 5 bits" if dataset == "celebahq256" else ""
    columns = [Column("Model", "left"), Column("Kind", "left")]
    columns += [Column(f"NLL (bits/dim{depth}) ↓"), Column("FID ↓"), *(Column(_MORE[name]) for name in more)]
    columns.append(Column("Measured with, or source", "left"))
    title = f"Generative performance on {DATASETS[dataset]}"
    return ruled(title, columns, measured, published, notes, f"{PROTOCOLS} {_FID}")


_FID = (
    "Published FID is of 50,000 samples; fewer raise it, and so may another resize or other weights. ≤ is a "
    "published bound; every NLL measured here is an upper bound, by the estimator of its footnote and, "
    "by a flow, to within its solver's error. – is not published there, or not verified."
)


def _bound(line: Line) -> Row | None:
    found = [row for name in _ORDER if (row := line.rows.get(f"{name}_bpd")) is not None]
    return next((row for row in found if row.value is not None), found[0] if found else None)


def _cell(row: Row | None, winner: Row | None, notes: Footnotes) -> Cell:
    return cell_of(row, notes, best=row is not None and row is winner)


def _bound_cell(row: Row | None, notes: Footnotes, winner: Row | None) -> Cell:
    cell = _cell(row, winner, notes)
    if row is None or row.value is None:
        return cell
    said = f"{BOUNDS[row.metric.removesuffix('_bpd')]}: {estimator_label(row.sampler)}"
    said += "" if row.solved_finely else f"; {COARSE}"
    return replace(cell, mark=notes.mark(said))


def _measured_with(line: Line, bound: Row | None) -> str:
    parts = [sampler_label(line.sampler)] if line.sampler else []
    for name, row in (("NLL", bound), ("FID", fid_row(line.rows))):
        if row is not None and row.value is not None and row.counted:
            parts.append(f"{name} of n = {row.counted}")
    return "; ".join(parts)
