"""What the keys of a result row may hold: texts, counts, real numbers, truth values, or nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lsgm.files.shown import shown

__all__ = ["row_problem"]

NAMES = ("task", "model", "metric")
"""Texts that every row has."""
TEXTS = (
    *("checkpoint_sha256", "split", "sampler", "extractor", "reference_sha256", "dataset", "seeds"),
    *("git_revision", "run_id", "unit", "group", "note", "levels_sha256", "target", "manifest"),
)
COUNTS = ("n", "n_of", "peak_bytes")
NUMBERS = ("value", "ci_low", "ci_high", "solver_error", "bias")
COSTS = (
    *("nfe_mean", "nfe_max", "seconds", "decoder_seconds", "flops_per_image", "decoder_flops_per_image"),
    "solver_error_margin",
)
TRUTHS = ("higher_is_better",)
LARGEST = 1e300
"""Of a number: sums and differences of some of them are numbers still."""


def row_problem(row: Mapping[str, Any]) -> str:
    """Return what is wrong with the values of a row, in words; nothing where they may stand.

    Keys that are absent are no fault, and of those that are not known only that they can be written again.
    """
    for key, value in row.items():
        if problem := _problem(key, value):
            return f"'{shown(key)[:60]}' is {_brief(value)}, {problem}"
    low, high = row.get("ci_low"), row.get("ci_high")
    if low is not None and high is not None and low > high:
        return f"its interval goes from {low!r} down to {high!r}"
    return ""


def _problem(key: str, value: Any) -> str:
    if key in NAMES:
        return "" if isinstance(value, str) and value.strip() else "and a text belongs there"
    if value is None:
        return ""
    if key in TEXTS:
        return "" if isinstance(value, str) else "and a text belongs there"
    if key in TRUTHS:
        return "" if isinstance(value, bool) else "and true, false or null belongs there"
    if key in (*COUNTS, *NUMBERS, *COSTS):
        return _number_problem(key, value)
    return "" if _writable(value) else "which is not finite"


def _number_problem(key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "and a number belongs there"
    if not abs(value) <= LARGEST:
        return "and a finite number belongs there"
    if key not in NUMBERS and value < 0:
        return "which cannot be negative"
    if key in COUNTS and not float(value).is_integer():
        return "and a whole number belongs there"
    return ""


def _writable(value: Any) -> bool:
    """Return whether JSON has words for a value; a reader lets infinities pass."""
    if isinstance(value, Mapping):
        return all(map(_writable, value.values()))
    if isinstance(value, list):
        return all(map(_writable, value))
    return not isinstance(value, float) or math.isfinite(value)


def _brief(value: Any) -> str:
    text = shown(repr(value)) if not isinstance(value, dict | list) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:60]}..."
