"""Models of the literature measured here, against what was published of them: the offset of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lsgm.errors import DataError
from lsgm_reports.digits import decimals_for, error_bar, fixed
from lsgm_reports.entries import read_entries
from lsgm_reports.table import Cell, Column, Table

__all__ = ["FILE", "Calibration", "calibration_sentence", "calibration_table", "calibrations"]

FILE = Path(__file__).with_name("calibration.toml")


@dataclass(frozen=True)
class Calibration:
    """One model of the literature; shown once it was measured."""

    dataset: str
    """Data set it is measured on here."""
    model: str
    recipe: str
    published: float
    """Nats as recalled, unverified."""
    published_on: str
    """Data set of that number, in words."""
    measured: float | None = None
    """Nats measured here."""
    error: float | None = None
    """Half its 95 % interval over images."""
    n: int | None = None
    """Test images."""
    K: int | None = None
    """Draws of the importance-weighted bound."""
    budget: str | None = None
    """What the training took, in words."""

    def __post_init__(self) -> None:
        given = [value is not None for value in (self.measured, self.error, self.n, self.K, self.budget)]
        if any(given) and not all(given):
            raise DataError(
                f"the calibration {self.recipe} is incomplete; give measured, error, n, K and budget, or none"
            )
        if self.error is not None and not self.error >= 1e-6:
            raise DataError(f"the calibration {self.recipe} has error {self.error}; give half its interval")

    @property
    def offset(self) -> str:
        """Measured minus published, signed, and no finer than the published number's one decimal."""
        assert self.measured is not None
        assert self.error is not None
        gap = self.measured - self.published
        text = fixed(gap, min(1, decimals_for(self.error)))
        return text if gap < 0 else f"+{text}"

    @property
    def shown(self) -> str:
        """Measured value with its error."""
        assert self.measured is not None
        assert self.error is not None
        return error_bar(self.measured, self.measured - self.error, self.measured + self.error)


def calibrations(path: Path | None = None) -> list[Calibration]:
    """Return the calibrations that were measured; DataError for a malformed one."""
    entries = read_entries(path or FILE, "calibration", Calibration)
    return [entry for entry in entries if entry.measured is not None]


def calibration_sentence(datasets: Sequence[str], *, recalled: bool = False) -> str:
    """Return the offsets of data sets, a sentence for each, "" where none was measured.

    What was published of these models is recalled and not looked up: unless ``recalled`` asks for it, no
    number is given, but how to see it.
    """
    places: dict[tuple[str, str], list[Calibration]] = {}
    for entry in calibrations():
        if entry.dataset in datasets:
            places.setdefault((entry.dataset, entry.published_on), []).append(entry)
    if places and not recalled:
        return _WITHHELD
    sentences = []
    for (dataset, published_on), entries in places.items():
        offsets = "; ".join(
            f"{entry.model}: {entry.shown} against about {entry.published:.1f} nats, "
            f"an offset of {entry.offset} after {entry.budget}"
            for entry in entries
        )
        sentences.append(
            f"The models of arXiv:1509.00519 as measured here on {dataset}, against what is recalled, "
            f"unverified, of them on {published_on.removesuffix('.')}. {offsets}. "
            "What a short training leaves is part of an offset."
        )
    return " ".join(sentences)


_WITHHELD = (
    "Models of arXiv:1509.00519 were measured here too; what was published of them is recalled, unverified: "
    "`lsgm report --recalled` shows how far they are from it."
)


def calibration_table(datasets: Sequence[str]) -> Table | None:
    """Return the calibrations on data sets, or None where none was measured."""
    entries = [entry for entry in calibrations() if entry.dataset in datasets]
    if not entries:
        return None
    grid = [
        [
            Cell(entry.model),
            Cell(entry.dataset),
            Cell(entry.shown, sort=entry.measured),
            Cell(f"{entry.n:,}", sort=entry.n),
            Cell(f"{entry.K:,}", sort=entry.K),
            Cell(f"about {entry.published:.1f}", mark="‡", sort=entry.published),
            Cell(entry.published_on),
            Cell(entry.offset, sort=float(entry.offset.replace("−", "-"))),
            Cell(f"{entry.recipe}: {entry.budget}"),
        ]
        for entry in entries
    ]
    columns = [Column("Model", "left"), Column("Measured on", "left"), Column("Measured (nats)"), Column("n")]
    columns += [Column("K"), Column("Published (nats)"), Column("Published on", "left"), Column("Offset")]
    columns += [Column("Recipe and budget", "left")]
    note = ("‡", "Published, not measured here; recalled and not looked up.")
    caption = "Models of the literature measured here; the offset is measured minus published."
    return Table("Calibration against the literature", columns, grid, [note], caption)
