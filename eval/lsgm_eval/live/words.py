"""Short texts for a terminal: durations, values with their errors, and columns of text that fit a width."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import Any

__all__ = [
    "aligned",
    "clipped",
    "columns_of",
    "count_words",
    "duration",
    "headline",
    "value_words",
    "with_error",
]

Row = dict[str, Any]

HEADLINE = ("quality", "curve", "likelihood")
"""Groups of rows that a measurement is known by; costs and terms stand beside them."""


def duration(seconds: float) -> str:
    """Return ``8 s``, ``3 min 05 s`` or ``2 h 07 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def with_error(value: float, low: float | None, high: float | None) -> str:
    """Return ``12.3 ± 0.4``: half of the interval to two digits, and the value to the same decimal place.

    Without an interval, or with one of no width, four digits stand alone.
    """
    half = 0.0 if low is None or high is None else (high - low) / 2
    if not 0 < half < math.inf:
        return f"{value:.4g}"
    decimals = max(0, 1 - math.floor(math.log10(half)))
    return f"{value:.{decimals}f} ± {half:.{decimals}f}"


def value_words(row: Row) -> str:
    """Return a row's value with half of its interval, or that there is none."""
    if row["value"] is None:
        return "not measured"
    return with_error(row["value"], row["ci_low"], row["ci_high"])


def count_words(row: Row) -> str:
    """Return how many images a row is of, ``1000 of 50000`` where these are not all; nothing if unknown."""
    n, n_of = row["n"], row.get("n_of")
    return "" if n is None else f"{n}" if n_of is None else f"{n} of {n_of}"


def headline(rows: Sequence[Row]) -> Row | None:
    """Return the row that a measurement is known by: its first one with a value, else its first one."""
    known = [row for row in rows if row["group"] in HEADLINE] or list(rows)
    return next((row for row in known if row["value"] is not None), known[0] if known else None)


def columns_of(text: str) -> int:
    """Return the columns of a terminal that a text takes: two for wide letters, none for combining marks."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def clipped(text: str, width: int) -> str:
    """Return a text of at most ``width`` columns, with an ellipsis where it is cut.

    What a terminal would not print but obey, as an escape within a model's name, becomes a question mark.
    """
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    taken, room = 0, 0
    for letters, letter in enumerate(text):
        taken += columns_of(letter)
        if taken > width:
            return f"{text[:room]}…" if width > 0 else ""
        if taken <= width - 1:
            room = letters + 1
    return text


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of cells as text in columns, two blanks apart."""
    widths = [max(columns_of(line[k]) for line in lines) for k in range(len(lines[0]))] if lines else []
    return [
        "  ".join(
            cell + " " * (width - columns_of(cell)) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    ]
