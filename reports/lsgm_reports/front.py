"""Which measured points are worth their cost: the Pareto front over (cost, quality)."""

from __future__ import annotations

from collections.abc import Sequence

from lsgm_reports.costs import Cost
from lsgm_reports.rows import Row

__all__ = ["front_of"]


def front_of(points: Sequence[Row], cost: Cost) -> list[Row]:
    """Return the points of one metric that no other beats or equals in both cost and quality, by cost.

    Of equal points the first stands. The best of several noisy values is a little too good: the front is
    of the values as measured, and its intervals are those of its points. Points of unknown cost or
    quality are left out; one that costs nothing belongs to it.
    """
    known = [row for row in points if cost.of(row) is not None and row.value is not None]
    sign = -1.0 if any(row.higher_is_better for row in known) else 1.0
    front: list[Row] = []
    for row in sorted(known, key=lambda row: (cost.of(row) or 0.0, sign * (row.value or 0.0))):
        if not front or sign * (row.value or 0.0) < sign * (front[-1].value or 0.0):
            front.append(row)
    return front
