"""What is measured in which feature space, and what the numbers are called: FID only where it is FID."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lsgm.config import require
from lsgm.results.metrics import statistics

__all__ = [
    "DISTANCES",
    "FAMILIES",
    "GIVES",
    "OFFICIAL",
    "Closed",
    "SpaceSpec",
    "Statistic",
    "family_of",
    "metric_name",
]

# The statistics of the registry, those of other packages among them.
if TYPE_CHECKING:
    Statistic = str
else:
    Statistic = Literal[*statistics()]
DISTANCES: tuple[Statistic, ...] = ("frechet", "kernel")

GIVES: Mapping[Statistic, tuple[str, ...]] = statistics()
"""The families of a statistic's rows, which stand before the name of the space."""

FAMILIES = tuple(family for families in GIVES.values() for family in families)

OFFICIAL = {
    "inception": {
        "frechet": "fid",
        "kernel": "kid",
        "frechet_infinity": "fid_infinity",
        "spatial_frechet": "sfid",
        **{
            name: name
            for name in ("inception_score", "precision", "recall", "density", "coverage", "memorised")
        },
    },
    "inception-clean": {"frechet": "fid_clean", "kernel": "kid_clean"},
}
"""By the name of an extractor with its official weights: the names under which numbers are published."""


@dataclass(frozen=True)
class SpaceSpec:
    """A feature space of a task, and what is measured in it."""

    extractor: str
    """As on the command line: ``inception``, ``inception-clean``, ``export:FILE.pt2``, ``torchscript:FILE``,
    ``dinov2:DIR`` or ``glyphs``."""
    name: str = ""
    """What follows the family in the names of its metrics (empty: the extractor's own name)."""
    statistics: tuple[Statistic, ...] = DISTANCES

    def __post_init__(self) -> None:
        require(bool(self.extractor), "a feature space needs an extractor, such as 'inception'")
        require(
            bool(self.statistics), f"nothing is measured in the space of {self.extractor}: name a statistic"
        )
        require(
            not (self.name and (self.extractor in OFFICIAL or self.name in OFFICIAL)),
            f"the space of {self.extractor} cannot be called '{self.name}': FID is that of its own network",
        )


@dataclass(frozen=True)
class Closed:
    """A space whose network is not at hand, and the sentence that says which file is missing."""

    spec: SpaceSpec
    why: str


def metric_name(family: str, space: str) -> str:
    """Return ``frechet_glyphs``, or ``fid`` where the space is the one that FID is defined in."""
    return OFFICIAL.get(space, {}).get(family, f"{family}_{space}")


def family_of(metric: str) -> str | None:
    """Return the family of a metric's name, or None where it is of no feature space."""
    for names in OFFICIAL.values():
        for family, name in names.items():
            if metric == name:
                return family
    found = [family for family in FAMILIES if metric.startswith(f"{family}_")]
    return max(found, key=len) if found else None
