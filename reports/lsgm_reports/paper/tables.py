"""Which of the paper's tables the rows of a report fill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lsgm_reports.ablations import Ablation
from lsgm_reports.paper.generative import generative_table
from lsgm_reports.paper.nats import nats_table
from lsgm_reports.paper.sampling import sampling_table
from lsgm_reports.paper.studies import study_tables
from lsgm_reports.published import DATASETS, edition_of, published, statement_on
from lsgm_reports.rows import Row
from lsgm_reports.table import Table

__all__ = ["paper_tables"]

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
