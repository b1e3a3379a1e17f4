"""What an image costs, in three currencies: network evaluations, seconds, floating-point operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lsgm_reports.rows import Row

__all__ = ["COSTS", "Cost", "costs_of", "seconds_per_image"]


@dataclass(frozen=True)
class Cost:
    """One currency: how rows, axes and sentences call it, and what a row says of it."""

    key: str
    """As in ``nfe_to_reach`` and ``speedup_nfe``."""
    axis: str
    noun: str
    of: Callable[[Row], float | None]
    """Cost per image, None where the row does not know; 0 where there is none."""


def seconds_per_image(row: Row) -> float | None:
    """Return the seconds from noise to an image, the decoder's among them."""
    return row.seconds / row.n if row.seconds is not None and row.n else None


def _nfe(row: Row) -> float | None:
    return row.nfe_mean


def _flops(row: Row) -> float | None:
    return row.flops_per_image


COSTS = (
    Cost("nfe", "network evaluations per image (NFE)", "evaluations", _nfe),
    Cost("seconds", "seconds per image, decoder included", "seconds", seconds_per_image),
    Cost("flops", "FLOPs per image, decoder included", "FLOPs", _flops),
)


def costs_of(points: Sequence[Row]) -> list[Cost]:
    """Return the currencies in which at least two points of a curve are known: what can be drawn.

    Seconds that are the same at every NFE are those of a whole run, and no cost of a point.
    """
    found = []
    for cost in COSTS:
        known = {value for row in points if (value := cost.of(row))}
        if len(known) > 1 or (cost.key == "nfe" and known):
            found.append(cost)
    return found
