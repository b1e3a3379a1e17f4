"""Which points are worth their cost: the Pareto front over (cost, loss), and where it reaches a loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from lsgm.results.row import pareto_front
from lsgm_eval.metrics.intervals import NORMAL_95

__all__ = [
    "REPEATS",
    "Crossing",
    "Curve",
    "Ratio",
    "Reached",
    "against_reference",
    "bias_corrected",
    "both_ratios",
    "crossing",
    "crossings",
    "outer",
    "reach",
    "speedup",
]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Crossing:
    """Where a front reaches a loss: the cost, and the points on both sides by their numbers."""

    cost: float
    before: int | None
    """The dearest point of the front that does not reach it; None where the cheapest point does already."""
    after: int


def crossing(costs: Sequence[float], losses: Sequence[float], target: float) -> Crossing | None:
    """Return where the front first has a loss of at most ``target``, or None where it never has.

    Between neighbours of the front log cost is a linear function of log loss (of loss where one is not above
    0, as an unbiased distance may be). What the cheapest point reaches costs at most its cost.
    """
    front = pareto_front(costs, losses)
    for before, after in zip([None, *front], front, strict=False):
        if losses[after] > target:
            continue
        if before is None or costs[before] <= 0:
            return Crossing(costs[after], before, after)
        share = _share(losses[before], losses[after], target)
        return Crossing(costs[before] ** (1 - share) * costs[after] ** share, before, after)
    return None


def _share(high: float, low: float, target: float) -> float:
    """Return how far from ``high`` to ``low`` the target lies, in logarithms where they exist."""
    if low > 0:
        high, low, target = math.log(high), math.log(low), math.log(target)
    return (high - target) / (high - low)


def crossings(costs: Array, losses: Array, target: float) -> Array:
    """Return `crossing`'s cost for every row of losses [R, P] at costs [P]: [R], infinite where never."""
    order = np.argsort(costs, kind="stable")
    cost, starts = np.unique(costs[order], return_index=True)
    loss = np.minimum.reduceat(losses[:, order], starts, axis=1)
    best, rows = np.minimum.accumulate(loss, axis=1), np.arange(len(loss))
    reached = best <= target
    after = reached.argmax(axis=1)
    high, low = best[rows, np.maximum(after - 1, 0)], loss[rows, after]
    # The front's point before the crossing is where the best loss so far was first attained.
    before = (best > high[:, None]).sum(axis=1)
    inner = (after > 0) & (cost[before] > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = (np.log(high) - np.log(target)) / (np.log(high) - np.log(low))
        share = np.where(low > 0, logs, (high - target) / (high - low))
        between = cost[before] ** (1 - share) * cost[after] ** share
    return np.where(reached.any(axis=1), np.where(inner, between, cost[after]), np.inf)


# What it costs to reach a quality, with an interval from the errors of the measured points

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


# How many times cheaper one model is than another, or than a reference, at equal quality


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
