"""Ablations: each factor's levels beside the bound and the distance, as table 6 of arXiv:2106.05931."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lsgm.results.metrics import Shown, named
from lsgm.results.row import Row
from lsgm_reports.blocks import MISSING, Cell, Column, Footnotes, Table, cell_of, hold_table
from lsgm_reports.paper.ruled import ruled, winner_of
from lsgm_reports.published import ABSENT, PublishedAblation, published_ablations
from lsgm_reports.tables.ablations import Ablation, Study, Variant
from lsgm_reports.tables.headline import headline_rows, metrics_of, units_of

__all__ = ["study_tables"]


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
