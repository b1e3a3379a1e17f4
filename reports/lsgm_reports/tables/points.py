"""What an image costs, in three currencies: network evaluations, seconds, floating-point operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from lsgm.results.front import pareto_front
from lsgm.results.labels import curve_name, sampler_label
from lsgm.results.row import Row
from lsgm_reports.blocks import MISSING, Cell, Column, Footnotes, Table, cell_of, hold_table
from lsgm_reports.digits import plain
from lsgm_reports.read import grouped, ranks
from lsgm_reports.tables.headline import metrics_of

__all__ = ["COSTS", "Cost", "costs_of", "curve_table", "front_of", "front_tables"]


@dataclass(frozen=True)
class Cost:
    """One currency: how rows, axes and sentences call it, and what a row says of it."""

    key: str
    """As in ``nfe_to_reach`` and ``speedup_nfe``."""
    axis: str
    noun: str
    of: Callable[[Row], float | None]
    """Cost per image, None where the row does not know; 0 where there is none."""


COSTS = (
    Cost("nfe", "network evaluations per image (NFE)", "evaluations", attrgetter("nfe_mean")),
    Cost("seconds", "seconds per image, decoder included", "seconds", attrgetter("seconds_per_image")),
    Cost("flops", "FLOPs per image, decoder included", "FLOPs", attrgetter("flops_per_image")),
)


def costs_of(points: Sequence[Row]) -> list[Cost]:
    """Return the currencies in which at least two points of a curve are known: what can be drawn.

    Seconds that are the same at every NFE are those of a whole run, and no cost of a point.
    """
    found = []
    for cost in COSTS:
        known = {value for row in points if (value := cost.of(row))}
        if len(known) > 1 or (cost.key == "nfe" and known):
            found.append(cost)
    return found


# Which measured points are worth their cost: the Pareto front over (cost, quality)


def front_of(points: Sequence[Row], cost: Cost) -> list[Row]:
    """Return the points of one metric that no other beats or equals in both cost and quality, by cost.

    Of equal points the first stands. The best of several noisy values is a little too good: the front is
    of the values as measured, and its intervals are those of its points. Points of unknown cost or
    quality are left out; one that costs nothing belongs to it.
    """
    known = [row for row in points if cost.of(row) is not None and row.value is not None]
    sign = -1.0 if any(row.higher_is_better for row in known) else 1.0
    losses = [sign * (row.value or 0.0) for row in known]
    return [known[k] for k in pareto_front([cost.of(row) or 0.0 for row in known], losses)]


# Tables of measured points: quality and every cost of each, and which of them are on the Pareto front


def curve_table(rows: Sequence[Row]) -> Table | None:
    """Return the points of the curves, by model, sampler and NFE, or None where there are none."""
    points = [row for row in rows if row.group == "curve"]
    if not points:
        return None
    notes = Footnotes()
    metrics = metrics_of(points)
    places: dict[tuple[str, str, float], dict[str, Row]] = {}
    for row in points:
        key = (row.model, row.sampler or "none", row.nfe_mean or 0.0)
        places.setdefault(key, {})[row.metric] = row
    order = ranks((row.model, curve_name(row.sampler)) for row in points)
    ranked = sorted(places, key=lambda key: (order[key[0], curve_name(key[1])], key[2]))
    hold_table("Quality against cost, point by point", len(ranked), len(metrics))
    columns = [Column("Model", "left"), Column("Sampler", "left"), Column("NFE")]
    heads = _spent_heads(points)
    columns += [Column(head) for head in heads] + [Column(metric.head) for metric in metrics]
    grid = []
    for place in ranked:
        model, sampler, _ = place
        found = places[place]
        any_row = next(iter(found.values()))
        spent = _spent(any_row)
        shown = [(_evaluations(any_row), any_row.nfe_mean), *(spent[head] for head in heads)]
        cells = [Cell(model), Cell(sampler_label(sampler)), *(_known(*each, notes) for each in shown)]
        grid.append([*cells, *(cell_of(found.get(metric.key), notes) for metric in metrics)])
    return Table("Quality against cost, point by point", columns, grid, notes.notes)


def _known(text: str, number: float | None, notes: Footnotes) -> Cell:
    return Cell(text, sort=number, mark=notes.mark("not recorded") if text == MISSING else "")


def _evaluations(row: Row) -> str:
    if row.nfe_mean is None:
        return MISSING
    most = row.nfe_max if row.nfe_max is not None and row.nfe_max > row.nfe_mean else None
    return plain(row.nfe_mean) + (f" (max {plain(most)})" if most else "")


def _spent(row: Row) -> dict[str, tuple[str, float | None]]:
    """Return what a point took beside evaluations, column by column: as it is shown, and to sort by."""
    seconds, flops = row.seconds_per_image, row.flops_per_image
    return {
        "ms / image": (MISSING, None) if seconds is None else (f"{1e3 * seconds:.3g}", seconds),
        "Decoder's time": _share(row.decoder_seconds, row.seconds),
        "FLOPs / image": (MISSING, None) if flops is None else (f"{flops:.3g}", flops),
        "Decoder's FLOPs": _share(row.decoder_flops_per_image, flops),
    }


def _spent_heads(points: Sequence[Row]) -> list[str]:
    """Return the columns of which some point knows something; seconds of a whole run are of no point."""
    timed = any(cost.key == "seconds" for cost in costs_of(points))
    spent = [_spent(row if timed else replace(row, seconds=None)) for row in points]
    return [head for head in spent[0] if any(each[head][0] != MISSING for each in spent)]


def _share(part: float | None, whole: float | None) -> tuple[str, float | None]:
    return (MISSING, None) if part is None or not whole else (f"{part / whole:.1%}", part / whole)


def front_tables(rows: Sequence[Row]) -> list[Table]:
    """Return, metric by metric, the points that no other beats in cost and quality, in every currency."""
    points = [row for row in rows if row.group == "curve"]
    costs = costs_of(points)
    if not costs or len(points) < 2:
        return []
    found = grouped(points, lambda row: row.metric)
    return [_front(found[metric.key], metric.head, costs) for metric in metrics_of(points)]


def _front(points: Sequence[Row], head: str, costs: Sequence[Cost]) -> Table:
    notes, grid = Footnotes(), []
    for cost in costs:
        for row in front_of(points, cost):
            spent = cost.of(row) or 0.0
            text = plain(spent) if cost.key == "nfe" else f"{spent:.3g}"
            words = (row.model, sampler_label(row.sampler))
            cells = [Cell(cost.noun), Cell(text, sort=spent), *(Cell(word) for word in words)]
            grid.append([*cells, cell_of(row, notes)])
    columns = [Column("Cost", "left"), Column("Per image"), Column("Model", "left")]
    columns += [Column("Sampler", "left"), Column(head)]
    caption = (
        "No other point, of any model, is at once cheaper and better than one of these by the values as "
        "measured, of which the best is a little too good."
    )
    return Table(f"Pareto front: {head.rstrip(' ↑↓')}", columns, grid, notes.notes, caption)
