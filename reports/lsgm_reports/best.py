"""Which number of a column may be called the best: one whose lead exceeds the error of the lead."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lsgm_reports.metrics import metric_of
from lsgm_reports.rows import Row

__all__ = ["DOUBT", "best_of", "comparable"]

DOUBT = 1.25
"""How many times larger than estimated a difference of biases may be, as `lsgm eval` has it."""


def comparable(rows: Sequence[Row]) -> bool:
    """Say whether numbers were measured against the same: data, split, bits, extractor and reference."""

    def measured_on(row: Row) -> tuple[str | None, ...]:
        return (row.dataset, row.split, row.levels_sha256, row.extractor, row.reference_sha256)

    return len({measured_on(row) for row in rows if row.value is not None}) <= 1


def best_of(rows: Sequence[Row]) -> Row | None:
    """Return the best row of a column, or None where there is no winner.

    The best leads every other by more than the 95 % error of the lead of two independent estimates,
    sqrt(a^2 + b^2) with a and b the arms of the two intervals that face each other (MOVER, Zou and Donner,
    Statistics in Medicine 2008); of even intervals these are the half-widths. What the upward biases of both
    at this n may make of the lead, `DOUBT` times the difference of their estimates, is no lead. A number
    without an interval is exact where it is a count (group "cost") and cannot win or lose elsewhere. One
    whose solver's error exceeds its interval is no candidate.
    """
    measured = [row for row in rows if row.value is not None and row.solved_finely]
    if len(measured) < 2 or not comparable(measured):
        return None
    higher = metric_of(measured[0]).higher_is_better
    if higher is None:
        return None
    sign = -1.0 if higher else 1.0
    first, *others = sorted(measured, key=lambda row: sign * (row.value or 0.0))
    for other in others:
        errors = [_arm(first, sign), _arm(other, -sign)]
        lead = sign * ((other.value or 0.0) - (first.value or 0.0))
        lead -= max(0.0, sign * DOUBT * (other.upward_bias - first.upward_bias))
        far = lead > math.hypot(*(error or 0.0 for error in errors))
        if any(error is None for error in errors) or not far:
            return None
    return first


def _arm(row: Row, side: float) -> float | None:
    """Return how far the interval reaches above (``side`` 1) or below (-1) the value, None where unknown.

    An estimate outside of its own interval is biased by what separates them, which counts on either side.
    """
    if row.value is None or row.interval is None or row.half_width is None:
        return 0.0 if row.group == "cost" else None
    low, high = row.interval
    if low <= row.value <= high:
        return high - row.value if side > 0 else row.value - low
    return max(abs(high - row.value), abs(low - row.value))
