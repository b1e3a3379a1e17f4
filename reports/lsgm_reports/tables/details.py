"""What stands beside the headline: columns explained, differences of two models, provenance."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from lsgm.results.labels import estimator_label
from lsgm.results.metrics import metric_of, named
from lsgm.results.row import Row, row_id
from lsgm_reports.blocks import MISSING, Cell, Column, Footnotes, Table, cell_of, left, short
from lsgm_reports.digits import DOUBT
from lsgm_reports.read import grouped
from lsgm_reports.reproduce.apart import place_word
from lsgm_reports.tables.headline import detail_rows, headline_rows, lines_of, metrics_of

__all__ = [
    "EVERY_ROW",
    "detail_explanations",
    "difference_table",
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
    measured = [row for row in chosen if id(row) in shown and row.value is not None]
    found = grouped(measured, lambda row: row.metric)
    return [
        explained(metric.head, metric.meaning or metric.key, [(row.model, row) for row in found[metric.key]])
        for metric in metrics_of(chosen)
        if metric.key in found
    ]


def explained(head: str, meaning: str, called: Sequence[tuple[str, Row]]) -> str:
    """Return one line of an explanation: the meaning, how many images of which split, and the rows' remarks.

    A remark that all rows share stands once, another after what its row is ``called``.
    """
    parts = [f"**{head}**: {meaning}"]
    if counts := _joined(row.counted for _, row in called):
        splits = _joined(row.split for _, row in called)
        parts.append(f"n = {counts}" + (f" (split {splits})" if splits else ""))
    noted = [(name, list(dict.fromkeys((row.note or "").split("; ")))) for name, row in called]
    often = Counter(part for _, remarks in noted for part in remarks)
    shared = [part for part in noted[0][1] if part and often[part] == len(noted)]
    kept = [(name, [part for part in remarks if part and part not in shared]) for name, remarks in noted]
    own = [f"{name}: {', '.join(rest)}" for name, rest in kept if rest]
    if len(own) > _OWN:
        own = [f"{len(own)} rows have remarks of their own, which stand with them in results.csv"]
    parts += [part[:1].upper() + part[1:] for part in shared] + (["; ".join(own)] if own else [])
    return f"- {'. '.join(parts)}."


_OWN = 6
"""Remarks of single rows that a reader still takes in; of more only the number is said."""


def paired_table(rows: Sequence[Row]) -> Table | None:
    """Return the differences of two models' bounds on the same images, or None where there are none."""
    paired = [row for row in rows if row.metric.startswith("paired_") and not _of_quality(row)]
    caption = "The same images under both models, so that what makes an image hard for both cancels."
    return _differences("Paired differences", "95 % interval", paired, caption)


def difference_table(rows: Sequence[Row]) -> Table | None:
    """Return the differences of distances, first model minus second, or None where there are none.

    A difference is real where its 95 % interval excludes 0, also without what the biases may make of it.
    """
    caption = (
        "The first model minus the second, images of the same seeds against the same reference: below 0 the "
        "first is nearer to it. Real: the 95 % interval excludes 0, which chance alone does in 1 of 20 "
        "differences of equally good models, and the models' upward biases at this n do not differ by as "
        "much."
    )
    mine = [row for row in rows if _of_quality(row)]
    return _differences("Differences in sample quality", "Real", mine, caption)


def _of_quality(row: Row) -> bool:
    """Say whether a row compares two models' sample quality, and not their likelihoods."""
    return row.metric.startswith("paired_") and named(row.metric.removeprefix("paired_")) is not None


def _differences(title: str, verdict: str, rows: Sequence[Row], caption: str) -> Table | None:
    if not rows:
        return None
    notes, grid = Footnotes(), []
    for row in rows:
        metric, difference = metric_of(row), cell_of(row, notes)
        head, quality = metric.label.removeprefix("paired "), named(row.metric.removeprefix("paired_"))
        if quality is not None:
            head += "" if quality.official else f" ({quality.space})"
        else:
            head += f" ({metric.unit})" if metric.unit else ""
            head += f", {estimator_label(row.sampler)}" if row.sampler else ""
            if row.value is not None:  # such as that the two were not estimated alike
                difference = replace(difference, mark=notes.mark(row.note))
        said = _real(row) if quality else _excluded(row)
        grid.append([Cell(row.model), Cell(head), difference, Cell(said), Cell(row.counted or "not stated")])
    columns = [*left("Models", "Difference of"), Column("Difference"), *left(verdict), Column("n")]
    return Table(title, columns, grid, notes.notes, caption)


def _excluded(row: Row) -> str:
    if row.value is None or row.interval is None:
        return "unknown"
    if not row.solved_finely:
        return "below the solver's error"
    low, high = row.interval
    return "contains 0" if low <= 0 <= high else "excludes 0"


def _real(row: Row) -> str:
    if row.value is None or row.interval is None:
        return "unknown"
    low, high = row.interval
    if low <= 0 <= high:
        return "no: contains 0"
    shift = DOUBT * row.upward_bias
    return "yes" if (low > max(0.0, shift) or high < min(0.0, shift)) else "no verdict: may be bias"


def provenance_table(rows: Sequence[Row]) -> Table:
    """Return, model by model, checkpoint, bits that were scored, seeds, revision and run."""
    single = [row for row in rows if row.group != "reach" and not row.metric.startswith("paired_")]
    columns = [
        ("Checkpoint sha256", "none", lambda row: row.checkpoint_sha256 and short(row.checkpoint_sha256)),
        ("Bits scored sha256", "none", lambda row: row.levels_sha256 and short(row.levels_sha256)),
        ("Seeds", "none", lambda row: row.seeds),
        ("Git revision", "unknown", lambda row: row.git_revision and short(row.git_revision)),
        ("Run", "unknown", lambda row: row.run_id),
    ]
    if not any(row.levels_sha256 for row in single):
        del columns[1]
    grid = [
        [Cell(model), *(Cell(_joined(map(said, mine)) or absent) for _, absent, said in columns)]
        for model, mine in grouped(single, lambda row: row.model).items()
    ]
    return Table("Provenance", left("Model", *(head for head, _, _ in columns)), grid)


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
    return Table(EVERY_ROW, left(*heads), grid, notes.notes, caption)


_NO_MANIFEST = "measured without a manifest: the command is put together from the row itself"
_AGAIN = (
    "in the folder of this report, with the id of a row, prints what must hold and what to type to measure "
    "it again, and does so with `--run`. A manifest is the file `manifests/MANIFEST.json` beside the rows."
)


def _joined(words: Iterable[str | None]) -> str:
    return ", ".join(dict.fromkeys(word for word in words if word))
