"""What a report says, before it has a format: tasks with their tables, samples, training, provenance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lsgm.errors import DataError
from lsgm.files.regular import listed
from lsgm.files.text import read_record
from lsgm.results.metrics import UNKNOWN, known_metrics
from lsgm.results.row import Row
from lsgm.results.status import Status, find_statuses
from lsgm_reports.blocks import Block, Bullets, Picture, Report, Section, Table, Text, short
from lsgm_reports.paper.studies import Ablation, find_ablations
from lsgm_reports.paper.tables import paper_tables
from lsgm_reports.published import statement_on
from lsgm_reports.read import Reading, grouped, sentence_on
from lsgm_reports.render.text import relative
from lsgm_reports.tables.headline import (
    detail_explanations,
    explanations,
    headline,
    headline_rows,
    paired_table,
    provenance_table,
    quality_tables,
    rows_table,
)
from lsgm_reports.tables.likelihood import (
    bound_explanations,
    is_bound,
    likelihood_table,
    likelihood_tables,
    only_bounds,
    term_explanations,
)
from lsgm_reports.tables.points import cost_tables, speedup_sentences
from lsgm_reports.verdict import verdict


@dataclass(frozen=True)
class Pictures:
    """The image files that a report shows."""

    curves: dict[str, Path] = field(default_factory=dict)
    """task -> figure."""
    training: Path | None = None
    grids: list[Path] = field(default_factory=list)
    """Samples of each model, and images of the data."""
    neighbours: list[Path] = field(default_factory=list)
    """Samples of each model beside their nearest training images."""
    sheets: list[Path] = field(default_factory=list)
    """What training runs drew at the end of each of their stages."""


def _training(pictures: Pictures) -> list[Block]:
    """Return the curves of training runs, and what their stages drew last."""
    caption = "Training curves; dotted: a new stage begins"
    curves: list[Block] = [] if pictures.training is None else [Picture(pictures.training, caption)]
    for sheet in pictures.sheets:
        stage, _, step = sheet.stem.rpartition("-")
        said = f"Samples of {sheet.parent.parent.name} in {stage} at step {step.lstrip('0') or step}"
        curves.append(Picture(sheet, said, drawn=False))
    return curves


def not_finished(statuses: Sequence[Status]) -> Section | None:
    """Return what is missing of commands that did not come to their end, or None where all did."""
    blocks: list[Block] = []
    for status in statuses:
        if status.unfinished:
            blocks.append(Text(sentence_on(status)))
            lines = [f"{each.model}, {each.measurement}: {each.said}" for each in status.left]
            blocks += [Bullets(lines)] if lines else []
    return Section("Not finished", blocks) if blocks else None


def tasks_of(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows by task, in the order of the file, and by what one number of a task was measured on.

    Where a model has a number twice, of other data, by another extractor or to another reference, no table
    can hold both: each has a section of its own, ``image-folder@2/quick on photos (1a2b3c4d)``.
    """
    tasks = grouped(rows, lambda row: row.task)
    for key, said in (("dataset", "on"), ("extractor", "by"), ("reference_sha256", "to the reference")):
        parts = [_apart(task, mine, key, said) for task, mine in tasks.items()]
        tasks = {name: part for each in parts for name, part in each.items()}
    return tasks


def _apart(task: str, rows: list[Row], key: str, said: str) -> dict[str, list[Row]]:
    """Return the rows by a key of which a number has several values; all of them in one part where none has.

    Then every other data set has a part, too, whose name would be untrue of it elsewhere. Rows without the
    key, or by another extractor or to another reference than those, stand in the first part.
    """
    found: dict[tuple[object, ...], dict[str, None]] = {}
    for row in rows:
        number = (row.model, row.metric, row.group, row.sampler, row.split, row.target, row.checkpoint_sha256)
        if (value := getattr(row, key)) is not None:
            found.setdefault(number, {})[value] = None
    if all(len(several) == 1 for several in found.values()):
        return {task: rows}
    least = 1 if key == "dataset" else 2
    parts = {v: list[Row]() for several in found.values() if len(several) >= least for v in several}
    first = next(iter(parts.values()))
    for row in rows:
        parts.get(getattr(row, key), first).append(row)
    named: dict[str, list[Row]] = {}
    for value, mine in parts.items():
        named.setdefault(f"{task} {said} {_called(value)}", []).extend(mine)
    return named


def _called(value: str) -> str:
    """Return the name in ``name@version@sha256`` and the digits that tell it from others of its name."""
    name, _, digest = value.rpartition("@")
    return f"{name.partition('@')[0]} ({short(digest, 8)})" if name else short(digest, 8)


