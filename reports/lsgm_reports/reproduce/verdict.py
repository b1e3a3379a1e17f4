"""Whether a number came out again: to the last bit, up to rounding, inside its interval, or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lsgm_reports.rows import Row

__all__ = ["NUMERICS", "Verdict", "same_measurement", "verdict"]

NUMERICS = 1e-5
"""Relative difference that rounding alone may make. A number in single precision is off by 6e-8 of itself;
sums over the 1e3 to 1e4 terms of a layer or an image, taken in another order by other threads, another
processor or another batch, differ by about 6e-8 times the root of their number, at most 6e-6."""

IDENTITY = ("task", "model", "metric", "group", "sampler", "split", "target")
"""Rows that agree in these measure the same thing."""

INPUTS = ("checkpoint_sha256", "dataset", "extractor", "reference_sha256", "levels_sha256", "seeds", "n")
"""What both must have been measured of; where one of these differs, so may the number."""


@dataclass(frozen=True)
class Verdict:
    """What came of measuring a number again."""

    reproduced: bool
    sentence: str
    difference: float | None = None
    """New minus recorded."""


def same_measurement(row: Row, rows: Sequence[Row]) -> Row | None:
    """Return the last of ``rows`` that measures what ``row`` does, None where none of them does."""

    def identity(of: Row) -> tuple[object, ...]:
        return tuple(getattr(of, key) for key in IDENTITY)

    return next((other for other in reversed(rows) if identity(other) == identity(row)), None)


def verdict(recorded: Row, new: Row) -> Verdict:
    """Compare a new measurement with the recorded one.

    Reproduced is what agrees to the last bit, up to `NUMERICS` times the larger of the value and half its
    interval, or lies inside the recorded 95 % interval; and a gap, where there is a gap again. Times are
    compared and not judged: they depend on the machine and on what else it does.
    """
    others = [
        key
        for key in INPUTS
        if None not in (ends := (getattr(recorded, key), getattr(new, key))) and ends[0] != ends[1]
    ]
    if others:
        return Verdict(False, f"not the same measurement: it differs in {', '.join(others)}")
    if recorded.value is None or new.value is None:
        both = recorded.value is new.value
        return Verdict(both, "no value, as recorded" if both else "a value only one of the two times")
    difference = new.value - recorded.value
    if difference == 0:
        return Verdict(True, "equal to the last bit", difference)
    if abs(difference) <= NUMERICS * max(abs(recorded.value), recorded.half_width or 0.0):
        return Verdict(True, "equal up to rounding", difference)
    if "seconds" in recorded.metric:
        return Verdict(True, "a time, which is never the same twice: not judged", difference)
    if recorded.interval is None:
        return Verdict(False, "different, and no interval is recorded", difference)
    low, high = recorded.interval
    if low <= new.value <= high:
        return Verdict(True, "inside the recorded 95 % interval, and not equal", difference)
    return Verdict(False, "outside the recorded 95 % interval", difference)
