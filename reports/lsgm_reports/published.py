"""Published likelihoods beside those measured here: marked, with their source and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lsgm.errors import DataError
from lsgm_reports.calibration import calibration_sentence
from lsgm_reports.entries import read_entries
from lsgm_reports.table import Cell, Column, Table

__all__ = [
    "EVIDENCE",
    "FILE",
    "Edition",
    "Published",
    "editions",
    "kin_of",
    "published",
    "published_table",
    "statement_on",
]

FILE = Path(__file__).with_name("published.toml")

_RELATIONS = {"<=": "≤ ", "=": ""}
EVIDENCE = {
    "verified": ("†", "verified", "Published, not measured here; verified against works that cite it."),
    "recalled": ("‡", "recalled, unverified", "Published, not measured here; recalled and not looked up."),
}
"""Evidence -> mark, words, and what the mark says below a table."""


@dataclass(frozen=True)
class Published:
    """One number of the literature."""

    dataset: str
    """Name of the data set as tasks name it."""
    data: str
    """The data set in words, its edition and binarisation."""
    model: str
    value: float
    unit: str
    relation: str
    """``<=`` for a bound, ``=`` for what is published as the likelihood itself."""
    what: str
    """The estimator, in words."""
    source: str
    evidence: str
    """``verified`` or ``recalled``."""
    note: str

    def __post_init__(self) -> None:
        if self.relation not in _RELATIONS or self.evidence not in EVIDENCE:
            raise DataError(
                f"the published number {self.value} of {self.model} has relation '{self.relation}' and "
                f"evidence '{self.evidence}'; "
                f"write one of {', '.join(_RELATIONS)} and one of {', '.join(EVIDENCE)}"
            )

    @property
    def shown(self) -> str:
        """The number as it may be printed: ``≤ 78.47``, ``about 86.8`` where it is recalled."""
        decimals = 1 if self.evidence == "recalled" else 2
        about = "about " if self.evidence == "recalled" else _RELATIONS[self.relation]
        return f"{about}{self.value:.{decimals}f}"


@dataclass(frozen=True)
class Edition:
    """A data set that resembles one of the literature and is another."""

    dataset: str
    of: str
    """The data set that published numbers are of."""
    statement: str
    """One sentence on why they are not comparable, without its full stop."""


def published(path: Path = FILE) -> list[Published]:
    """Return all published numbers. Raises DataError for a malformed entry."""
    return read_entries(path, "published", Published)


def editions(path: Path = FILE) -> dict[str, Edition]:
    """Return the editions by their data set. Raises DataError for a malformed entry."""
    return {edition.dataset: edition for edition in read_entries(path, "edition", Edition)}


def kin_of(dataset: str) -> list[str]:
    """Return the data set and the editions of it, whose calibrations concern it too."""
    return [dataset, *(edition.dataset for edition in editions().values() if edition.of == dataset)]


def statement_on(dataset: str) -> str:
    """Return what must be said wherever numbers of a data set stand, "" where there is nothing to say.

    That it is another edition than the literature's, and how far models of the literature measured here are
    from what was published of them.
    """
    known = editions()
    sentence = calibration_sentence(kin_of(dataset))
    if dataset not in known:
        return sentence
    unknown = "How far apart they are was not measured."
    return f"{known[dataset].statement}. {sentence or unknown}"


def published_table(dataset: str) -> Table | None:
    """Return the published numbers of a data set, or of the one it is an edition of, or None.

    What must be said with them is the table's caption: no format shows the one without the other.
    """
    edition = editions().get(dataset)
    entries = [entry for entry in published() if entry.dataset == (edition.of if edition else dataset)]
    if not entries:
        return None
    entries.sort(key=lambda entry: list(EVIDENCE).index(entry.evidence))
    grid, notes = [], {}
    for entry in entries:
        mark, evidence, note = EVIDENCE[entry.evidence]
        notes[mark] = note
        what = f"{entry.what} ({entry.note})" if entry.note else entry.what
        number = Cell(f"{entry.shown} {entry.unit}", mark=mark)
        words = (entry.data, what, entry.source, evidence)
        grid.append([Cell(entry.model), number, *(Cell(word) for word in words)])
    columns = [Column("Model", "left"), Column("Published")]
    columns += [Column(head, "left") for head in ("Data", "What", "Source", "Evidence")]
    title = "Published numbers, not measured here"
    if edition:
        title += ", of another data set and not comparable"
    caption = " ".join(part for part in (statement_on(dataset), _PROTOCOL) if part)
    return Table(title, columns, grid, list(notes.items()), caption)


_PROTOCOL = "Published numbers follow their authors' protocols: budgets, test sets and binarisation differ."
