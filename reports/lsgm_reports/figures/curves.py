"""What the cost figure draws: curves of a metric over a cost, envelopes, and single measurements beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lsgm.results.labels import curve_name, family, is_adaptive
from lsgm.results.row import Row
from lsgm_reports.figures.style import is_drawable
from lsgm_reports.read import grouped
from lsgm_reports.tables.points import COSTS, Cost, front_of

__all__ = ["Curve", "Level", "curve_rows", "curves_of", "envelopes_of", "levels_of", "placed"]

_NFE = COSTS[0]


@dataclass(frozen=True)
class Curve:
    """One model with one sampler at several costs, ascending; or with whichever sampler is best."""

    model: str
    sampler: str
    metric: str
    costs: list[float]
    values: list[float]
    lows: list[float | None]
    highs: list[float | None]
    rows: list[Row]
    """The points themselves."""
    adaptive: bool = False
    """Whether the solver chooses its steps, so that its points belong to tolerances."""


@dataclass(frozen=True)
class Level:
    """One measurement that belongs to no curve."""

    model: str
    label: str
    cost: float | None
    """None where the model takes nothing of this currency: the level holds at every cost."""
    value: float
    low: float | None
    high: float | None
    row: Row


def curve_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the points of the curves that took network evaluations, which have a place on the axis."""
    return [row for row in rows if row.group == "curve" and row.nfe_mean]


def curves_of(rows: Sequence[Row], cost: Cost = _NFE) -> list[Curve]:
    """Return one curve per metric, model and sampler with its options, in the order of the file."""
    points = [row for row in curve_rows(rows) if row.value is not None and cost.of(row)]
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in points:
        found.setdefault((row.metric, row.model, curve_name(row.sampler)), []).append(row)
    return [_curve(mine, name, cost) for (_, _, name), mine in found.items()]


def envelopes_of(rows: Sequence[Row], metric: str, cost: Cost) -> list[Curve]:
    """Return for each model its Pareto front over all samplers: what it gives under its best ones."""
    points = [
        row for row in curve_rows(rows) if row.metric == metric and cost.of(row) and row.value is not None
    ]
    fronts = [front_of(mine, cost) for mine in grouped(points, lambda row: row.model).values()]
    return [_curve(front, "best", cost) for front in fronts]


def placed(rows: Sequence[Row], cost: Cost) -> list[Row]:
    """Return the rows but for those whose value or cost has no place on the axes of a figure."""
    return [
        row
        for row in rows
        if (row.value is None or is_drawable(row.value))
        and (not (spent := cost.of(row)) or is_drawable(spent, logarithmic=True))
    ]


def _end(end: float | None) -> float | None:
    """Return an end of an interval, None where it is beyond every axis."""
    return end if is_drawable(end) else None


def _curve(points: list[Row], name: str, cost: Cost) -> Curve:
    mine = sorted(points, key=lambda row: cost.of(row) or 0.0)
    return Curve(
        mine[0].model,
        name,
        mine[0].metric,
        [cost.of(row) or 0.0 for row in mine],
        [row.value or 0.0 for row in mine],
        [_end(row.ci_low) for row in mine],
        [_end(row.ci_high) for row in mine],
        mine,
        all(is_adaptive(row.sampler) for row in mine),
    )


def levels_of(rows: Sequence[Row], metric: str, cost: Cost = _NFE) -> list[Level]:
    """Return measurements of a metric that are no part of a curve, each at its cost where it has one.

    They are points of the curves without network evaluations, as of a VAE, and of the headline those whose
    model and sampler, with settings, have no point.
    """
    points = [row for row in rows if row.group == "curve" and row.metric == metric]
    measured = {(row.model, row.sampler) for row in points}
    named = {(model, family(sampler)) for model, sampler in measured}
    levels = []
    for row in rows:
        curved = row.group == "curve" and bool(row.nfe_mean)
        if row.metric != metric or row.value is None or curved or row.group == "reach":
            continue
        if row.group != "curve" and (row.model, row.sampler) in measured:
            continue
        label = f"{row.model} · {family(row.sampler)}" if row.sampler and row.nfe_mean else row.model
        if row.group != "curve" and (row.model, family(row.sampler)) in named:
            label = "_"  # matplotlib lists no such label: the curve has the name already
        levels.append(
            Level(row.model, label, cost.of(row) or None, row.value, _end(row.ci_low), _end(row.ci_high), row)
        )
    return levels
