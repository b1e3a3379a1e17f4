"""Ablations: each factor's levels beside the bound and the distance, as table 6 of arXiv:2106.05931."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lsgm.config import require
from lsgm.errors import ConfigError, DataError
from lsgm.files.names import brief, shown
from lsgm.files.regular import present
from lsgm.files.text import read_table
from lsgm.results.metrics import named
from lsgm.results.row import Row
from lsgm.structure import from_dict
from lsgm_reports.blocks import MISSING, Cell, Column, Footnotes, Table, cell_of, hold_table, left
from lsgm_reports.digits import best_of
from lsgm_reports.published import ABSENT, EVIDENCE, published_ablations
from lsgm_reports.tables.headline import headline_rows, metrics_of, units_of

# ``ablation.json`` beside the rows: which model has which level of which factor, and what failed

FILE_NAME = "ablation.json"
_FORMAT = 1
_NOTE = "note"
_REPAIR = "run `lsgm ablate` again, or repair it"
_LONGEST = 1_000
"""Letters of a text."""


def _require_short(*texts: str) -> None:
    for text in texts:
        long = f"{brief(text)} is {len(text):,} letters long, and at most {_LONGEST:,} are read"
        require(len(text) <= _LONGEST, long)


def _require_few(name: str, count: int, most: int) -> None:
    require(count <= most, f"it has {count:,} {name}, and at most {most:,} are read")


@dataclass(frozen=True)
class Study:
    """Models that differ in some factors and in nothing else."""

    name: str
    factors: tuple[str, ...]
    models: dict[str, dict[str, str]]
    """Model, as rows name it -> its level of each factor, and its ``note`` if there is one."""
    failed: dict[str, str]
    """Model -> why there is none, in words."""

    def __post_init__(self) -> None:
        _require_few("factors", len(self.factors), 50)
        _require_few("models", len(self.models), 10_000)
        require(bool(self.name), "'name' is empty; name the study")
        require(bool(self.factors), "'factors' is empty; name one at least")
        known = {*self.factors, _NOTE}
        require(len(known) == len(self.factors) + 1, "'factors' repeats itself or has a factor called note")
        require(bool(self.models), "'models' names no model")
        _require_short(self.name, *self.factors, *self.models, *self.failed.values())
        for model, levels in self.models.items():
            _require_short(*levels.values())
            missing = [factor for factor in self.factors if not levels.get(factor)]
            require(not missing, f"model {brief(model)} has no level of {brief((missing or [''])[0])}")
            unknown = [key for key in levels if key not in known]
            require(
                not unknown, f"model {brief(model)} has {brief((unknown or [''])[0])}, which is no factor"
            )
        for model, why in self.failed.items():
            require(bool(why), f"'failed' gives no reason for {brief(model)}")
            require(model in self.models, f"{brief(model)} failed and is not among its models")


@dataclass(frozen=True)
class Ablation:
    """The studies of one recipe."""

    title: str
    recipe: str
    studies: tuple[Study, ...]

    def __post_init__(self) -> None:
        require(bool(self.title) and bool(self.recipe), "'title' or 'recipe' is empty; name both")
        _require_short(self.title, self.recipe)
        _require_few("studies", len(self.studies), 100)

    @property
    def models(self) -> set[str]:
        """The models of all studies."""
        return {model for study in self.studies for model in study.models}


def find_ablations(results: Sequence[Path]) -> list[Ablation]:
    """Return what lies beside result files, each folder's once; DataError as `read_ablation`."""
    folders = dict.fromkeys(file.parent for file in results)
    return [read_ablation(path) for folder in folders if present(path := folder / FILE_NAME)]


def read_ablation(path: Path) -> Ablation:
    """Return the ablation that a file describes.

    Raises DataError naming the file where it is no JSON, of another format, has a key too many or too few, a
    model without a level of some factor, or a failure of a model that the study does not have.
    """
    given, place = read_table(path, repair=_REPAIR), shown(str(path))
    if (version := given.pop("format", None)) != _FORMAT:
        raise DataError(f"{place} has format {brief(version)}, and this version reads {_FORMAT}; update one")
    try:
        return from_dict(Ablation, given, place, null=True)
    except ConfigError as error:
        raise DataError(f"{error}; {_REPAIR}") from None


