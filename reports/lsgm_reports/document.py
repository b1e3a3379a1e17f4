"""``report.md``: what was measured, the headline, differences, curves, samples, training, provenance."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

from lsgm_reports.calibration import calibration_table
from lsgm_reports.details import detail_explanations, explanations, paired_table, provenance_table
from lsgm_reports.differences import difference_table
from lsgm_reports.formats import to_markdown
from lsgm_reports.headline import detail_table, headline
from lsgm_reports.likelihood import bound_explanations, is_bound, likelihood_table, only_bounds
from lsgm_reports.points import curve_table, front_tables
from lsgm_reports.published import kin_of, published_table, statement_on
from lsgm_reports.published_quality import published_quality_table
from lsgm_reports.reach import reach_table, speedup_sentences, speedup_table
from lsgm_reports.rows import Row
from lsgm_reports.table import Table
from lsgm_reports.terms import decomposition_table, group_table, term_explanations

__all__ = [
    "Pictures",
    "cost_tables",
    "likelihood_tables",
    "main_table",
    "markdown",
    "only_costs",
    "quality_tables",
    "tasks_of",
]


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


def tasks_of(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows by task, in the order of the file."""
    tasks: dict[str, list[Row]] = {}
    for row in rows:
        tasks.setdefault(row.task, []).append(row)
    return tasks


def markdown(
    rows: Sequence[Row], pictures: Pictures, sources: Sequence[Path], out: Path, *, recalled: bool = False
) -> str:
    """Return the report; pictures are named relative to ``out``.

    ``recalled`` shows published sample quality that was not looked up beside what was verified.
    """
    tasks = tasks_of(rows)
    parts = [f"# Results: {', '.join(tasks)}"]
    for task, mine in tasks.items():
        parts += _task(task, mine, pictures.curves.get(task), out, recalled)
    if pictures.grids:
        parts.append("## Samples")
        parts += [_picture(_caption(grid), grid, out) for grid in pictures.grids]
    if pictures.neighbours:
        parts.append("## Nearest training images")
        parts += [_picture(_pairs(sheet), sheet, out) for sheet in pictures.neighbours]
    if pictures.training is not None:
        caption = "Training curves; dotted: a new stage begins"
        parts += ["## Training", _picture(caption, pictures.training, out)]
    parts += ["## Provenance", to_markdown(provenance_table(rows)).rstrip(), *_versions(sources)]
    names = ", ".join(f"`{_relative(source, out)}`" for source in sources)
    parts.append(
        f"Every number measured here is a line of {names}, which `results.csv` holds as a table, unrounded."
    )
    return "\n\n".join(parts) + "\n"


def main_table(rows: Sequence[Row], task: str) -> Table:
    """Return the table that a task is known by: the headline, else the bounds or the costs."""
    if only_costs(rows) and (costs := cost_tables(rows)):
        return replace(costs[0], title=f"{task}: {costs[0].title}")
    bounds = likelihood_table(rows, task) if only_bounds(rows) else None
    return headline(rows, task) if bounds is None else bounds


def quality_tables(rows: Sequence[Row], *, recalled: bool = False) -> list[Table]:
    """Return what stands below the headline on sample quality: details, differences, what was published."""
    found = [detail_table(rows), difference_table(rows), published_quality_table(rows, recalled=recalled)]
    return [table for table in found if table is not None]


def likelihood_tables(rows: Sequence[Row], task: str) -> list[Table]:
    """Return everything on the likelihood of one task: bounds, their terms, and what was published."""
    bounds = likelihood_table(rows, f"{task}: bounds on the likelihood")
    if bounds is None:
        return []
    dataset = rows[0].dataset_name
    found = [
        bounds,
        decomposition_table(rows),
        group_table(rows),
        calibration_table(kin_of(dataset)),
        published_table(dataset),
    ]
    return [table for table in found if table is not None]


def cost_tables(rows: Sequence[Row]) -> list[Table]:
    """Return everything on quality against cost: speed-ups, what a quality costs, the front, all points."""
    found = [speedup_table(rows), reach_table(rows), *front_tables(rows), curve_table(rows)]
    return [table for table in found if table is not None]


def only_costs(rows: Sequence[Row]) -> bool:
    """Say whether there is nothing but curves and what follows from them, so that no headline is due."""
    return all(row.group in ("curve", "reach") for row in rows)


