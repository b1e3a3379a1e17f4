"""What it costs to reach a quality, by the front of (cost, loss), and how many times less than elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from lsgm.progress import aligned
from lsgm.results import Row
from lsgm.results.labels import sampler_name
from lsgm.results.row import pareto_front
from lsgm_eval.cost_curve.points import REFERENCE
from lsgm_eval.metrics.difference import DOUBT
from lsgm_eval.metrics.intervals import NORMAL_95
from lsgm_eval.rows import Context, value_cells

Array = NDArray[np.float64]


def crossings(costs: Array, losses: Array, target: float) -> Array:
    """Return where the front of every row of losses [R, P] at costs [P] first has one of at most ``target``.

    Between neighbours of the front log cost is a linear function of log loss (of loss where one is not above
    0, as an unbiased distance may be). What the cheapest point reaches costs at most its cost. Infinite where
    the target is never reached, [R].
    """
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
class CostCurve:
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


def reach(curve: CostCurve, target: float, *, seed: int = 0) -> Reached:
    """Return the cost at which a model's front first has a loss of at most ``target``.

    The interval is that of a parametric bootstrap of the losses within their errors, bias corrected (Efron
    1987, without acceleration), because the best of several noisy points looks better than it is. Points of
    one model share their seeds, so that their errors are somewhere between independent and one error in
    common: the interval is the outer one of both cases. Costs are taken as known.
    """
    draws = _draws(curve, target, seed)
    cost = float(crossings(curve.costs, curve.losses[None], target)[0])
    if not math.isfinite(cost):
        chance = float(np.isfinite(draws).mean())
        note = f"not reached by {len(curve.costs)} points"
        note += f"; within their errors it might be, with probability {chance:.2g}" if chance >= 0.01 else ""
        return Reached(None, None, None, (), note, draws)
    low, high = outer([bias_corrected(cost, draw) for draw in draws])
    notes = (
        [] if high is not None else ["the upper end is not known: within the errors it may not be reached"]
    )
    cheapest = float(curve.costs.min())
    if not curve.is_level and (low is None or low <= cheapest):
        low = None
        notes.append(
            "the cheapest point reaches it already, so that this is an upper bound: measure smaller budgets"
            if cost <= cheapest
            else "the lower end is not known: within the errors the cheapest point may reach it already"
        )
    front = pareto_front(curve.costs.tolist(), curve.losses.tolist())
    after = next(place for place, k in enumerate(front) if curve.losses[k] <= target)
    ends = [curve.samplers[k] for k in front[max(after - 1, 0) : after + 1]]
    samplers = tuple(dict.fromkeys(filter(None, ends)))
    return Reached(cost, low, high, samplers, "; ".join(notes), draws)


def _draws(curve: CostCurve, target: float, seed: int) -> Array:
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


def against_reference(reached: Reached, cost: float) -> Ratio:
    """Return the known cost of a reference procedure over the cost to reach its quality."""
    if reached.cost is None or reached.cost <= 0:
        return Ratio(None, None, None, reached.note or "it needs none")
    value = cost / reached.cost
    with np.errstate(divide="ignore"):
        low, high = outer([bias_corrected(value, cost / draws) for draws in reached.draws])
    return Ratio(value, low, None if reached.low is None else high, reached.note)


# Rows that follow from the points of curves: costs to reach qualities, and ratios between models

TINY = 1e-12
"""What stands for a value that is not above 0 where better is higher and losses are 1 / value."""


COSTS: Mapping[str, Callable[[Row], float | None]] = {
    "nfe": attrgetter("nfe_mean"),
    "seconds": attrgetter("seconds_per_image"),
    "flops": attrgetter("flops_per_image"),
}
"""The currencies of an image, the decoder included; None where a row does not know it."""


def derived_rows(contexts: Sequence[Context], points: Sequence[Row], targets: Sequence[float]) -> list[Row]:
    """Return the rows of group ``reach`` for every metric of ``points``, the curve rows of these models.

    Without ``targets`` each metric's is `default_target`. Every model's own reference procedure is compared
    with its best samplers at the quality that the reference has within its interval.
    """
    rows: list[Row] = []
    for metric in dict.fromkeys(row.metric for row in points):
        of = {
            context.model: [row for row in points if (row.model, row.metric) == (context.model, metric)]
            for context in contexts
        }
        measured = [_Measured(context, of[context.model]) for context in contexts if of[context.model]]
        for target in targets or default_target([model.rows for model in measured]):
            rows += _at(measured, metric, target)
        for model in measured:
            rows += _reference(model, metric)
    return rows


def default_target(curves: Sequence[Sequence[Row]]) -> tuple[float, ...]:
    """Return the best quality that every model with a sampler attains within its interval; none without one.

    It is the worst, over models, of the better-known end of the interval of a model's best point: equal
    distance to the reference as far as the errors can tell.
    """
    ends = []
    for rows in curves:
        known = [row for row in rows if row.value is not None and row.sampler]
        if len(known) > 1:
            higher = bool(known[0].higher_is_better)
            best = (max if higher else min)(known, key=lambda row: row.number)
            ends.append((_lenient(best), higher))
    if not ends:
        return ()
    worst = (min if ends[0][1] else max)(end for end, _ in ends)
    return (worst,) if worst > 0 else ()


def _lenient(row: Row) -> float:
    """Return the end of a row's interval on the side of poor quality, to four digits."""
    end = row.ci_low if row.higher_is_better else row.ci_high
    return float(f"{row.value if end is None else end:.4g}")


