"""Rows that follow from the points of curves: costs to reach qualities, and ratios between models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from operator import attrgetter
from typing import Any

import numpy as np

from lsgm.progress import aligned
from lsgm.results import Row
from lsgm.results.labels import sampler_name
from lsgm.results.row import pareto_front
from lsgm_eval.cost_curve.points import REFERENCE
from lsgm_eval.cost_curve.reach import Curve, Ratio, Reached, against_reference, both_ratios, reach, speedup
from lsgm_eval.metrics.difference import DOUBT
from lsgm_eval.metrics.intervals import NORMAL_95
from lsgm_eval.rows import Context

__all__ = ["COSTS", "default_target", "derived_rows", "point_lines", "reach_lines"]

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

    def curve(self, cost: str) -> Curve | None:
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
        return Curve(np.array(costs, dtype=np.float64), values, errors, names)

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
    have. The interval holds the ratio at both distances.
    """
    names = first.context.model, second.context.model
    ratio, gap = speedup(*reached, names), DOUBT * (second.bias_at(target) - first.bias_at(target))
    if not gap or ratio.value is None:
        return ratio
    moved = second.reach(cost, target + gap) if target + gap > 0 else None
    other = speedup(reached[0], moved, names) if moved is not None else None
    note = f"the interval holds that biases at this n may differ by {gap:+.2g}"
    return both_ratios(ratio, other, note)


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
                _number(row.value),
                _interval(row),
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
        texts = (row.model, row.metric, row.target or "", _number(row.value), _interval(row))
        cells.append((*texts, row.sampler or "", row.note or ""))
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


def _interval(row: Row) -> str:
    if row.ci_low is None and row.ci_high is None:
        return ""
    return f"{_number(row.ci_low)} .. {_number(row.ci_high)}"