def report(
    reading: Reading, pictures: Pictures, sources: Sequence[Path], out: Path, *, recalled: bool = False
) -> Report:
    """Return the report of what was read from the files ``sources``, which will lie in the folder ``out``.

    What lies beside these files, how far their commands came and what was ablated, is read. ``recalled``
    shows published numbers that were not looked up beside what was verified.

    Raises DataError where a file beside the rows is malformed.
    """
    rows = [each.row for each in reading.placed]
    tasks = tasks_of(rows)
    ablations = find_ablations(sources)
    statuses = find_statuses(list(dict.fromkeys(source.parent for source in sources)))
    # Two curves stand before all tables; those of further tasks stand with their tables.
    opening = dict(list(pictures.curves.items())[:2])
    sections = [_outcome(tasks, opening, pictures.grids, statuses)]
    if (missing := not_finished(statuses)) is not None:
        sections.append(missing)
    if reading.left_out:
        count = "1 line was" if len(reading.left_out) == 1 else f"{len(reading.left_out):,} lines were"
        sections.append(Section("Left out", [Text(f"{count} left out:"), Bullets(reading.left_out)]))
    for task, mine in tasks.items():
        curve = None if task in opening else pictures.curves.get(task)
        sections.append(_task(task, mine, curve, ablations, recalled))
    if pictures.neighbours:
        nearest = "each above the training image nearest to it: the nearest of all, and some at random"
        captions = {sheet: f"Samples of {sheet.stem}, {nearest}" for sheet in pictures.neighbours}
        blocks: list[Block] = [Picture(sheet, said, drawn=False) for sheet, said in captions.items()]
        sections.append(Section("Nearest training images", blocks))
    if training := _training(pictures):
        sections.append(Section("Training", training))
    sections.append(_provenance(tasks, reading, sources, out))
    names = list(dict.fromkeys(row.task for row in rows))
    more = f", and {len(names) - 12:,} more" if len(names) > 12 else ""
    return Report(f"Results: {', '.join(names[:12])}{more}", sections)


def _outcome(
    tasks: Mapping[str, Sequence[Row]],
    curves: Mapping[str, Path],
    samples: Sequence[Path],
    statuses: Sequence[Status],
) -> Section:
    """Return what a reader sees first: the verdict, the curve and samples."""
    found = {task: said for task, rows in tasks.items() if (said := verdict(rows))}
    blocks: list[Block] = []
    if len(tasks) == 1:
        blocks += [Text(sentence) for said in found.values() for sentence in said]
    elif found:
        blocks.append(Bullets([f"`{task}`: {' '.join(said)}" for task, said in found.items()]))
    if not found:
        blocks.append(Text("By these rows no model is ranked; the tables below show what was measured."))
    if any(status.unfinished for status in statuses):
        blocks.append(Text("**Not finished**: measurements are missing, which the next section lists."))
    blocks += [Picture(curve, _CURVES) for curve in curves.values()]
    grids: list[Block] = []
    for grid in samples:
        name, _, data = grid.stem.partition("@")
        shown = f"Samples of {grid.stem}: the first seeds, not chosen"
        caption = f"Images of the data {data}".strip() if name == "data" else shown
        grids.append(Picture(grid, caption, drawn=False))
    return Section("What came out", blocks, [Section("Samples", grids)] if samples else [])


def main_table(rows: Sequence[Row], task: str) -> Table:
    """Return the table that a task is known by: the headline, else the bounds or the costs."""
    if only_costs(rows) and (costs := cost_tables(rows)):
        return replace(costs[0], title=f"{task}: {costs[0].title}")
    bounds = likelihood_table(rows, task) if only_bounds(rows) else None
    return headline(rows, task) if bounds is None else bounds


def only_costs(rows: Sequence[Row]) -> bool:
    """Say whether there is nothing but curves and what follows from them, so that no headline is due."""
    return all(row.group in ("curve", "reach") for row in rows)


# The section of a task


def _task(
    task: str, rows: Sequence[Row], curve: Path | None, ablations: Sequence[Ablation], recalled: bool
) -> Section:
    blocks = _about(rows)
    sections: list[Section] = []
    if statement := statement_on(rows[0].dataset_name, recalled=recalled):
        blocks.append(Text(statement))
    if not only_bounds(rows) and not only_costs(rows):
        blocks.append(headline(rows, task))
        lines = explanations([row for row in rows if not is_bound(row)])
        if any(is_bound(row) for row in rows):
            lines.append("- The bounds on the likelihood are explained with their own table, below.")
        sections.append(Section("What the columns mean", _bullets(lines)))
    sections += _explained(quality_tables(rows), detail_explanations(rows))
    if tables := likelihood_tables(rows, task, recalled=recalled):
        bounds = [tables[0], *_bullets(bound_explanations(rows))]
        sections.append(Section("Bounds on the likelihood", bounds))
        sections += _explained(tables[1:], term_explanations(rows))
    sections += _explained(list(filter(None, [paired_table(rows)])))
    if tables := cost_tables(rows):
        drawn: list[Block] = [] if curve is None else [Picture(curve, _CURVES)]
        drawn += _bullets(speedup_sentences(rows))
        sections.append(Section("Quality against cost", drawn, _explained(tables)))
    if like := paper_tables(rows, ablations, recalled=recalled):
        # Of an ablation they are what it was made for.
        place = 0 if ablations else len(sections)
        sections.insert(place, Section("In the form of the paper's tables", sections=_explained(like)))
    return Section(task, blocks, sections)


