"""The paper's tables with what was measured: likelihood, generative performance, and what samples cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lsgm.results.labels import estimator_label, sampler_label
from lsgm.results.metrics import BOUNDS, metric_of
from lsgm.results.row import Row
from lsgm_reports.blocks import COARSE, MISSING, Cell, Column, Footnotes, Table, cell_of, left
from lsgm_reports.digits import error_bar, plain
from lsgm_reports.paper.studies import Ablation, ruled, study_tables, winner_of
from lsgm_reports.published import DATASETS, KINDS, Published, edition_of, published, statement_on
from lsgm_reports.read import grouped
from lsgm_reports.tables.headline import detail_rows, headline_rows, lines_of
from lsgm_reports.tables.likelihood import estimates_of, labels_of, winners_of


@dataclass(frozen=True)
class _Filled:
    """One of the paper's tables as far as measured models fill it."""

    title: str
    columns: dict[str, str]
    """Published number, of `lsgm_reports.published.NUMBERS` -> the head of its column."""
    needs: tuple[str, ...]
    """Published entries stand below that have one of these."""
    measured: list[tuple[str, list[Cell], str]]
    """Model, a cell per column, and what it was measured with."""
    notes: Footnotes
    caption: str


# Likelihood of binary images in nats, as tables 4 (OMNIGLOT) and 5 (MNIST) of arXiv:2106.05931


def _nats(rows: Sequence[Row], dataset: str) -> _Filled:
    """Fill in every measured bound in nats. Bold: the lowest of its kind, as in the likelihood table."""
    estimates = [estimate for estimate in estimates_of(rows) if "nats" in estimate.rows]
    notes, winners = Footnotes(), {id(row) for row in winners_of(estimates, "nats")}
    measured = []
    for each in estimates:
        row = each.rows["nats"]
        said = BOUNDS.get(each.bound, each.bound)
        if row.value is not None:
            said += f", {estimator_label(each.estimator)}" + (f"; n = {row.counted}" if row.n else "")
        measured.append((each.model, [cell_of(row, notes, best=id(row) in winners)], said))
    caption = (
        "Nats per image; ≤ is a published bound, and every number measured here is one, by a flow to within "
        "its solver's error. Bounds of different kinds are not ranked, and published ones are of several; "
        "test sets and binarisation may differ, too."
    )
    return _Filled("Likelihood", {"nats": "NLL (nats) ↓"}, ("nats",), measured, notes, caption)


# Generative performance: bits per dimension and FID side by side, as tables 2 and 3 of arXiv:2106.05931

_ORDER = ("ode_nll", "nelbo", "iw")
"""Bounds by how near they are to what the paper prints: it takes the prior's density from the flow."""

_MORE = {"inception_score": "Inception Score ↑", "recall": "Recall ↑"}
"""Metrics that stand in later papers on these models, and here where they were measured."""

_FIDS = ("fid", "fid_clean")
"""Metrics that are FID, by either protocol."""


def _generative(rows: Sequence[Row], dataset: str) -> _Filled:
    """Fill in NLL (bits/dim) and FID.

    Of a model's bounds the one by the probability flow is taken, as in the paper, else the NELBO, else the
    importance-weighted one; a footnote says which. Inception Score and recall join where they were measured.
    """
    more = [name for name in _MORE if any(row.metric == name and row.value is not None for row in rows)]
    shown = [*headline_rows(rows), *(row for row in detail_rows(rows) if row.metric in more)]
    lines = lines_of([row for row in shown if row.group in ("quality", "likelihood")])
    notes, bounds = Footnotes(), [_first(line.rows, [f"{name}_bpd" for name in _ORDER]) for line in lines]
    best = [winner_of(bounds), winner_of([_first(line.rows, _FIDS) for line in lines])]
    best += [winner_of([line.rows.get(name) for line in lines]) for name in more]
    measured = []
    for line, bound in zip(lines, bounds, strict=True):
        cells = [_bound_cell(bound, notes, best[0]), _fid_cell(line.rows, notes, best[1])]
        others = zip(more, best[2:], strict=True)
        cells += [_cell(line.rows.get(name), winner, notes) for name, winner in others]
        said = [sampler_label(line.sampler)] if line.sampler else []
        for name, row in (("NLL", bound), ("FID", _first(line.rows, _FIDS))):
            if row is not None and row.value is not None and row.counted:
                said.append(f"{name} of n = {row.counted}")
        measured.append((line.label, cells, "; ".join(said)))
    depth = ", 5 bits" if dataset == "celebahq256" else ""
    columns = {"bits_per_dim": f"NLL (bits/dim{depth}) ↓", "fid": "FID ↓"}
    columns |= {name: _MORE[name] for name in more}
    caption = (
        "Published FID is of 50,000 samples; fewer raise it, and so may another resize or other weights. ≤ "
        "is a published bound; every NLL measured here is an upper bound, by the estimator of its footnote "
        "and, by a flow, to within its solver's error. – is not published there, or not verified."
    )
    return _Filled("Generative performance", columns, ("bits_per_dim", "fid"), measured, notes, caption)


