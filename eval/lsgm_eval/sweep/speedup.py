"""How many times cheaper one model is than another, or than a reference, at equal quality."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lsgm_eval.sweep.reach import Reached, bias_corrected, outer

__all__ = ["Ratio", "against_reference", "both_ratios", "speedup"]


@dataclass(frozen=True)
class Ratio:
    """A ratio of costs with its interval; None where there is none, for the reason that the note gives."""

    value: float | None
    low: float | None
    high: float | None
    note: str


def speedup(a: Reached, b: Reached, names: tuple[str, str]) -> Ratio:
    """Return the cost of ``b`` over that of ``a``: above 1 the first model is the cheaper one.

    Both models' errors are taken as independent. They draw from the same seeds, so that what errors have in
    common cancels in truth and the interval is on the safe side.
    """
    for reached, name in zip((a, b), names, strict=True):
        if reached.cost is None:
            return Ratio(None, None, None, f"{name} does not reach it: {reached.note}")
        if reached.cost <= 0:
            return Ratio(None, None, None, f"{name} needs none")
    value, ends, neither = (b.cost or 0.0) / (a.cost or 1.0), [], 0.0
    for ours, theirs in zip(a.draws, b.draws, strict=True):
        told = np.isfinite(ours) | np.isfinite(theirs)
        neither = max(neither, float(1 - told.mean()))
        ends.append(bias_corrected(value, theirs[told] / ours[told]))
    low, high = outer(ends)
    notes = [f"{name}: {reached.note}" for reached, name in zip((a, b), names, strict=True) if reached.note]
    if neither > 0.01:
        notes.append(f"given that one of both reaches it: within the errors neither does in {neither:.1%}")
    # A cost whose lower end is not known makes a ratio whose end is not known.
    low, high = (None if b.low is None else low), (None if a.low is None else high)
    return Ratio(value, low, high, "; ".join(notes))


def both_ratios(ratio: Ratio, other: Ratio | None, note: str) -> Ratio:
    """Return a ratio whose interval holds that of another way to take it as well.

    Without an upper end where the second model reaches nothing the other way.
    """
    notes = "; ".join(filter(None, (ratio.note, note)))
    if other is None or other.value is None:
        return replace(ratio, high=None, note=notes)
    low = None if ratio.low is None or other.low is None else min(ratio.low, other.low)
    high = None if ratio.high is None or other.high is None else max(ratio.high, other.high)
    return replace(ratio, low=low, high=high, note=notes)


def against_reference(reached: Reached, cost: float) -> Ratio:
    """Return the known cost of a reference procedure over the cost to reach its quality."""
    if reached.cost is None or reached.cost <= 0:
        return Ratio(None, None, None, reached.note or "it needs none")
    value = cost / reached.cost
    with np.errstate(divide="ignore"):
        low, high = outer([bias_corrected(value, cost / draws) for draws in reached.draws])
    return Ratio(value, low, None if reached.low is None else high, reached.note)
