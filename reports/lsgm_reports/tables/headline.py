"""The tables of measured models: headline, quality in detail, differences, and where numbers come from."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from lsgm.files.limits import CELLS
from lsgm.files.names import shown
from lsgm.results.labels import estimator_label, sampler_label
from lsgm.results.metrics import Shown, families, metric_of, named
from lsgm.results.row import GROUPS, Row, row_id
from lsgm_reports.blocks import MISSING, Cell, Column, Footnotes, Table, cell_of, hold_table, left, short
from lsgm_reports.digits import DOUBT, best_of, comparable
from lsgm_reports.read import grouped
from lsgm_reports.reproduce.apart import place_word


@dataclass(frozen=True)
class Line:
    """One model, with one sampler, as a line of the table."""

    label: str
    sampler: str | None
    rows: dict[str, Row]
    """Metric -> row; of several measurements of the same thing the last."""


def headline_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that are neither points of a curve, nor terms, differences or details of quality."""
    return _single(rows, detail=False)


def detail_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of sample quality beyond distances and class scores: precision, recall, and so on."""
    return _single(rows, detail=True)


def _single(rows: Sequence[Row], *, detail: bool) -> list[Row]:
    single = [row for row in rows if row.group not in ("curve", "reach", "terms")]
    found = [(row, named(row.metric)) for row in single if not row.metric.startswith("paired_")]
    return [
        row for row, name in found if (name is not None and not families()[name.family].headline) == detail
    ]


def metrics_of(rows: Sequence[Row]) -> list[Shown]:
    """Return the metrics that occur: quality by family, likelihood, cost, and else in the order of the file.

    Where one label would stand for several feature spaces, each says its own.
    """
    found: dict[str, tuple[tuple[int, int], Shown]] = {}
    for row in rows:
        name = named(row.metric)
        group = GROUPS.index(row.group) if row.group in GROUPS else len(GROUPS)
        rank = (group, list(families()).index(name.family) if name else 0)
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
        parts = _apart(name, mine, lambda row: row.checkpoint_sha256)
        for checkpoint, here in parts:
            label = f"{name} ({short(checkpoint, 8)})" if len(parts) > 1 else name
            lines.extend(_by_sampler(label, here))
    return lines


def _by_sampler(label: str, rows: Sequence[Row]) -> list[Line]:
    """Split into samplers; bounds, whose ``sampler`` is an estimator, stand on every line."""
    drawn = dict.fromkeys(row.sampler for row in rows if row.sampler and row.group in ("quality", "cost"))
    parts = dict(_apart(label, rows, lambda row: None if row.group == "likelihood" else row.sampler))
    if not drawn:
        parts = {None: [row for row in rows if row.group == "likelihood" or row.sampler is None]}
    return [Line(label, name, {row.metric: row for row in parts[name]}) for name in drawn or (None,)]


def _apart(
    name: str, rows: Sequence[Row], key: Callable[[Row], str | None]
) -> list[tuple[str | None, list[Row]]]:
    """Return the rows by a key, each part with those that have none, in their order."""
    own: dict[str | None, list[tuple[int, Row]]] = {}
    for place, row in enumerate(rows):
        own.setdefault(key(row) or None, []).append((place, row))
    shared = own.pop(None, [])
    CELLS.hold(f"the table of the model '{shown(name)[:80]}'", len(own) * len(shared))
    merged = {word: sorted([*mine, *shared], key=lambda pair: pair[0]) for word, mine in own.items()}
    return [(word, [row for _, row in pairs]) for word, pairs in (merged or {None: shared}).items()]


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
    columns = {
        key: [line.rows[key] for line in lines if key in line.rows] for key in (m.key for m in metrics)
    }
    best = [best_of(column) for column in columns.values()]
    winners = {id(row) for row in best if row is not None}
    others = _other_units(metrics, lines)
    shown = [metric for metric in metrics if metric not in others.values()]
    sampled = any(line.sampler for line in lines)

    def cell(line: Line, key: str) -> Cell:
        row = line.rows.get(key)
        other = cell(line, others[key].key) if key in others else None
        return replace(cell_of(row, notes, best=id(row) in winners), other=other)

    def column(metric: Shown) -> Column:
        other = column(others[metric.key]) if metric.key in others else None
        return Column(metric.head, unit=UNITS.get(metric.key.rpartition("_")[2], ""), other=other)

    grid = [
        [
            Cell(line.label),
            *([Cell(sampler_label(line.sampler))] if sampled else []),
            *(cell(line, metric.key) for metric in shown),
        ]
        for line in lines
    ]
    for metric in shown:
        if not comparable(columns[metric.key]):
            notes.mark(f"{metric.label}: the models were measured against different data, none is marked")
    caption = (
        "± is half the 95 % interval and sets the digits. Bold: the best of its column, where the lead over "
        "every other model exceeds the error of the lead."
    )
    if others:
        caption += f" {units_said(next(iter(others)).rpartition('_')[2])}"
    heads = left("Model", *(["Sampler"] if sampled else []))
    return Table(title, [*heads, *map(column, shown)], grid, notes.notes, caption)


def _other_units(metrics: Sequence[Shown], lines: Sequence[Line]) -> dict[str, Shown]:
    """Return the bounds of which every line has both units: the metric in the usual one -> in the other.

    A bound that some line has in the other unit alone keeps a column for each, so that no number is hidden.
    """
    known = {metric.key: metric for metric in metrics}
    found = {}
    for stem in dict.fromkeys(key.rpartition("_")[0] for key in known):
        rows = [row for line in lines for key, row in line.rows.items() if key.rpartition("_")[0] == stem]
        usual, other = (f"{stem}_{unit}" for unit in units_of(rows[0].dataset_name)) if rows else ("", "")
        both = usual in known and other in known
        if both and not any(other in line.rows and usual not in line.rows for line in lines):
            found[usual] = known[other]
    return found


UNITS = {"nats": "nats", "bpd": "bits/dim"}
"""Ends of the names of bounds, and what the units are called."""


def units_of(dataset: str) -> tuple[str, str]:
    """Return the units of a bound, ``nats`` and ``bpd``, first that in which the literature counts."""
    binary = dataset in ("glyphs", "mnist", "mnist-fixed", "omniglot", "omniglot-lake28")
    return ("nats", "bpd") if binary else ("bpd", "nats")


def units_said(unit: str) -> str:
    """Return in which unit a table shows bounds, and where the other is."""
    if unit == "nats":
        return "Bounds in nats per image, as usual for binary images; results.csv has bits/dim too."
    return "Bounds in bits per dimension, as usual for images of many levels; results.csv has nats too."


# What stands beside them: columns explained, and differences of two models


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
    if len(own) > 6:  # more than a reader takes in
        own = [f"{len(own)} rows have remarks of their own, which stand with them in results.csv"]
    parts += [part[:1].upper() + part[1:] for part in shared] + (["; ".join(own)] if own else [])
    return f"- {'. '.join(parts)}."


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


def quality_tables(rows: Sequence[Row]) -> list[Table]:
    """Return what stands below the headline on sample quality: details and differences."""
    return [table for table in (detail_table(rows), difference_table(rows)) if table is not None]


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
        said = _judged(row, quality=quality is not None)
        counted = Cell(row.counted or "not stated", sort=None if row.n is None else float(row.n))
        grid.append([Cell(row.model), Cell(head), difference, Cell(said), counted])
    columns = [*left("Models", "Difference of"), Column("Difference"), *left(verdict), Column("n")]
    return Table(title, columns, grid, notes.notes, caption)


def _judged(row: Row, *, quality: bool) -> str:
    """Return whether a difference excludes 0: of bounds by more than a solver's error, else than biases."""
    if row.value is None or row.interval is None:
        return "unknown"
    low, high = row.interval
    if not quality:
        outcome = "contains 0" if low <= 0 <= high else "excludes 0"
        return outcome if row.solved_finely else "below the solver's error"
    if low <= 0 <= high:
        return "no: contains 0"
    shift = DOUBT * row.upward_bias
    return "yes" if (low > max(0.0, shift) or high < min(0.0, shift)) else "no verdict: may be bias"


# Where the numbers come from

EVERY_ROW = "Every row"
"""Title of the table of `rows_table`, which is as long as the results are."""


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
    why = "measured without a manifest: no more is known of it than its own keys say"
    for index, row in enumerate(rows):
        kept = Cell(row.manifest) if row.manifest else Cell(MISSING, mark=notes.mark(why))
        words = [row_id(row), *(each[index] for each in several.values())]
        words += [row.model, row.metric, row.sampler or "none"]
        grid.append([*(Cell(word) for word in words), kept])
    heads = ["Row", *several, "Model", "Metric", "Sampler", "Manifest"]
    place = "FILE" if "File" in several else shlex.quote(place_word(places[0]))
    caption = (
        f"`lsgm reproduce {place}#ROW` in the folder of this report, with the id of a row, prints what must "
        "hold and what to type to measure it again, and does so with `--run`. A manifest is the file "
        "`manifests/MANIFEST.json` beside the rows."
    )
    return Table(EVERY_ROW, left(*heads), grid, notes.notes, caption)


def _joined(words: Iterable[str | None]) -> str:
    return ", ".join(dict.fromkeys(word for word in words if word))
