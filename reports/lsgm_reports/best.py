"""Which number of a column may be called the best: one whose lead exceeds the error of the lead."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lsgm_reports.metrics import metric_of
from lsgm_reports.rows import Row

__all__ = ["best_of", "comparable"]


def comparable(rows: Sequence[Row]) -> bool:
    """Say whether numbers were measured against the same: data, split, bits, extractor and reference."""

    def measured_on(row: Row) -> tuple[str | None, ...]:
        return (row.dataset, row.split, row.levels_sha256, row.extractor, row.reference_sha256)

    return len({measured_on(row) for row in rows if row.value is not None}) <= 1


def best_of(rows: Sequence[Row]) -> Row | None:
    """Return the best row of a column, or None where there is no winner.

    The best leads every other by more than sqrt(h1^2 + h2^2), h the half-widths of the 95 % intervals, which
    is the 95 % error of the difference of two independent estimates. A number without an interval is exact
    where it is a count (group "cost") and cannot win elsewhere.
    """
    measured = [row for row in rows if row.value is not None]
    if len(measured) < 2 or not comparable(measured):
        return None
    higher = metric_of(measured[0]).higher_is_better
    if higher is None:
        return None
    sign = -1.0 if higher else 1.0
    first, *others = sorted(measured, key=lambda row: sign * (row.value or 0.0))
    for other in others:
        errors = [_error(row) for row in (first, other)]
        lead = sign * ((other.value or 0.0) - (first.value or 0.0))
        if any(error is None for error in errors) or lead <= math.hypot(*(error or 0.0 for error in errors)):
            return None
    return first


def _error(row: Row) -> float | None:
    if row.half_width is not None:
        return row.half_width
    return 0.0 if row.group == "cost" else None