@dataclass(frozen=True)
class _Measured:
    """A model and its points for one metric."""

    context: Context
    rows: Sequence[Row]

    @property
    def higher(self) -> bool:
        return bool(self.rows[0].higher_is_better)

    @property
    def seed(self) -> int:
        return int.from_bytes(self.context.model.encode()[-8:], "big")

    def curve(self, cost: str) -> CostCurve | None:
        """Return the points in one currency, or None where one of them does not know it."""
        known = [row for row in self.rows if row.value is not None]
        costs = [COSTS[cost](row) for row in known]
        if not known or any(each is None for each in costs):
            return None
        values = np.array([row.value for row in known], dtype=np.float64)
        errors = np.array([_error(row) for row in known])
        if self.higher:
            values, errors = values.clip(TINY), errors / values.clip(TINY) ** 2
            values = 1 / values
        names = tuple(row.sampler or "" for row in known)
        return CostCurve(np.array(costs, dtype=np.float64), values, errors, names)

    def reach(self, cost: str, target: float) -> Reached | None:
        """Return the cost to reach a quality, or None where the currency is not known."""
        curve = self.curve(cost)
        if curve is None:
            return None
        return reach(curve, 1 / target if self.higher else target, seed=self.seed)

    def bias_at(self, target: float) -> float:
        """Return the estimated bias of the point that is nearest to a distance; 0 where it has none."""
        known = [row for row in self.rows if row.value is not None]
        nearest = min(known, key=lambda row: abs(row.number - target))
        return float(nearest.bias or 0.0)

    def fields(self, metric: str, target: float) -> dict[str, Any]:
        """Return what a derived row shares with the points that it is of."""
        first = self.rows[0]
        shared = {key: first[key] for key in ("n", "n_of", "split", "extractor", "reference_sha256", "seeds")}
        return shared | {"target": f"{metric}{'>=' if self.higher else '<='}{target:.6g}"}


def _error(row: Row) -> float:
    """Return a standard error from the upper side of an interval, whose lower one may stop at 0."""
    return 0.0 if row.ci_high is None else max(0.0, (row.ci_high - row.number) / NORMAL_95)


def _at(models: Sequence[_Measured], metric: str, target: float) -> list[Row]:
    """Return all rows of one quality: every model's costs, and every pair's ratios."""
    rows = []
    for cost in COSTS:
        found = [(model, model.reach(cost, target)) for model in models]
        known = [(model, reached) for model, reached in found if reached is not None]
        for model, reached in known:
            rows.append(
                model.context.row(
                    f"{cost}_to_reach",
                    reached.cost,
                    ci_low=reached.low,
                    ci_high=reached.high,
                    sampler="; ".join(reached.samplers) or None,
                    note=reached.note or None,
                    **model.fields(metric, target),
                )
            )
        for (first, a), (second, b) in combinations(known, 2):
            names = first.context.model, second.context.model
            context = replace(first.context, model=" / ".join(names), checkpoint_sha256=None)
            ratio = _less_bias(first, second, cost, target, (a, b))
            rows.append(_ratio(context, f"speedup_{cost}", ratio, first.fields(metric, target)))
    return rows


