"""What the cost figure draws: curves of a metric over a cost, envelopes, and single measurements beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lsgm.results.labels import curve_name, family, is_adaptive
from lsgm.results.row import Row
from lsgm_reports.figures.style import is_drawable
from lsgm_reports.read import grouped
from lsgm_reports.tables.points import COSTS, Cost, front_of

__all__ = ["Curve", "Level", "curve_rows", "curves_of", "ends_of", "envelopes_of", "levels_of", "placed"]

_NFE = COSTS[0]


@dataclass(frozen=True)
class Curve:
    """One model with one sampler at several costs, ascending; or with whichever sampler is best."""

    sampler: str
    rows: list[Row]
    """The points."""
    cost: Cost

    @property
    def model(self) -> str:
        """The model of all points."""
        return self.rows[0].model

    @property
    def costs(self) -> list[float]:
        """Where the points stand on the axis."""
        return [self.cost.of(row) or 0.0 for row in self.rows]

    @property
    def values(self) -> list[float]:
        """What was measured at each."""
        return [row.value or 0.0 for row in self.rows]

    @property
    def bands(self) -> list[tuple[float, float, float]]:
        """Cost and both ends of the interval, of the points that have one on the axes."""
        placed = [(at, ends_of(row)) for at, row in zip(self.costs, self.rows, strict=True)]
        return [(at, *ends) for at, ends in placed if ends is not None]

    @property
    def adaptive(self) -> bool:
        """Whether the solver chooses its steps, so that its points belong to tolerances."""
        return all(is_adaptive(row.sampler) for row in self.rows)


@dataclass(frozen=True)
class Level:
    """One measurement that belongs to no curve."""

    row: Row
    label: str
    cost: float | None
    """None where the model takes nothing of this currency: the level holds at every cost."""

    @property
    def value(self) -> float:
        """What was measured."""
        return self.row.value or 0.0


def ends_of(row: Row) -> tuple[float, float] | None:
    """Return the interval of a point, None where an end is unknown or beyond every axis."""
    return row.interval if is_drawable(row.ci_low) and is_drawable(row.ci_high) else None


def curve_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the points of the curves that took network evaluations, which have a place on the axis."""
    return [row for row in rows if row.group == "curve" and row.nfe_mean]


def curves_of(rows: Sequence[Row], cost: Cost = _NFE) -> list[Curve]:
    """Return one curve per metric, model and sampler with its options, in the order of the file."""
    points = [row for row in curve_rows(rows) if row.value is not None and cost.of(row)]
    found = grouped(points, lambda row: (row.metric, row.model, curve_name(row.sampler)))
    return [
        Curve(name, sorted(mine, key=lambda row: cost.of(row) or 0.0), cost)
        for (_, _, name), mine in found.items()
    ]


def envelopes_of(rows: Sequence[Row], cost: Cost) -> list[Curve]:
    """Return for each model its Pareto front over all samplers: what it gives under its best ones."""
    points = [row for row in curve_rows(rows) if cost.of(row) and row.value is not None]
    by_model = grouped(points, lambda row: row.model)
    return [Curve("best", front_of(mine, cost), cost) for mine in by_model.values()]


def placed(rows: Sequence[Row], cost: Cost) -> list[Row]:
    """Return the rows but for those whose value or cost has no place on the axes of a figure."""
    return [
        row
        for row in rows
        if (row.value is None or is_drawable(row.value))
        and (not (spent := cost.of(row)) or is_drawable(spent, logarithmic=True))
    ]


def levels_of(rows: Sequence[Row], cost: Cost = _NFE) -> list[Level]:
    """Return measurements of one metric that are no part of a curve, each at its cost where it has one.

    They are points of the curves without network evaluations, as of a VAE, and of the headline those whose
    model and sampler, with settings, have no point.
    """
    measured = {(row.model, row.sampler) for row in rows if row.group == "curve"}
    named = {(model, family(sampler)) for model, sampler in measured}
    levels = []
    for row in rows:
        curved = row.group == "curve"
        known = row.nfe_mean if curved else (row.model, row.sampler) in measured
        if row.value is None or known or row.group == "reach":
            continue
        label = f"{row.model} · {family(row.sampler)}" if row.sampler and row.nfe_mean else row.model
        if not curved and (row.model, family(row.sampler)) in named:
            label = "_"  # matplotlib lists no such label: the curve has the name already
        levels.append(Level(row, label, cost.of(row) or None))
    return levels
