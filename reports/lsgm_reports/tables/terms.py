"""Bounds taken apart: reconstruction, posterior entropy, cross entropy to the prior, both ends, and gain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lsgm.results.labels import estimator_label
from lsgm.results.metrics import BOUNDS, Term, term_of
from lsgm.results.row import Row
from lsgm_reports.blocks import MISSING, Cell, Column, Footnotes, Table, cell_of, hold_table
from lsgm_reports.digits import error_bar
from lsgm_reports.read import ranks
from lsgm_reports.tables.likelihood import labels_of

__all__ = ["TERMS", "decomposition_table", "group_table", "term_explanations"]

TERMS = {
    "reconstruction": "−log P(x | z), the nats that the decoder leaves to the pixels",
    "negative_entropy": "E log q(z | x), what the posterior knows of the latents",
    "cross_entropy": "E −log p(z), what the latents cost under the prior; of the score-matching bound "
    "without the ends of time",
    "terminal": "the end of time in the score-matching bound: KL of the diffused latents from the "
    "distribution that sampling starts from",
    "tail": "the lower end of time in the score-matching bound: from the smallest time's latents down to "
    "z_0, so that the bound is strict",
    "importance_gain": "by how much the importance-weighted bound is below the mean of its draws, at most 0",
}
"""Terms in the order of a table, and what they are."""

_ABSENT = "–"
_Key = tuple[str, str | None, str, str | None]
"""Model, checkpoint, bound, estimator."""


def _found(rows: Sequence[Row]) -> list[tuple[_Key, Term, Row]]:
    parts = [(row, term_of(row.metric)) for row in rows if row.group == "terms"]
    return [
        ((row.model, row.checkpoint_sha256, term.bound, row.sampler), term, row)
        for row, term in parts
        if term is not None
    ]


def _ordered(terms: Sequence[Term]) -> list[str]:
    names = dict.fromkeys(term.name for term in terms)
    return [*(name for name in TERMS if name in names), *(name for name in names if name not in TERMS)]


def _lines(keys: Sequence[_Key]) -> list[_Key]:
    """Return the lines of a table: by model in the order of the file, then NELBO, IW and ODE NLL."""
    models = ranks(key[:2] for key in keys)
    bounds = ranks([*BOUNDS, *(key[2] for key in keys)])
    return sorted(dict.fromkeys(keys), key=lambda key: (models[key[:2]], bounds[key[2]]))


def _head(key: _Key, labels: Mapping[tuple[str, str | None], str]) -> list[Cell]:
    model, checkpoint, bound, estimator = key
    return [Cell(labels[model, checkpoint]), Cell(BOUNDS.get(bound, bound)), Cell(estimator_label(estimator))]


def _named(name: str) -> str:
    return name.replace("_", " ").capitalize()


_COLUMNS = [Column("Model", "left"), Column("Bound", "left"), Column("Estimator", "left")]


def decomposition_table(rows: Sequence[Row]) -> Table | None:
    """Return the terms of every bound and their sum in nats per image, or None where none are known."""
    found = [(key, term, row) for key, term, row in _found(rows) if term.group is None]
    if not found:
        return None
    names, notes = _ordered([term for _, term, _ in found]), Footnotes()
    labels = labels_of([row for _, _, row in found])
    cells = {(key, term.name): row for key, term, row in found}
    bounds = {(row.model, row.checkpoint_sha256, row.metric, row.sampler): row for row in rows}
    grid = []
    lines = _lines([key for key, _, _ in found])
    hold_table("Terms of the bounds", len(lines), len(names))
    for key in lines:
        mine = [cells.get((key, name)) for name in names]
        shown = [Cell(_ABSENT) if row is None else cell_of(row, notes) for row in mine]
        model, checkpoint, bound, estimator = key
        whole = bounds.get((model, checkpoint, f"{bound}_nats", estimator))
        grid.append(
            [*_head(key, labels), *shown, _sum([row for row in mine if row is not None], whole, notes)]
        )
    columns = [*_COLUMNS, *(Column(_named(name)) for name in names), Column("Sum")]
    caption = (
        "Nats per image; KL = negative entropy + cross entropy + terminal + tail. – is no term of that "
        "bound. The error of a sum is that of the bound: its terms go up and down together."
    )
    return Table("Terms of the bounds", columns, grid, notes.notes, caption)


def _sum(terms: Sequence[Row], bound: Row | None, notes: Footnotes) -> Cell:
    values = [row.value for row in terms if row.value is not None]
    if len(values) < len(terms) or not math.isfinite(sum(values)):
        return Cell(MISSING, mark=notes.mark("a term is missing"))
    total, half = sum(values), None if bound is None else bound.half_width
    ends = (None, None) if half is None else (total - half, total + half)
    return Cell(error_bar(total, *ends), sort=total)


def group_table(rows: Sequence[Row]) -> Table | None:
    """Return the terms by latent groups in nats per image, or None where no term is split."""
    found = [(key, term, row) for key, term, row in _found(rows) if term.group is not None]
    if not found:
        return None
    names, notes = _ordered([term for _, term, _ in found]), Footnotes()
    labels = labels_of([row for _, _, row in found])
    cells = {(key, term.group, term.name): row for key, term, row in found}
    groups: dict[_Key, dict[str | None, None]] = {}
    for key, term, _ in found:
        groups.setdefault(key, {})[term.group] = None
    hold_table("Terms by latent groups", sum(map(len, groups.values())), len(names))
    grid = []
    for key in _lines([key for key, _, _ in found]):
        for group in groups[key]:
            values = [cells.get((key, group, name)) for name in names]
            shown = [Cell(_ABSENT) if row is None else cell_of(row, notes) for row in values]
            grid.append([*_head(key, labels), Cell(group or ""), *shown])
    columns = [*_COLUMNS, Column("Group", "left"), *(Column(_named(name)) for name in names)]
    caption = (
        "Nats per image. Group 0 is the first that the decoder reads, at the top; what belongs to the top "
        "scale as a whole stands under top."
    )
    return Table("Terms by latent groups", columns, grid, notes.notes, caption)


def term_explanations(rows: Sequence[Row]) -> list[str]:
    """Return a line of Markdown per term that occurs: what it is."""
    names = _ordered([term for _, term, _ in _found(rows)])
    return [f"- **{_named(name)}**: {TERMS[name]}." for name in names if name in TERMS]