def _less_bias(
    first: _Measured, second: _Measured, cost: str, target: float, reached: tuple[Reached, Reached]
) -> Ratio:
    """Return the ratio of two models' costs at one distance, its interval that of equal quality as well.

    Distances of n images are too large by a bias that differs between models: at one distance d the second's
    quality is the first's where its own distance is d + b - a, of the biases a and b that their points there
    have. The interval holds the ratio at both distances, without an upper end where the second model reaches
    nothing at its own.
    """
    names = first.context.model, second.context.model
    ratio, gap = speedup(*reached, names), DOUBT * (second.bias_at(target) - first.bias_at(target))
    if not gap or ratio.value is None:
        return ratio
    moved = second.reach(cost, target + gap) if target + gap > 0 else None
    other = speedup(reached[0], moved, names) if moved is not None else None
    note = f"the interval holds that biases at this n may differ by {gap:+.2g}"
    notes = "; ".join(filter(None, (ratio.note, note)))
    if other is None or other.value is None:
        return replace(ratio, high=None, note=notes)
    low = None if ratio.low is None or other.low is None else min(ratio.low, other.low)
    high = None if ratio.high is None or other.high is None else max(ratio.high, other.high)
    return replace(ratio, low=low, high=high, note=notes)


def _reference(model: _Measured, metric: str) -> list[Row]:
    """Return how much cheaper the best samplers reach what the reference procedure gives."""
    name = sampler_name(REFERENCE)
    found = [row for row in model.rows if row.sampler == name and row.value is not None]
    if not found or (target := _lenient(found[0])) <= 0:
        return []
    rows = []
    for cost, of in COSTS.items():
        reached, spent = model.reach(cost, target), of(found[0])
        if reached is None or spent is None:
            continue
        ratio = against_reference(reached, spent)
        note = "; ".join(filter(None, (f"{name} takes {spent:.4g} ({cost})", ratio.note)))
        fields = model.fields(metric, target) | {"sampler": "; ".join(reached.samplers) or None}
        rows.append(_ratio(model.context, f"speedup_vs_reference_{cost}", replace(ratio, note=note), fields))
    return rows


def _ratio(context: Context, metric: str, ratio: Ratio, fields: dict[str, Any]) -> Row:
    return context.row(
        metric, ratio.value, ci_low=ratio.low, ci_high=ratio.high, note=ratio.note or None, **fields
    )


# Both for the terminal: the points with their fronts marked, and what follows from them


def point_lines(rows: Sequence[Row]) -> list[str]:
    """Return aligned lines of points; ``front`` names the currencies in which no other point beats it."""
    cells = [("model", "sampler", "metric", "value", "95 % interval", "NFE", "ms/image", "FLOPs", "front")]
    for row, front in zip(rows, _fronts(rows), strict=True):
        seconds, flops = COSTS["seconds"](row), COSTS["flops"](row)
        cells.append(
            (
                row.model,
                row.sampler or "",
                row.metric,
                *value_cells(row.value, row.ci_low, row.ci_high, 4),
                _number(row.nfe_mean),
                _number(None if seconds is None else 1e3 * seconds),
                _number(flops),
                ", ".join(front),
            )
        )
    return aligned(cells)


def reach_lines(rows: Sequence[Row]) -> list[str]:
    """Return aligned lines of costs to reach qualities and of ratios, each with what must be said of it."""
    cells = [("model", "quantity", "at", "value", "95 % interval", "sampler", "note")]
    for row in rows:
        told = value_cells(row.value, row.ci_low, row.ci_high, 4)
        cells.append((row.model, row.metric, row.target or "", *told, row.sampler or "", row.note or ""))
    return aligned(cells) if rows else []


def _fronts(rows: Sequence[Row]) -> list[list[str]]:
    """Return, point by point, the currencies in which it belongs to its metric's front over all models."""
    found: list[list[str]] = [[] for _ in rows]
    for metric in dict.fromkeys(row.metric for row in rows):
        for cost, of in COSTS.items():
            known = [
                (k, spent, row.loss)
                for k, row in enumerate(rows)
                if row.metric == metric and row.value is not None and (spent := of(row)) is not None
            ]
            for at in pareto_front([spent for _, spent, _ in known], [loss for _, _, loss in known]):
                found[known[at][0]].append(cost)
    return found


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
