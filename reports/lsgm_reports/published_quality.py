"""Published sample quality beside what is measured here: in a table of its own, with what is known of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lsgm.errors import DataError
from lsgm_reports.entries import read_entries
from lsgm_reports.headline import headline_rows
from lsgm_reports.published import EVIDENCE
from lsgm_reports.rows import Row
from lsgm_reports.table import Cell, Column, Table

__all__ = ["FILE", "PublishedQuality", "published_quality", "published_quality_table"]

FILE = Path(__file__).with_name("published_quality.toml")

_HEADS = {
    "fid": "FID ↓",
    "inception_score": "Inception Score ↑",
    "recall": "Recall ↑",
    "nfe": "NFE ↓",
    "bits_per_dim": "bits/dim ↓",
}
_RELATIONS = {"<=": "≤ ", "=": ""}
_ABSENT = "–"
_NUMBER = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True)
class PublishedQuality:
    """What one source says of one model's samples; numbers are text, with the digits that were published."""

    dataset: str
    """Name of the data set as tasks name it."""
    model: str
    source: str
    fid: str = ""
    inception_score: str = ""
    recall: str = ""
    nfe: str = ""
    """Network evaluations per image."""
    bits_per_dim: str = ""
    relation: str = "="
    """Of bits/dim: ``<=`` for a bound, ``=`` for what is published as the likelihood itself."""
    recalled: str = ""
    """Which of the numbers were recalled and not looked up, separated by commas; the others are verified."""

    def __post_init__(self) -> None:
        if self.relation not in _RELATIONS:
            raise DataError(
                f"the published sample quality of {self.model} has relation '{self.relation}'; "
                f"write one of {', '.join(_RELATIONS)}"
            )
        if not self.numbers or not set(self.unverified) <= set(self.numbers):
            raise DataError(
                f"the published sample quality of {self.model} names '{self.recalled}' as recalled; give at "
                f"least one of {', '.join(_HEADS)}, and recalled from those given"
            )
        for metric, number in self.numbers.items():
            if not _NUMBER.fullmatch(number):
                raise DataError(
                    f"the published {metric} of {self.model} is '{number}'; write a number as it was printed"
                )

    @property
    def numbers(self) -> dict[str, str]:
        """Metric -> the number as it was printed, of those there are."""
        given = {metric: str(getattr(self, metric)) for metric in _HEADS}
        return {metric: number for metric, number in given.items() if number}

    @property
    def unverified(self) -> list[str]:
        """The metrics whose numbers were recalled."""
        return [word.strip() for word in self.recalled.split(",") if word.strip()]

    def cell(self, metric: str, *, recalled: bool) -> Cell:
        """Return a number with the mark of its evidence; a recalled one is rounded, or left out."""
        if (number := self.numbers.get(metric)) is None:
            return Cell(_ABSENT)
        if metric not in self.unverified:
            relation = _RELATIONS[self.relation] if metric == "bits_per_dim" else ""
            return Cell(f"{relation}{number}", mark=EVIDENCE["verified"][0])
        if not recalled:
            return Cell(_ABSENT)
        decimals = min(1, len(number.partition(".")[2]))
        return Cell(f"about {float(number):.{decimals}f}", mark=EVIDENCE["recalled"][0])


def published_quality(path: Path | None = None) -> list[PublishedQuality]:
    """Return all published sample quality. Raises DataError for a malformed entry."""
    return read_entries(path or FILE, "quality", PublishedQuality)


def published_quality_table(rows: Sequence[Row], *, recalled: bool = False) -> Table | None:
    """Return what was published of the samples of models of this data, or None where there is nothing.

    None also where the rows measure no sample quality. ``recalled`` adds numbers that were not looked up.
    """
    measured = [row for row in headline_rows(rows) if row.group == "quality"]
    if not measured:
        return None
    lines: list[tuple[PublishedQuality, dict[str, Cell]]] = []
    for entry in published_quality():
        if entry.dataset == measured[0].dataset_name:
            cells = {metric: entry.cell(metric, recalled=recalled) for metric in _HEADS}
            # Without a word on its samples it would be a line of likelihoods, which have their own table.
            if any(cells[metric].mark for metric in ("fid", "inception_score", "recall")):
                lines.append((entry, cells))
    if not lines:
        return None
    kept = [metric for metric in _HEADS if any(cells[metric].mark for _, cells in lines)]
    grid = [
        [Cell(entry.model), *(cells[metric] for metric in kept), Cell(entry.source)] for entry, cells in lines
    ]
    marks = {cell.mark for line in grid for cell in line}
    notes = [(mark, note) for mark, _, note in EVIDENCE.values() if mark in marks]
    columns = [Column(_HEADS[metric]) for metric in kept]
    columns = [Column("Model", "left"), *columns, Column("Source", "left")]
    title = "Published sample quality, not measured here"
    return Table(title, columns, grid, notes, _caption(measured))


def _caption(measured: Sequence[Row]) -> str:
    """Return what keeps published and measured numbers apart: samples, code, and whether ours are FIDs."""
    found = [row for row in measured if row.value is not None]
    counts = list(dict.fromkeys(f"{row.n:,}" for row in found if row.n is not None))
    fids = any(row.metric in ("fid", "fid_clean") for row in found)
    said = "Published FID is of 50,000 samples by the authors' own code"
    if counts:
        said += f"; what is measured here is of {' and '.join(counts)}"
    if fids:
        apart = "Fewer samples raise FID, and so may another resize or other weights."
    else:
        apart = "No FID was measured here: distances in other feature spaces do not compare with it."
    absent = f"{_ABSENT} is a number that is not published there or was not verified."
    return f"{said}. {apart} LSGM is arXiv:2106.05931; {absent}"