# The tables of studies


_TRANSFER = (
    "Published FID is of other images and larger networks: which of the two is lower may be compared, by how "
    "much may not."
)
_STUDIES = {
    "sde-weighting-importance": (
        "SDE, weighting and importance sampling",
        "Table 6 of arXiv:2106.05931 is this grid on other images; none of its numbers is verified, so none "
        "is shown. What is reported of it: the geometric SDE with the likelihood weighting has the best "
        "bound, the other weightings have the best FID, and the variance-exploding SDE is unstable.",
    ),
    "frozen": ("VAE trained with the prior, or frozen", _TRANSFER),
    "mixed-score": ("With and without the mixed score", _TRANSFER),
}
"""Studies of the paper: title, and what the paper found and whether its numbers are shown."""
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
    # The NELBO in the unit of its data set's literature, and distances of samples.
    mine = [row for row in headline_rows(rows) if row.model in study.models]
    bounds = {f"nelbo_{units_of(row.dataset_name)[0]}" for row in mine}
    distances = {row.metric for row in mine if (name := named(row.metric)) and name.family == "frechet"}
    mine = [row for row in mine if row.metric in bounds | distances]
    if not mine:
        return None
    notes = Footnotes()
    metrics = sorted(metrics_of(mine), key=lambda metric: not metric.key.startswith("nelbo"))
    hold_table(f"Ablation: {study.name}", len(study.models), len(metrics) + len(study.factors))
    found = {(row.model, row.metric): row for row in mine}
    best = {
        metric.key: winner_of([found.get((model, metric.key)) for model in study.models])
        for metric in metrics
    }

    def number(model: str, metric: str) -> Cell:
        row = found.get((model, metric))
        if row is None and model in study.failed:
            return Cell(MISSING, mark=notes.mark(f"failed: {study.failed[model]}"))
        return cell_of(row, notes, best=row is not None and row is best[metric])

    # Published numbers that may be shown, and are of the same factors.
    below = [
        [
            *_level_cells(entry.levels, study),
            *([Cell(ABSENT)] * len(metrics)),
            fid,
            Cell(f"{entry.source}: {entry.data}"),
        ]
        for entry in published_ablations()
        if entry.study == study.name and len(entry.levels) == len(study.factors)
        if (fid := entry.cell("fid", recalled=recalled)).mark
    ]
    measured = [
        [
            *_level_cells([levels[factor] for factor in study.factors], study),
            *(number(model, metric.key) for metric in metrics),
            *([Cell(ABSENT)] if below else []),
            Cell(model, mark=notes.mark(levels.get(_NOTE))),
        ]
        for model, levels in study.models.items()
    ]
    heads = [metric.head for metric in metrics] + (["FID, as published ↓"] if below else [])
    columns = [*left(*map(_capital, study.factors)), *map(Column, heads), *left("Run, or source")]
    title, paper = _STUDIES.get(study.name, (_capital(study.name.replace("-", " ")), ""))
    caption = f"{_CAPTION.format(recipe=ablation.recipe)} {paper}".strip()
    return ruled(f"Ablation: {title}", columns, measured, below, notes, caption)


def _level_cells(levels: Sequence[str], study: Study) -> list[Cell]:
    pairs = zip(study.factors, levels, strict=True)
    return [Cell(_LEVELS.get((factor, level), level)) for factor, level in pairs]


def _capital(text: str) -> str:
    return "SDE" if text == "sde" else text[:1].upper() + text[1:]


# What all of the paper's tables share: measured above a rule, published below, no ranking over both


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


def winner_of(rows: Sequence[Row | None]) -> Row | None:
    """Return the best of a column's rows, where all that have a value are of one metric."""
    found = [row for row in rows if row is not None and row.value is not None]
    return best_of(found) if len({row.metric for row in found}) == 1 else None
