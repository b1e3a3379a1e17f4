"""Which number of a column may be called the best: one whose lead exceeds the error of the lead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lsgm.results.metrics import metric_of
from lsgm.results.row import Row

DOUBT = 1.25
"""How many times larger than estimated a difference of biases may be, as `lsgm eval` has it."""


def comparable(rows: Sequence[Row]) -> bool:
    """Say whether numbers were measured against the same: data, split, bits, extractor and reference."""

    def measured_on(row: Row) -> tuple[str | None, ...]:
        return (row.dataset, row.split, row.levels_sha256, row.extractor, row.reference_sha256)

    return len({measured_on(row) for row in rows if row.value is not None}) <= 1


@dataclass(frozen=True)
class Lead:
    """How far the best of several numbers is ahead of another."""

    row: Row
    """The other."""
    size: float
    """The difference in the direction that is better, at least 0."""
    error: float | None
    """Half the 95 % interval of the lead; None where one of the two has no interval."""
    real: bool
    """Whether the lead exceeds its error, and what the two biases may make of it."""


def leads_of(rows: Sequence[Row]) -> tuple[Row, list[Lead]] | None:
    """Return the best row of a column and its lead over each other, nearest first; None without two to rank.

    The 95 % error of the lead of two independent estimates is sqrt(a^2 + b^2) with a and b the arms of the
    two intervals that face each other (MOVER, Zou and Donner, Statistics in Medicine 2008); of even intervals
    these are the half-widths. What the upward biases of both at this n may make of the lead, `DOUBT` times
    the difference of their estimates, is no lead. A number without an interval is exact where it is a count
    (group "cost") and cannot win or lose elsewhere. One whose solver's error exceeds its interval is no
    candidate.
    """
    # A row that is every sampler's stands on several lines of one model, and competes once.
    once = {id(row): row for row in rows}.values()
    measured = [row for row in once if row.value is not None and row.solved_finely]
    if len(measured) < 2 or not comparable(measured):
        return None
    higher = metric_of(measured[0]).higher_is_better
    if higher is None:
        return None
    sign = -1.0 if higher else 1.0
    first, *others = sorted(measured, key=lambda row: sign * (row.value or 0.0))
    leads = []
    for other in others:
        arms = [_arm(first, sign), _arm(other, -sign)]
        error = None if None in arms else math.hypot(*(arm or 0.0 for arm in arms))
        size = sign * ((other.value or 0.0) - (first.value or 0.0))
        unbiased = size - max(0.0, sign * DOUBT * (other.upward_bias - first.upward_bias))
        leads.append(Lead(other, size, error, error is not None and unbiased > error))
    return first, leads


def best_of(rows: Sequence[Row]) -> Row | None:
    """Return the row of a column whose lead over every other is real, or None where there is no winner."""
    found = leads_of(rows)
    return found[0] if found and all(lead.real for lead in found[1]) else None


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


# How many digits a number deserves: as many as its interval leaves certain

_LARGE, _SMALL = 1e15, 1e-9
"""Beyond these a number is shown with its power of ten."""


def decimals_for(error: float) -> int:
    """Return the decimals at which a half-width keeps one significant digit, or two where the first is 1.

    Rounding 0.14 to 0.1 would lose 40 % of it, rounding 0.94 to 0.9 loses 4 %. Negative for errors of tens.
    """
    error = min(max(error, 1e-300), 1e300)  # whose powers of ten are floats
    exponent = math.floor(math.log10(error))
    leading = round(error / 10**exponent, 1)
    if leading >= 10:  # 0.99 is 1.0 at two digits
        exponent, leading = exponent + 1, 1.0
    return -exponent + (1 if leading < 2 else 0)


def fixed(value: float, decimals: int) -> str:
    """Return a number with that many decimals (negative: rounded to tens, hundreds), never ``-0``.

    What would be a long row of digits, which no float has, is shown with its power of ten.
    """
    if abs(value) >= _LARGE or decimals > 20:
        return minus(f"{value:.3g}")
    rounded = round(value, decimals)
    text = f"{rounded:.{max(decimals, 0)}f}"
    return text.removeprefix("-") if float(text) == 0 else minus(text)


def minus(text: str) -> str:
    """Return a number with a minus sign for a hyphen in front."""
    return f"−{text[1:]}" if text.startswith("-") else text


def plain(value: float) -> str:
    """Return a number without an interval: whole numbers whole, others with four significant digits."""
    if not math.isfinite(value):
        return minus(str(value))
    if value == int(value) and abs(value) < 1e15:
        return minus(f"{int(value):,}" if abs(value) >= 10_000 else str(int(value)))
    if abs(value) >= 1000:
        return fixed(value, 0)
    if abs(value) >= 1e-4:
        decimals = 3 - math.floor(math.log10(abs(value)))
        return fixed(value, min(decimals, 7))
    return minus(f"{value:.3g}")


def scaled(value: float, power: int) -> float:
    """Return a number times ten to a power, in two steps, since ``1e324`` is no float and ``1e-324`` zero."""
    first = power // 2
    return value * 10.0**first * 10.0 ** (power - first)


def error_bar(value: float, low: float | None, high: float | None) -> str:
    """Return ``117.3 ± 0.4``, or ``5.2 +0.9 −0.3`` where lopsided; the number alone without an interval."""
    if low is None or high is None or high == low or not math.isfinite(high / 2 - low / 2):
        return plain(value)
    largest = max(abs(value), abs(low), abs(high))
    if not _SMALL <= largest < _LARGE:
        power = int(f"{largest:e}".partition("e")[2])
        return f"({error_bar(*(scaled(number, -power) for number in (value, low, high)))})e{power}"
    # An interval at the level of rounding errors is none.
    if high - low <= 1e-12 * max(abs(value), 1e-100):
        return plain(value)
    up, down = high - value, value - low
    half = (high - low) / 2
    if min(up, down) <= 0 or max(up, down) > 1.5 * min(up, down):  # lopsided: both arms are printed
        smaller = min(arm for arm in (up, down) if arm > 0)
        # One arm may be next to nothing; digits follow the interval, not that arm.
        decimals = decimals_for(max(smaller, half / 10))
        arms = f"{_signed(up, decimals, '+')} {_signed(-down, decimals, '−')}"
        return f"{fixed(value, decimals)} {arms}"
    decimals = decimals_for(half)
    return f"{fixed(value, decimals)} ± {fixed(half, decimals)}"


def _signed(arm: float, decimals: int, usual: str) -> str:
    """Return one end of the interval relative to the value; an end beyond the value shows its true sign."""
    sign = ("+" if arm > 0 else "−") if round(arm, decimals) != 0 else usual
    return f"{sign}{fixed(abs(arm), decimals)}"
