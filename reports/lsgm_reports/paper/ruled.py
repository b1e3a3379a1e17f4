"""What the paper's tables share: measured above a rule, published below, no ranking over both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lsgm.results.row import Row
from lsgm_reports.blocks import MISSING, Cell, Column, Footnotes, Table, cell_of, left
from lsgm_reports.digits import best_of, error_bar
from lsgm_reports.published import EVIDENCE, KINDS, Published

__all__ = [
    "compared",
    "fid_cell",
    "fid_row",
    "published_lines",
    "ruled",
    "scaled_cell",
    "winner_of",
]

_HERE = "measured here"
"""What stands for the kind of a measured model, which its rows do not say."""

_PROTOCOLS = (
    "Above the rule: measured here. Below: as published, by the authors' code, budgets and protocols. Bold: "
    "the best of what was measured here, where its lead exceeds its error; nothing is ranked across the rule."
)

_FIDS = ("fid", "fid_clean")
"""Metrics that are FID, by either protocol."""


def compared(
    title: str,
    heads: Sequence[str],
    measured: Sequence[tuple[str, Sequence[Cell], str]],
    published: list[list[Cell]],
    notes: Footnotes,
    caption: str,
) -> Table:
    """Return the table of measured models, (name, numbers, measured with), above published lines."""
    lines = [[Cell(label), Cell(_HERE), *numbers, Cell(said)] for label, numbers, said in measured]
    columns = [*left("Model", "Kind"), *map(Column, heads), *left("Measured with, or source")]
    return ruled(title, columns, lines, published, notes, f"{_PROTOCOLS} {caption}")


def ruled(
    title: str,
    columns: Sequence[Column],
    measured: list[list[Cell]],
    published: list[list[Cell]],
    notes: Footnotes,
    caption: str,
) -> Table:
    """Return the table of both, with the rule between them and what the marks of published numbers mean."""
    marks = {cell.mark for line in published for cell in line}
    meanings = [(mark, note) for mark, note in EVIDENCE.values() if mark in marks]
    rules = [len(measured)] if measured and published else []
    return Table(title, list(columns), [*measured, *published], [*notes.notes, *meanings], caption, rules)


def published_lines(
    entries: Sequence[Published], names: Sequence[str], needs: Sequence[str], *, recalled: bool
) -> list[list[Cell]]:
    """Return model, kind, the numbers of these names and the source of the entries that a table is about.

    Those are entries of which one of ``needs`` may be shown, from memory where ``recalled`` asks for it.
    """
    lines = []
    for entry in entries:
        cells = {name: entry.cell(name, recalled=recalled) for name in {*names, *needs}}
        if any(cells[name].mark for name in needs):
            timed = "seconds" in names and cells["seconds"].mark
            source = Cell(_source(entry, timed=bool(timed), recalled=recalled))
            lines.append(
                [Cell(entry.label), Cell(KINDS[entry.kind]), *(cells[name] for name in names), source]
            )
    return lines


def _source(entry: Published, *, timed: bool, recalled: bool) -> str:
    """Return where an entry is stated and what else must be known to read its numbers."""
    size = entry.cell("parameters", recalled=recalled)
    parts = [entry.source, entry.protocol, f"{size.text} parameters" if size.mark else ""]
    return "; ".join(part for part in [*parts, entry.timed if timed else ""] if part)


def fid_row(rows: dict[str, Row]) -> Row | None:
    """Return the FID of a line's metrics: one that was measured, else one that says why not."""
    found = [rows[metric] for metric in _FIDS if metric in rows]
    return next((row for row in found if row.value is not None), found[0] if found else None)


def fid_cell(rows: dict[str, Row], notes: Footnotes, winner: Row | None) -> Cell:
    """Return the FID of a line, or a gap that says which distance stands elsewhere in its place."""
    row = fid_row(rows)
    if row is None:
        others = [metric for metric in rows if metric.startswith("frechet_")]
        why = "no FID was measured: a distance in another feature space, as in the main table, is none"
        return Cell(MISSING, mark=notes.mark(why if others else "not measured"))
    cell = cell_of(row, notes, best=row is winner)
    if row.metric == "fid_clean" and row.value is not None:
        return replace(cell, mark=notes.mark("by clean-fid's protocol"))
    return cell


def winner_of(rows: Sequence[Row | None]) -> Row | None:
    """Return the best of a column's rows, where all that have a value are of one metric."""
    found = [row for row in rows if row is not None and row.value is not None]
    return best_of(found) if len({row.metric for row in found}) == 1 else None


def scaled_cell(row: Row, factor: float) -> Cell:
    """Return a measured number and its interval times a factor: seconds of other numbers of images."""
    assert row.value is not None
    ends = (row.ci_low, row.ci_high)
    low, high = (None if end is None else factor * end for end in ends)
    return Cell(error_bar(factor * row.value, low, high), row=row, sort=factor * row.value)