def _first(rows: dict[str, Row], metrics: Sequence[str]) -> Row | None:
    """Return the row of the first of some metrics that was measured, else one that says why not."""
    found = [rows[metric] for metric in metrics if metric in rows]
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


def _fid_cell(rows: dict[str, Row], notes: Footnotes, winner: Row | None) -> Cell:
    """Return the FID of a line, or a gap that says which distance stands elsewhere in its place."""
    row = _first(rows, _FIDS)
    if row is None and any(metric.startswith("frechet_") for metric in rows):
        why = "no FID was measured: a distance in another feature space, as in the main table, is none"
        return Cell(MISSING, mark=notes.mark(why))
    cell = _cell(row, winner, notes)
    if row is not None and row.metric == "fid_clean" and row.value is not None:
        return replace(cell, mark=notes.mark("by clean-fid's protocol"))
    return cell


# What samples cost, as section 5 and table 9 of arXiv:2106.05931: evaluations and seconds beside FID

_BATCH = 16
"""Images whose seconds the paper states."""


def _sampling(rows: Sequence[Row], dataset: str) -> _Filled:
    """Fill in evaluations, seconds and FID of models with the samplers of their quality.

    Of a model that was measured along a curve alone the point with the best distance is taken.
    """
    # Label, sampler, rows of evaluations and of seconds, or a point of a curve for both, and all of the line.
    drawn: list[tuple[str, str, Row, Row | None, dict[str, Row]]] = []
    for line in lines_of([row for row in headline_rows(rows) if row.group in ("quality", "cost")]):
        if line.sampler and "nfe" in line.rows:
            seconds = line.rows.get("seconds_per_1000")
            drawn.append((line.label, sampler_label(line.sampler), line.rows["nfe"], seconds, line.rows))
    settled = {label for label, *_ in drawn}
    points = [row for row in rows if row.group == "curve" and None not in (row.value, row.nfe_mean)]
    labels = labels_of(points)
    for key, mine in grouped(points, lambda row: (row.model, row.checkpoint_sha256)).items():
        # FID where that was measured.
        metric = next((row.metric for row in mine if row.metric in _FIDS), mine[0].metric)
        point = min((row for row in mine if row.metric == metric), key=lambda row: row.number)
        said = f"{sampler_label(point.sampler)}: the lowest {metric_of(point).label} of its curve"
        if labels[key] not in settled:
            drawn.append((labels[key], said, point, point, {metric: point}))
    notes, best = Footnotes(), winner_of([_first(found, _FIDS) for *_, found in drawn])
    measured = []
    for label, said, nfe, spent, found in drawn:
        evaluations = cell_of(nfe, notes)
        if nfe.group == "curve" and nfe.nfe_mean is not None:
            evaluations = Cell(plain(nfe.nfe_mean), row=nfe, sort=nfe.nfe_mean)
        measured.append((label, [evaluations, _seconds(spent, notes), _fid_cell(found, notes, best)], said))
    title = "Sampling time and network evaluations"
    columns = {"nfe": "NFE ↓", "seconds": "Seconds ↓", "fid": "FID ↓"}
    caption = (
        f"NFE: evaluations of the score network per image. Seconds measured here are of {_BATCH} images at "
        "the rate of the whole run, on its hardware; what the published ones are of stands with their "
        "source, and hardware alone may be most of a difference. – is not published there, or not verified."
    )
    return _Filled(title, columns, ("nfe", "seconds"), measured, notes, caption)


