"""What samples cost, as section 5 and table 9 of arXiv:2106.05931: evaluations and seconds beside FID."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lsgm.results.labels import sampler_label
from lsgm.results.metrics import Shown, metric_of, named
from lsgm.results.row import Row
from lsgm_reports.blocks import MISSING, Cell, Column, Footnotes, Table, cell_of, hold_table
from lsgm_reports.digits import plain
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
from lsgm_reports.published import ABSENT, DATASETS, Published, PublishedAblation, published_ablations
from lsgm_reports.read import grouped
from lsgm_reports.tables.ablations import Ablation, Study, Variant
from lsgm_reports.tables.headline import headline_rows, lines_of, metrics_of, units_of
from lsgm_reports.tables.likelihood import labels_of

__all__ = ["BATCH", "sampling_table", "study_tables"]

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
    each = row.seconds_per_image
    if each is None or not math.isfinite(BATCH * each):
        return cell_of(None, notes)
    return Cell(plain(BATCH * each), row=row, sort=BATCH * each)


# Ablations: each factor's levels beside the bound and the distance, as table 6 of arXiv:2106.05931


@dataclass(frozen=True)
class _Words:
    """What is said of a study of the paper."""

    title: str
    paper: str
    """What the paper found, and whether its numbers are shown."""


_STUDIES = {
    "sde-weighting-importance": _Words(
        "SDE, weighting and importance sampling",
        "Table 6 of arXiv:2106.05931 is this grid on other images; none of its numbers is verified, so none "
        "is shown. What is reported of it: the geometric SDE with the likelihood weighting has the best "
        "bound, the other weightings have the best FID, and the variance-exploding SDE is unstable.",
    ),
    "frozen": _Words(
        "VAE trained with the prior, or frozen",
        "Published FID is of other images and larger networks: which of the two is lower may be compared, by "
        "how much may not.",
    ),
    "mixed-score": _Words(
        "With and without the mixed score",
        "Published FID is of other images and larger networks: which of the two is lower may be compared, by "
        "how much may not.",
    ),
}
_LEVELS = {
    ("sde", "vp"): "VP",
    ("sde", "geometric"): "geometric VP",
    ("sde", "ve"): "VE",
    ("weighting", "ll"): "likelihood (ll)",
    ("weighting", "un"): "unweighted (un)",
    ("weighting", "re"): "reweighted (re)",
}
_CAPTION = (
    "Every line is one training run of the recipe {recipe}, all with the same budget, seeds, images and "
    "networks. ± is half the 95 % interval over images: what another seed of the training changes is not in "
    "it. Bold: the best of its column, where the lead over every other run exceeds the error of the lead."
)


def study_tables(rows: Sequence[Row], ablation: Ablation, *, recalled: bool) -> list[Table]:
    """Return a table per study of which rows of one task measure a model."""
    return [
        table
        for study in ablation.studies
        if (table := _study_table(rows, ablation, study, recalled=recalled)) is not None
    ]


def _study_table(rows: Sequence[Row], ablation: Ablation, study: Study, *, recalled: bool) -> Table | None:
    models = {variant.model for variant in study.variants}
    mine = [row for row in headline_rows(rows) if row.model in models and _is_shown(row)]
    if not mine:
        return None
    notes = Footnotes()
    metrics = sorted(metrics_of(mine), key=lambda metric: not metric.key.startswith("nelbo"))
    hold_table(f"Ablation: {study.name}", len(study.variants), len(metrics) + len(study.factors))
    cells = {(row.model, row.metric): row for row in mine}
    best = {
        metric.key: winner_of([cells.get((variant.model, metric.key)) for variant in study.variants])
        for metric in metrics
    }
    published = [entry for entry in published_ablations() if entry.study == study.name]
    lines = [_published_line(entry, study, len(metrics), recalled=recalled) for entry in published]
    below = [line for line in lines if line is not None]
    measured = [
        [
            *_level_cells(variant.levels, study),
            *(_number(variant, metric, cells, best[metric.key], notes) for metric in metrics),
            *([Cell(ABSENT)] if below else []),
            Cell(variant.model, mark=notes.mark(variant.note)),
        ]
        for variant in study.variants
    ]
    columns = [Column(_capital(factor), "left") for factor in study.factors]
    columns += [Column(metric.head) for metric in metrics]
    columns += [*([Column("FID, as published ↓")] if below else []), Column("Run, or source", "left")]
    words = _STUDIES.get(study.name, _Words(_capital(study.name.replace("-", " ")), ""))
    caption = f"{_CAPTION.format(recipe=ablation.recipe)} {words.paper}".strip()
    return ruled(f"Ablation: {words.title}", columns, measured, below, notes, caption)


def _is_shown(row: Row) -> bool:
    """Say whether a row is a NELBO in the unit of its data set's literature, or a distance of samples."""
    name = named(row.metric)
    return row.metric == f"nelbo_{units_of(row.dataset_name)[0]}" or (
        name is not None and name.family == "frechet"
    )


def _number(
    variant: Variant,
    metric: Shown,
    cells: dict[tuple[str, str], Row],
    best: Row | None,
    notes: Footnotes,
) -> Cell:
    row = cells.get((variant.model, metric.key))
    if row is None and variant.failed:
        return Cell(MISSING, mark=notes.mark(f"failed: {variant.failed}"))
    return cell_of(row, notes, best=row is not None and row is best)


def _published_line(
    entry: PublishedAblation, study: Study, metrics: int, *, recalled: bool
) -> list[Cell] | None:
    """Return the line of a published number; None where it may not be shown, or is of other factors."""
    fid = entry.cell(recalled=recalled)
    if not fid.mark or len(entry.levels) != len(study.factors):
        return None
    gaps = [Cell(ABSENT)] * metrics
    return [*_level_cells(entry.levels, study), *gaps, fid, Cell(f"{entry.source}: {entry.data}")]


def _level_cells(levels: Sequence[str], study: Study) -> list[Cell]:
    pairs = zip(study.factors, levels, strict=True)
    return [Cell(_LEVELS.get((factor, level), level)) for factor, level in pairs]


def _capital(text: str) -> str:
    return "SDE" if text == "sde" else text[:1].upper() + text[1:]
