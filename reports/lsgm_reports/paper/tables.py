"""The paper's tables with what was measured: likelihood, generative performance, and what samples cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lsgm.results.labels import estimator_label, sampler_label
from lsgm.results.metrics import BOUNDS, metric_of
from lsgm.results.row import Row
from lsgm_reports.blocks import COARSE, Cell, Footnotes, Table, cell_of
from lsgm_reports.digits import plain
from lsgm_reports.paper.ruled import compared, fid_cell, fid_row, published_lines, scaled_cell, winner_of
from lsgm_reports.paper.studies import Ablation, study_tables
from lsgm_reports.published import DATASETS, Published, edition_of, published, statement_on
from lsgm_reports.read import grouped
from lsgm_reports.tables.headline import Line, detail_rows, headline_rows, lines_of
from lsgm_reports.tables.likelihood import Estimate, estimates_of, labels_of, winners_of

__all__ = ["BATCH", "generative_table", "nats_table", "paper_tables", "sampling_table"]


# Likelihood of binary images in nats, as tables 4 (OMNIGLOT) and 5 (MNIST) of arXiv:2106.05931


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
        (
            estimate.model,
            [cell_of(row := estimate.rows["nats"], notes, best=id(row) in winners)],
            _measured_with(estimate),
        )
        for estimate in estimates
    ]
    published = published_lines(entries, ("nats",), ("nats",), recalled=recalled)
    title = f"Likelihood on {DATASETS[dataset]}"
    return compared(title, ["NLL (nats) ↓"], measured, published, notes, _BOUNDS)


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


# Generative performance: bits per dimension and FID side by side, as tables 2 and 3 of arXiv:2106.05931

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
    measured = [
        (
            line.label,
            [
                _bound_cell(bound, notes, best_bound),
                fid_cell(line.rows, notes, best_fid),
                *(_cell(line.rows.get(name), best[name], notes) for name in more),
            ],
            _measured_with_generative(line, bound),
        )
        for line, bound in zip(lines, bounds, strict=True)
    ]
    models = [entry for entry in entries if not entry.sampler]
    names = ("bits_per_dim", "fid")
    published = published_lines(models, (*names, *more), names, recalled=recalled)
    depth = ", 5 bits" if dataset == "celebahq256" else ""
    heads = [f"NLL (bits/dim{depth}) ↓", "FID ↓", *(_MORE[name] for name in more)]
    title = f"Generative performance on {DATASETS[dataset]}"
    return compared(title, heads, measured, published, notes, _FID)


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


def _measured_with_generative(line: Line, bound: Row | None) -> str:
    parts = [sampler_label(line.sampler)] if line.sampler else []
    for name, row in (("NLL", bound), ("FID", fid_row(line.rows))):
        if row is not None and row.value is not None and row.counted:
            parts.append(f"{name} of n = {row.counted}")
    return "; ".join(parts)


# What samples cost, as section 5 and table 9 of arXiv:2106.05931: evaluations and seconds beside FID

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
        (
            each.label,
            [_evaluations(each.nfe, notes), _seconds(each.seconds, notes), fid_cell(each.rows, notes, best)],
            each.sampler,
        )
        for each in drawn
    ]
    names = ("nfe", "seconds", "fid")
    published = published_lines(entries, names, ("nfe", "seconds"), recalled=recalled)
    title = f"Sampling time and network evaluations on {DATASETS[dataset]}"
    return compared(title, ["NFE ↓", "Seconds ↓", "FID ↓"], measured, published, notes, _COST)


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
    each = row.seconds_per_image
    if each is None or not math.isfinite(BATCH * each):
        return cell_of(None, notes)
    return Cell(plain(BATCH * each), row=row, sort=BATCH * each)


# Which of the paper's tables the rows of a report fill

_MAKERS = {
    "cifar10": (generative_table, sampling_table),
    "celebahq256": (generative_table, sampling_table),
    "omniglot": (nats_table,),
    "mnist": (nats_table,),
}


def paper_tables(
    rows: Sequence[Row], ablations: Sequence[Ablation], *, recalled: bool = False
) -> list[Table]:
    """Return the tables of arXiv:2106.05931 that these rows fill, task by task.

    Of data sets with published numbers those with published lines below a rule, and of any data the ablations
    whose models were measured; these models stand in their own tables alone. ``recalled`` adds numbers that
    were not looked up.
    """
    ablated = {model for ablation in ablations for model in ablation.models}
    tasks: dict[str, list[Row]] = {}
    for row in rows:
        tasks.setdefault(row.task, []).append(row)
    found = []
    for task, mine in tasks.items():
        kept = [row for row in mine if row.model not in ablated]
        tables = _published_tables(kept, recalled=recalled)
        for ablation in ablations:
            tables += study_tables(mine, ablation, recalled=recalled)
        found += [_titled(table, task) if len(tasks) > 1 else table for table in tables]
    return found


def _titled(table: Table, task: str) -> Table:
    return replace(table, title=f"{table.title} ({task})")


def _published_tables(rows: Sequence[Row], *, recalled: bool) -> list[Table]:
    """Return the tables of one task whose data set, or the one it is an edition of, has published numbers."""
    if not rows:
        return []
    dataset = rows[0].dataset_name
    of = edition_of(dataset)
    entries = [entry for entry in published() if entry.dataset == of]
    tables = [make(rows, of, entries, recalled=recalled) for make in _MAKERS.get(of, ())]
    shown = [_of_another(table, dataset, of, recalled=recalled) for table in tables if table is not None]
    copies = dict.fromkeys(name for row in rows if (name := _mirror(row)))
    said = "".join(f" {_COPY.format(name=name)}" for name in copies)
    return [replace(table, caption=f"{table.caption}{said}") for table in shown]


_COPY = "The images here are a mirror's, {name}, and may differ from the official ones."


def _mirror(row: Row) -> str:
    """Return name and version of data that came from a mirror, "" of others."""
    name, _, rest = (row.dataset or "").partition("@")
    version = rest.partition("@")[0]
    return f"`{name}@{version}`" if version.startswith("mirror") else ""


def _of_another(table: Table, dataset: str, of: str, *, recalled: bool) -> Table:
    """Return the table of an edition, which says that what was published is of other data."""
    if dataset == of:
        return table
    both = f"{dataset}, and published on {DATASETS[of]}, which is other data"
    title = table.title.replace(DATASETS[of], both)
    return replace(table, title=title, caption=f"{statement_on(dataset, recalled=recalled)} {table.caption}")