_CURVES = (
    "Thick: the best sampler of each model at each cost, bands are 95 % intervals; thin: every sampler; "
    "ringed: the Pareto front over all models"
)


def _explained(tables: Sequence[Table], lines: Sequence[str] = ()) -> list[Section]:
    """Return a section per table; lines that explain all of them stand with the first."""
    return [
        Section(table.title, [table, *(_bullets(lines) if index == 0 else [])])
        for index, table in enumerate(tables)
    ]


def _bullets(lines: Sequence[str]) -> list[Block]:
    return [Bullets([line.removeprefix("- ") for line in lines])] if lines else []


def _about(rows: Sequence[Row]) -> list[Block]:
    """Return on what a task was measured, by name, and the metrics that this version does not know."""
    lines = _named({"Data": "dataset", "Features": "extractor"}, rows, lambda value: value.rpartition("@")[0])
    # Those of the headline are explained with their columns.
    explained = {row.metric for row in headline_rows(rows)}
    metrics = dict.fromkeys(row.metric for row in rows if row.metric not in explained)
    known_here = set(known_metrics(list(metrics)))
    lines += [f"`{metric}`: {UNKNOWN}" for metric in metrics if metric not in known_here]
    return _bullets(lines)


def _named(keys: Mapping[str, str], rows: Sequence[Row], part: Callable[[str], str] = str) -> list[str]:
    """Return a line per key of the rows that says its values, or the part of each that is given."""
    return [
        f"{label}: {', '.join(f'`{part(value) or value}`' for value in known)}"
        for label, key in keys.items()
        if (known := dict.fromkeys(value for row in rows if (value := getattr(row, key))))
    ]


# Where the numbers come from


def _provenance(
    tasks: Mapping[str, Sequence[Row]], reading: Reading, sources: Sequence[Path], out: Path
) -> Section:
    rows = [each.row for each in reading.placed]
    names = {source: relative(source, out) for source in sources}
    # Each checksum in full, so that it can be searched for.
    keys = {"Data": "dataset", "Features": "extractor", "Reference sha256": "reference_sha256"}
    keys["Bits scored sha256"] = "levels_sha256"
    measured_on = [
        line
        for task, mine in tasks.items()
        for line in _named({f"{label} of {task}": key for label, key in keys.items()}, mine)
    ]
    blocks: list[Block] = [provenance_table(rows), *_bullets(measured_on)]
    if software := _versions(sources):
        blocks.append(Text(software))
    lines = ", ".join(f"`{name}`" for name in names.values())
    said = (
        f"Every number measured here is a line of {lines}, which `results.csv` holds as a table, unrounded."
    )
    blocks.append(Text(said))
    table = rows_table(rows, [names[each.file] for each in reading.placed])
    return Section("Provenance", blocks, [Section(table.title, [table])])


@dataclass(frozen=True)
class _Software:
    """What is read of a manifest here: names of software with their versions."""

    versions: dict[str, Any] = field(default_factory=dict)


_MOST_VERSIONS, _LONGEST = 40, 100
"""Names of software that are shown, and letters of a name or a version."""


def _versions(sources: Sequence[Path]) -> str:
    """Return the versions of the software, from the manifests beside and below the results; "" if unknown.

    A damaged manifest takes nothing from the numbers: it is named here.
    """
    found: dict[str, str] = {}
    damaged: list[str] = []
    for here in dict.fromkeys(source.parent for source in sources):
        for manifest in [*listed(here, "manifest.json"), *listed(here, "*/manifest.json")]:
            try:
                versions = read_record(_Software, manifest, repair="its versions are not shown").versions
            except DataError as error:
                damaged.append(f"{error}.")
                continue
            found |= {
                name[:_LONGEST]: str(version)[:_LONGEST] for name, version in versions.items() if version
            }
    shown_here = ", ".join(f"{name} {version}" for name, version in [*found.items()][:_MOST_VERSIONS])
    return " ".join([*([f"Software: {shown_here}."] if found else []), *damaged[:_MOST_VERSIONS]])
