"""What it costs to reach a quality, with an interval from the errors of the measured points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from lsgm_eval.intervals import NORMAL_95
from lsgm_eval.sweep.front import crossing, crossings

__all__ = ["REPEATS", "Curve", "Reached", "bias_corrected", "outer", "reach"]

Array = NDArray[np.float64]
Ends = tuple[float | None, float | None]
REPEATS = 4000
"""Draws of the bootstrap: an end of the interval is then known to a fiftieth of its probability."""


@dataclass(frozen=True)
class Curve:
    """A model's points in one currency: costs, losses (lower is better) and standard errors, each [P]."""

    costs: Array
    losses: Array
    errors: Array
    samplers: tuple[str, ...]

    @property
    def is_level(self) -> bool:
        """Whether there is one point alone, as of a model without a sampler: its cost is no one's choice."""
        return len(self.costs) == 1


@dataclass(frozen=True)
class Reached:
    """The cost to reach a target; None where it is not reached, and ends that the points cannot tell."""

    cost: float | None
    low: float | None
    high: float | None
    samplers: tuple[str, ...]
    note: str
    draws: Array
    """The cost in every draw of the bootstrap, [2, REPEATS]: errors independent, errors in common."""


def reach(curve: Curve, target: float, *, seed: int = 0) -> Reached:
    """Return the cost at which a model's front first has a loss of at most ``target``.

    The interval is that of a parametric bootstrap of the losses within their errors, bias corrected (Efron
    1987, without acceleration), because the best of several noisy points looks better than it is. Points of
    one model share their seeds, so that their errors are somewhere between independent and one error in
    common: the interval is the outer one of both cases. Costs are taken as known.
    """
    draws = _draws(curve, target, seed)
    found = crossing(curve.costs.tolist(), curve.losses.tolist(), target)
    if found is None:
        chance = float(np.isfinite(draws).mean())
        note = f"not reached by {len(curve.costs)} points"
        note += f"; within their errors it might be, with probability {chance:.2g}" if chance >= 0.01 else ""
        return Reached(None, None, None, (), note, draws)
    low, high = outer([bias_corrected(found.cost, draw) for draw in draws])
    notes = (
        [] if high is not None else ["the upper end is not known: within the errors it may not be reached"]
    )
    cheapest = float(curve.costs.min())
    if not curve.is_level and (low is None or low <= cheapest):
        low = None
        notes.append(
            "the cheapest point reaches it already, so that this is an upper bound: measure smaller budgets"
            if found.cost <= cheapest
            else "the lower end is not known: within the errors the cheapest point may reach it already"
        )
    ends = [found.after] if found.before is None else [found.before, found.after]
    samplers = tuple(dict.fromkeys(curve.samplers[k] for k in ends if curve.samplers[k]))
    return Reached(found.cost, low, high, samplers, "; ".join(notes), draws)


def _draws(curve: Curve, target: float, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    alone = rng.standard_normal((REPEATS, len(curve.costs)))
    common = rng.standard_normal((REPEATS, 1))
    return np.stack(
        [crossings(curve.costs, curve.losses + noise * curve.errors, target) for noise in (alone, common)]
    )


def bias_corrected(value: float, draws: Array) -> tuple[float, float]:
    """Return the bias-corrected percentile interval, 95 %, of a value and its bootstrap draws [R].

    Ends are draws, so that infinite ones need no care; they carry over to any monotone function.
    """
    share = float((draws < value).mean() + 0.5 * (draws == value).mean())
    shift = float(ndtri(np.clip(share, 1 / len(draws), 1 - 1 / len(draws))))
    low, high = np.quantile(
        draws, [ndtr(2 * shift - NORMAL_95), ndtr(2 * shift + NORMAL_95)], method="inverted_cdf"
    )
    return min(float(low), value), max(float(high), value)


def outer(intervals: Sequence[tuple[float, float]]) -> Ends:
    """Return the smallest interval that holds all; an infinite end is None, since no row can hold it."""
    low, high = min(low for low, _ in intervals), max(high for _, high in intervals)
    return (low if np.isfinite(low) else None), (high if np.isfinite(high) else None)