def _task(task: str, rows: Sequence[Row], curve: Path | None, out: Path, recalled: bool) -> list[str]:
    parts = [f"## {task}", _measured(rows)]
    if statement := statement_on(rows[0].dataset_name):
        parts.append(statement)
    if not only_bounds(rows) and not only_costs(rows):
        parts.append(to_markdown(headline(rows, task)).rstrip())
        lines = explanations([row for row in rows if not is_bound(row)])
        if any(is_bound(row) for row in rows):
            lines.append("- The bounds on the likelihood are explained with their own table, below.")
        parts += ["### What the columns mean", "\n".join(lines)]
    details = detail_explanations(rows)
    for table in quality_tables(rows, recalled=recalled):
        parts += [f"### {table.title}", to_markdown(table).rstrip()]
        if details:  # of the first of them
            parts.append("\n".join(details))
            details = []
    parts += _likelihood(task, rows)
    if (paired := paired_table(rows)) is not None:
        parts += ["### Paired differences", to_markdown(paired).rstrip()]
    return [*parts, *_costs(rows, curve, out)]


def _costs(rows: Sequence[Row], curve: Path | None, out: Path) -> list[str]:
    tables = cost_tables(rows)
    if not tables:
        return []
    parts = ["### Quality against cost"]
    if curve is not None:
        parts.append(_picture(_CURVES, curve, out))
    if sentences := speedup_sentences(rows):
        parts.append("\n".join(sentences))
    for table in tables:
        parts += [f"#### {table.title}", to_markdown(table).rstrip()]
    return parts


_CURVES = (
    "Thick: the best sampler of each model at each cost, bands are 95 % intervals; thin: every sampler; "
    "ringed: the Pareto front over all models"
)


def _likelihood(task: str, rows: Sequence[Row]) -> list[str]:
    tables = likelihood_tables(rows, task)
    if not tables:
        return []
    bounds, *others = tables
    parts = [
        "### Bounds on the likelihood",
        to_markdown(bounds).rstrip(),
        "\n".join(bound_explanations(rows)),
    ]
    explained = False
    for table in others:
        parts += [f"### {table.title}", to_markdown(table).rstrip()]
        if not explained and (lines := term_explanations(rows)):
            parts.append("\n".join(lines))
            explained = True
    return parts


def _measured(rows: Sequence[Row]) -> str:
    """Return what the numbers were measured on, each checksum in full so that it can be searched for."""
    lines = []
    for label, values in (
        ("Data", [row.dataset for row in rows]),
        ("Features", [row.extractor for row in rows]),
        ("Reference sha256", [row.reference_sha256 for row in rows]),
        ("Bits scored sha256", [row.levels_sha256 for row in rows]),
    ):
        known = list(dict.fromkeys(value for value in values if value))
        if known:
            lines.append(f"- {label}: {', '.join(f'`{value}`' for value in known)}")
    return "\n".join(lines) or "The rows do not say which data they were measured on."


def _caption(grid: Path) -> str:
    if grid.stem == "data":
        return "Images of the data"
    return f"Samples of {grid.stem}: the first seeds, not chosen"


def _pairs(sheet: Path) -> str:
    return (
        f"Samples of {sheet.stem}, each above the training image nearest to it: the nearest of all, "
        "and some at random"
    )


def _picture(caption: str, path: Path, out: Path) -> str:
    return f"![{caption}]({quote(_relative(path, out))})\n\n*{caption}.*"


def _relative(path: Path, out: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_uri()


def _versions(sources: Sequence[Path]) -> list[str]:
    """Return a line with the versions of the software, from the manifests beside and below the results."""
    found: dict[str, str] = {}
    for here in dict.fromkeys(source.parent for source in sources):
        for manifest in sorted([*here.glob("manifest.json"), *here.glob("*/manifest.json")]):
            try:
                versions = json.loads(manifest.read_text(encoding="utf-8")).get("versions") or {}
                found |= {str(name): str(version) for name, version in versions.items() if version}
            except (OSError, ValueError, AttributeError):
                continue  # a damaged manifest takes nothing from the numbers
    listed = ", ".join(f"{name} {version}" for name, version in found.items())
    return [f"Software: {listed}."] if found else []