def _seconds(row: Row | None, notes: Footnotes) -> Cell:
    """Return the seconds of `_BATCH` images, with their interval where the row is of seconds."""
    if row is None or row.value is None:
        return cell_of(row, notes)
    if row.group != "curve":
        factor = _BATCH / 1000
        value, *ends = (None if x is None else factor * x for x in (row.value, row.ci_low, row.ci_high))
        return Cell(error_bar(value or 0.0, *ends), row=row, sort=value)
    each = row.seconds_per_image
    if each is None or not math.isfinite(_BATCH * each):
        return cell_of(None, notes)
    return Cell(plain(_BATCH * each), row=row, sort=_BATCH * each)


# Which of the paper's tables the rows of a report fill, with what is published below a rule

_MAKERS = {
    "cifar10": (_generative, _sampling),
    "celebahq256": (_generative, _sampling),
    "omniglot": (_nats,),
    "mnist": (_nats,),
}
_PROTOCOLS = (
    "Above the rule: measured here. Below: as published, by the authors' code, budgets and protocols. Bold: "
    "the best of what was measured here, where its lead exceeds its error; nothing is ranked across the rule."
)


def paper_tables(
    rows: Sequence[Row], ablations: Sequence[Ablation], *, recalled: bool = False
) -> list[Table]:
    """Return the tables of arXiv:2106.05931 that these rows fill, task by task.

    Of data sets with published numbers those with published lines below a rule, and of any data the ablations
    whose models were measured; these models stand in their own tables alone. ``recalled`` adds numbers that
    were not looked up.
    """
    ablated = {model for ablation in ablations for model in ablation.models}
    tasks = grouped(rows, lambda row: row.task)
    found = []
    for task, mine in tasks.items():
        tables = _published_tables([row for row in mine if row.model not in ablated], recalled=recalled)
        for ablation in ablations:
            tables += study_tables(mine, ablation, recalled=recalled)
        several = f" ({task})" if len(tasks) > 1 else ""
        found += [replace(table, title=f"{table.title}{several}") for table in tables]
    return found


def _published_tables(rows: Sequence[Row], *, recalled: bool) -> list[Table]:
    """Return the tables of one task whose data set, or the one it is an edition of, has published numbers."""
    dataset = rows[0].dataset_name if rows else ""
    of = edition_of(dataset)
    filled = [made for make in _MAKERS.get(of, ()) if (made := make(rows, of)).measured]
    entries = [entry for entry in published() if entry.dataset == of]
    named, before, after = DATASETS.get(of, ""), "", ""
    if dataset != of:
        named = f"{dataset}, and published on {named}, which is other data"
        before = f"{statement_on(dataset, recalled=recalled)} "
    for name in dict.fromkeys((row.dataset or "").rpartition("@")[0] for row in rows):
        if name.partition("@")[2].startswith("mirror"):
            after += f" The images here are a mirror's, `{name}`, and may differ from the official ones."
    tables = []
    for made in filled:
        measured = [
            [Cell(label), Cell("measured here"), *cells, Cell(said)] for label, cells, said in made.measured
        ]
        heads = [*left("Model", "Kind"), *map(Column, made.columns.values())]
        columns = [*heads, *left("Measured with, or source")]
        below = _published_lines(entries, made, recalled=recalled)
        caption = f"{before}{_PROTOCOLS} {made.caption}{after}"
        tables.append(ruled(f"{made.title} on {named}", columns, measured, below, made.notes, caption))
    return tables


def _published_lines(entries: Sequence[Published], made: _Filled, *, recalled: bool) -> list[list[Cell]]:
    """Return model, kind, numbers and source of the entries that a table is about."""
    lines = []
    for entry in entries:
        cells = {name: entry.cell(name, recalled=recalled) for name in {*made.columns, *made.needs}}
        # One that is about a sampler belongs to tables of cost alone.
        if any(cells[name].mark for name in made.needs) and not (entry.sampler and "nfe" not in made.columns):
            timed = "seconds" in cells and cells["seconds"].mark
            size = entry.cell("parameters", recalled=recalled)
            parts = [entry.source, entry.protocol, f"{size.text} parameters" if size.mark else ""]
            source = "; ".join(part for part in [*parts, entry.timed if timed else ""] if part)
            numbers = [cells[name] for name in made.columns]
            lines.append([Cell(entry.label), Cell(KINDS[entry.kind]), *numbers, Cell(source)])
    return lines
