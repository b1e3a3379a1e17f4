"""Numbers that ship with the reports: what the literature states of its models, and how far off we are."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from lsgm.errors import ConfigError, DataError
from lsgm.files.names import shown
from lsgm.files.text import read_toml
from lsgm.structure import from_dict
from lsgm_reports.blocks import Cell, Column, Table, left
from lsgm_reports.digits import decimals_for, error_bar, fixed

Entry = TypeVar("Entry")


def _entries(path: Path, table: str, kind: type[Entry]) -> Sequence[Entry]:
    """Return the array of tables of that name as dataclasses. Raises DataError that names file and entry."""
    about = path.stat() if path.is_file() else None
    key: Any = (path, table, kind, about and (about.st_mtime_ns, about.st_size))
    return _read(*key)


@lru_cache(maxsize=32)
def _read(path: Path, table: str, kind: Any, modified: object) -> Sequence[Any]:
    """Return entries; a report of many tasks asks for the same few, as ``modified`` tells."""
    tables = read_toml(path, repair="repair the file").get(table, [])
    where = shown(str(path))
    if not isinstance(tables, list) or not all(isinstance(given, dict) for given in tables):
        raise DataError(f"'{table}' in {where} is no list of tables; write [[{table}]] before each entry")
    try:
        return [from_dict(kind, given, f"{where}, {table} {at}") for at, given in enumerate(tables, start=1)]
    except ConfigError as error:
        raise DataError(str(error)) from None


# What the literature states of its models: every number with its source, and whether it was verified

FILE = Path(__file__).with_name("published.toml")

Dataset = Literal["cifar10", "celebahq256", "omniglot", "mnist"]

DATASETS: dict[str, str] = {
    "cifar10": "CIFAR-10",
    "celebahq256": "CelebA-HQ-256",
    "omniglot": "OMNIGLOT",
    "mnist": "MNIST",
}
"""Data sets with published numbers, as tasks name them, and in words."""

Kind = Literal["latent", "data-space", "vae", "gan", "flow", "autoregressive", "energy"]

KINDS: dict[str, str] = {
    "latent": "score model of latents",
    "data-space": "score model of pixels",
    "vae": "VAE",
    "gan": "GAN",
    "flow": "flow",
    "autoregressive": "autoregressive",
    "energy": "energy-based",
}
"""Kinds of models, and in words."""

NUMBERS = ("fid", "inception_score", "recall", "nats", "bits_per_dim", "nfe", "seconds", "parameters")
"""What can be published of a model, in the units of their names; nats per image, parameters in millions."""

EVIDENCE = {
    "verified": ("†", "Published, not measured here; verified against works that cite it."),
    "recalled": ("‡", "Published, not measured here; recalled and not looked up."),
}
"""Evidence -> its mark, and what the mark says below a table."""

ABSENT = "–"
"""Stands where a number is not published, or may not be shown."""

_PRINTED = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
_MILLIONS = re.compile(rf"{_PRINTED.pattern} M")


class _Stated:
    """What has published numbers, of which some may be from memory."""

    recalled: tuple[str, ...]
    relation: Literal["=", "<="] = "="

    def cell(self, name: str, *, recalled: bool) -> Cell:
        """Return a number as it may be shown: ``≤ 78.47`` with †, ``about 86.8`` with ‡, or `ABSENT`.

        One from memory is shown only where ``recalled`` asks for it, and never as if exact.
        """
        number, unsure = str(getattr(self, name)), name in self.recalled
        if not number or (unsure and not recalled):
            return Cell(ABSENT)
        digits, unit = number.removesuffix(" M"), " M" * number.endswith(" M")
        value = float(digits)
        if unsure:
            text = f"about {value:.{min(1, len(digits.partition('.')[2]))}f}{unit}"
            return Cell(text, mark=EVIDENCE["recalled"][0], sort=value)
        bounded = name in ("nats", "bits_per_dim") and self.relation == "<="
        return Cell(f"{'≤ ' * bounded}{number}", mark=EVIDENCE["verified"][0], sort=value)


@dataclass(frozen=True)
class Published(_Stated):
    """What one source states of one model; numbers are text, with the digits that were printed."""

    dataset: Dataset
    model: str
    kind: Kind
    source: str
    sampler: str = ""
    """How samples were drawn, of an entry that is about that, and belongs to tables of cost alone."""
    table: str = ""
    """Table of arXiv:2106.05931 that it belongs to."""
    protocol: str = ""
    """How it was measured, in words."""
    fid: str = ""
    inception_score: str = ""
    recall: str = ""
    nats: str = ""
    bits_per_dim: str = ""
    """Of CelebA-HQ-256 at 5 bits."""
    nfe: str = ""
    """Network evaluations per image."""
    seconds: str = ""
    timed: str = ""
    """What took these seconds, and on which hardware."""
    parameters: str = ""
    relation: Literal["=", "<="] = "="
    """Of nats and bits/dim: ``<=`` for a bound, ``=`` for what is published as the likelihood itself."""
    recalled: tuple[str, ...] = ()
    """Which of the numbers are from memory; the others are verified."""

    def __post_init__(self) -> None:
        said = f"the published entry of {self.model}"
        if not self.numbers or not set(self.recalled) <= set(self.numbers):
            raise ConfigError(
                f"{said} recalls '{', '.join(self.recalled)}'; give at least one of {', '.join(NUMBERS)}, "
                "and recalled from those given"
            )
        if bool(self.seconds) != bool(self.timed):
            raise ConfigError(f"{said} has one of seconds and timed; give both, or none")
        for name, number in self.numbers.items():
            if not (_MILLIONS if name == "parameters" else _PRINTED).fullmatch(number):
                form = "a number and M, 476 M" if name == "parameters" else "a number as it was printed"
                raise ConfigError(f"{said} has {name} '{number}'; write {form}")

    @property
    def label(self) -> str:
        """The model, with its sampler where the entry is about that."""
        return f"{self.model}: {self.sampler}" if self.sampler else self.model

    @property
    def numbers(self) -> dict[str, str]:
        """What of `NUMBERS` is published -> the number as it was printed."""
        return {name: number for name in NUMBERS if (number := str(getattr(self, name)))}


@dataclass(frozen=True)
class PublishedAblation(_Stated):
    """FID of one cell of an ablation of arXiv:2106.05931."""

    study: str
    """As `lsgm ablate` calls it."""
    levels: tuple[str, ...]
    """Level of each of the study's factors."""
    fid: str
    source: str
    data: str
    """Data and model, in words."""
    recalled: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        said = f"the published ablation {self.study}"
        if not self.levels or not _PRINTED.fullmatch(self.fid):
            given = f"levels '{', '.join(self.levels)}' and FID '{self.fid}'"
            raise ConfigError(f"{said} has {given}; give levels, and a number as it was printed")
        if not set(self.recalled) <= {"fid"}:
            raise ConfigError(f"{said} recalls '{', '.join(self.recalled)}'; it has no number but fid")


