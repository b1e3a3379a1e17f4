"""What stands beside the headline: columns explained, paired differences, provenance."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from lsgm.results.labels import estimator_label
from lsgm.results.metrics import metric_of
from lsgm.results.row import Row, row_id
from lsgm_reports.blocks import MISSING, Cell, Column, Footnotes, Table, cell_of, short
from lsgm_reports.read import grouped
from lsgm_reports.reproduce.apart import place_word
from lsgm_reports.tables.differences import is_quality_difference
from lsgm_reports.tables.headline import detail_rows, headline_rows, lines_of, metrics_of

__all__ = [
    "EVERY_ROW",
    "detail_explanations",
    "explained",
    "explanations",
    "paired_table",
    "provenance_table",
    "rows_table",
]


EVERY_ROW = "Every row"
"""Title of the table of `rows_table`, which is as long as the results are."""


def explanations(rows: Sequence[Row]) -> list[str]:
    """Return a line of Markdown per metric of the headline: what it is, over how many images, and remarks."""
    return _explanations(headline_rows(rows))


def detail_explanations(rows: Sequence[Row]) -> list[str]:
    """Return the same of the metrics of sample quality in detail."""
    return _explanations(detail_rows(rows))


def _explanations(chosen: Sequence[Row]) -> list[str]:
    shown = {id(row) for line in lines_of(chosen) for row in line.rows.values()}
    found = grouped((row for row in chosen if id(row) in shown), lambda row: row.metric)
    lines = []
    for metric in metrics_of(chosen):
        mine = found.get(metric.key, [])
        if measured := [row for row in mine if row.value is not None]:
            named = [(row.model, row) for row in measured]
            lines.append(explained(metric.head, metric.meaning or metric.key, named))
    return lines


def explained(head: str, meaning: str, named: Sequence[tuple[str, Row]]) -> str:
    """Return one line of an explanation: the meaning, how many images of which split, and the rows' remarks.

    A remark that all rows share stands once, another after the name that is given with its row.
    """
    rows = [row for _, row in named]
    parts = [f"**{head}**: {meaning}"]
    counts = _joined(row.counted for row in rows)
    splits = _joined(row.split for row in rows)
    if counts:
        parts.append(f"n = {counts}" + (f" (split {splits})" if splits else ""))
    return f"- {'. '.join([*parts, *_remarks(named)])}."


def _remarks(named: Sequence[tuple[str, Row]]) -> list[str]:
    """Return the parts of the rows' notes: those of every row, then each row's own."""
    noted = [(name, list(dict.fromkeys((row.note or "").split("; ")))) for name, row in named]
    counts = Counter(part for _, parts in noted for part in parts)
    shared = {part: None for part in noted[0][1] if part and counts[part] == len(noted)}
    own = []
    for name, parts in noted:
        if rest := [part for part in parts if part and part not in shared]:
            own.append(f"{name}: {', '.join(rest)}")
    if len(own) > _OWN:
        own = [f"{len(own)} rows have remarks of their own, which stand with them in results.csv"]
    return [*(part[:1].upper() + part[1:] for part in shared), *(["; ".join(own)] if own else [])]


_OWN = 6
"""Remarks of single rows that a reader still takes in; of more only the number is said."""


def paired_table(rows: Sequence[Row]) -> Table | None:
    """Return the differences of two models' bounds on the same images, or None where there are none."""
    paired = [row for row in rows if row.metric.startswith("paired_") and not is_quality_difference(row)]
    if not paired:
        return None
    notes = Footnotes()
    grid = []
    for row in paired:
        metric, difference = metric_of(row), cell_of(row, notes)
        if row.value is not None:  # such as that the two were not estimated alike
            difference = replace(difference, mark=notes.mark(row.note))
        label = metric.label.removeprefix("paired ")
        head = f"{label} ({metric.unit})" if metric.unit else label
        if row.sampler:
            head += f", {estimator_label(row.sampler)}"
        grid.append(
            [
                Cell(row.model),
                Cell(head),
                difference,
                Cell(_verdict(row)),
                Cell(row.counted or "not stated"),
            ]
        )
    columns = [Column("Models", "left"), Column("Difference of", "left"), Column("Difference")]
    columns += [Column("95 % interval", "left"), Column("n")]
    caption = "The same images under both models, so that what makes an image hard for both cancels."
    return Table("Paired differences", columns, grid, notes.notes, caption)


def _verdict(row: Row) -> str:
    if row.value is None or row.ci_low is None or row.ci_high is None:
        return "unknown"
    if not row.solved_finely:
        return "below the solver's error"
    return "contains 0" if row.ci_low <= 0 <= row.ci_high else "excludes 0"


def provenance_table(rows: Sequence[Row]) -> Table:
    """Return, model by model, checkpoint, bits that were scored, seeds, revision and run."""
    single = [row for row in rows if row.group != "reach" and not row.metric.startswith("paired_")]
    scored = any(row.levels_sha256 for row in single)
    grid = []
    for model, mine in grouped(single, lambda row: row.model).items():
        cells = [
            model,
            _joined(_short(row.checkpoint_sha256) for row in mine) or "none",
            *([_joined(_short(row.levels_sha256) for row in mine) or "none"] if scored else []),
            _joined(row.seeds for row in mine) or "none",
            _joined(_short(row.git_revision) for row in mine) or "unknown",
            _joined(row.run_id for row in mine) or "unknown",
        ]
        grid.append([Cell(text) for text in cells])
    heads = ["Model", "Checkpoint sha256", "Seeds", "Git revision", "Run"]
    if scored:
        heads.insert(2, "Bits scored sha256")
    return Table("Provenance", [Column(head, "left") for head in heads], grid)


def rows_table(rows: Sequence[Row], places: Sequence[str]) -> Table:
    """Return, row by row, its id and the manifest of the call that measured it, and how to measure it again.

    ``places`` names the file of each row as one types it in the folder of the report.
    """
    notes, grid = Footnotes(), []
    columns: dict[str, list[str]] = {"Task": [row.task for row in rows], "File": list(places)}
    several = {head: words for head, words in columns.items() if len(set(words)) > 1}
    for index, row in enumerate(rows):
        kept = Cell(row.manifest) if row.manifest else Cell(MISSING, mark=notes.mark(_NO_MANIFEST))
        words = [row_id(row), *(each[index] for each in several.values())]
        words += [row.model, row.metric, row.sampler or "none"]
        grid.append([*(Cell(word) for word in words), kept])
    heads = ["Row", *several, "Model", "Metric", "Sampler", "Manifest"]
    place = "FILE" if "File" in several else shlex.quote(place_word(places[0]))
    caption = f"`lsgm reproduce {place}#ROW` {_AGAIN}"
    return Table(EVERY_ROW, [Column(head, "left") for head in heads], grid, notes.notes, caption)


_NO_MANIFEST = "measured without a manifest: the command is put together from the row itself"
_AGAIN = (
    "in the folder of this report, with the id of a row, prints what must hold and what to type to measure "
    "it again, and does so with `--run`. A manifest is the file `manifests/MANIFEST.json` beside the rows."
)


def _short(sha: str | None) -> str | None:
    return short(sha) if sha else None


def _joined(words: Iterable[str | None]) -> str:
    return ", ".join(dict.fromkeys(word for word in words if word))