@dataclass(frozen=True)
class Edition:
    """A data set that resembles one of the literature and is another."""

    dataset: str
    of: Dataset
    """The data set that published numbers are of."""
    statement: str
    """One sentence on why they are not comparable, without its full stop."""


def published(path: Path | None = None) -> Sequence[Published]:
    """Return all published numbers. Raises DataError for a malformed entry."""
    return _entries(path or FILE, "published", Published)


def published_ablations(path: Path | None = None) -> Sequence[PublishedAblation]:
    """Return what was published of ablations. Raises DataError for a malformed entry."""
    return _entries(path or FILE, "ablation", PublishedAblation)


def editions(path: Path | None = None) -> dict[str, Edition]:
    """Return the editions by their data set. Raises DataError for a malformed entry."""
    return {edition.dataset: edition for edition in _entries(path or FILE, "edition", Edition)}


def edition_of(dataset: str) -> str:
    """Return the data set of the literature that one is an edition of; itself where it is none."""
    known = editions()
    return known[dataset].of if dataset in known else dataset


def kin_of(dataset: str) -> list[str]:
    """Return the data set and the editions of it, whose calibrations concern it too."""
    return [dataset, *(edition.dataset for edition in editions().values() if edition.of == dataset)]


def statement_on(dataset: str, *, recalled: bool = False) -> str:
    """Return what must be said wherever numbers of a data set stand, "" where there is nothing to say.

    That it is another edition than the literature's, and how far models of the literature measured here are
    from what was published of them: in numbers where ``recalled`` asks for numbers that were not looked up.
    """
    known = editions()
    sentence = calibration_sentence(kin_of(dataset), recalled=recalled)
    if dataset not in known:
        return sentence
    unknown = "How far apart they are was not measured."
    return f"{known[dataset].statement}. {sentence or unknown}"


# Models of the literature measured here, against what was published of them: the offset of a data set

FILE_CALIBRATION = Path(__file__).with_name("calibration.toml")


@dataclass(frozen=True)
class Calibration:
    """One model of the literature, measured here."""

    dataset: str
    """Data set it is measured on here."""
    model: str
    recipe: str
    published: float
    """Nats as recalled, unverified."""
    published_on: str
    """Data set of that number, in words."""
    measured: float
    """Nats measured here."""
    error: float
    """Half its 95 % interval over images."""
    n: int
    """Test images."""
    K: int
    """Draws of the importance-weighted bound."""
    budget: str
    """What the training took, in words."""

    def __post_init__(self) -> None:
        for name, value, least in (("measured", self.measured, 0.0), ("error", self.error, 1e-6)):
            if not least <= value < math.inf:
                raise ConfigError(f"the calibration {self.recipe} has {name} {value}; give nats as measured")

    @property
    def offset(self) -> str:
        """Measured minus published, signed, and no finer than the published number's one decimal."""
        gap = self.measured - self.published
        text = fixed(gap, min(1, decimals_for(self.error)))
        return text if gap < 0 else f"+{text}"

    @property
    def shown(self) -> str:
        """Measured value with its error."""
        return error_bar(self.measured, self.measured - self.error, self.measured + self.error)


def calibrations(path: Path | None = None) -> Sequence[Calibration]:
    """Return the calibrations; DataError for a malformed one."""
    return _entries(path or FILE_CALIBRATION, "calibration", Calibration)


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
        return (
            "Models of arXiv:1509.00519 were measured here too; what was published of them is recalled, "
            "unverified: `lsgm report --recalled` shows how far they are from it."
        )
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
            Cell(f"about {entry.published:.1f}", mark=EVIDENCE["recalled"][0], sort=entry.published),
            Cell(entry.published_on),
            Cell(entry.offset, sort=float(entry.offset.replace("−", "-"))),
            Cell(f"{entry.recipe}: {entry.budget}"),
        ]
        for entry in entries
    ]
    columns = [*left("Model", "Measured on"), Column("Measured (nats)"), Column("n"), Column("K")]
    columns += [Column("Published (nats)"), *left("Published on"), Column("Offset")]
    columns += left("Recipe and budget")
    caption = "Models of the literature measured here; the offset is measured minus published."
    return Table("Calibration against the literature", columns, grid, [EVIDENCE["recalled"]], caption)
