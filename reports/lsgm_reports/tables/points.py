"""Tables of costs: measured points with every cost of each, and what it costs to reach a quality."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from lsgm.results.labels import curve_name, sampler_label
from lsgm.results.metrics import metric_of
from lsgm.results.row import Row, pareto_front
from lsgm_reports.blocks import (
    MISSING,
    Cell,
    Column,
    Footnotes,
    Table,
    cell_of,
    evaluations,
    hold_table,
    left,
)
from lsgm_reports.digits import error_bar, plain, scaled
from lsgm_reports.read import grouped, ranks
from lsgm_reports.tables.headline import metrics_of


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
    points, title = [row for row in rows if row.group == "curve"], "Quality against cost, point by point"
    if not points:
        return None
    metrics, heads, notes, grid = metrics_of(points), _spent_heads(points), Footnotes(), []
    places = grouped(points, lambda row: (row.model, row.sampler or "none", row.nfe_mean or 0.0))
    hold_table(title, len(places), len(metrics))
    order = ranks((row.model, curve_name(row.sampler)) for row in points)
    for place in sorted(places, key=lambda key: (order[key[0], curve_name(key[1])], key[2])):
        model, sampler, _ = place
        found = {row.metric: row for row in places[place]}
        first = next(iter(found.values()))
        spent = _spent(first)
        shown = [(evaluations(first), first.nfe_mean), *(spent[head] for head in heads)]
        cells = [Cell(model), Cell(sampler_label(sampler)), *(_known(*each, notes) for each in shown)]
        grid.append([*cells, *(cell_of(found.get(metric.key), notes) for metric in metrics)])
    columns = left("Model", "Sampler")
    columns += [Column(head) for head in ("NFE", *heads, *(metric.head for metric in metrics))]
    return Table(title, columns, grid, notes.notes)


def _known(text: str, number: float | None, notes: Footnotes) -> Cell:
    return Cell(text, sort=number, mark=notes.mark("not recorded") if text == MISSING else "")


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
            grid.append([Cell(cost.noun), Cell(text, sort=spent), *map(Cell, words), cell_of(row, notes)])
    columns = [*left("Cost"), Column("Per image"), *left("Model", "Sampler"), Column(head)]
    caption = (
        "No other point, of any model, is at once cheaper and better than one of these by the values as "
        "measured, of which the best is a little too good."
    )
    return Table(f"Pareto front: {head.rstrip(' ↑↓')}", columns, grid, notes.notes, caption)


# What a quality costs: tables of costs to reach it, of ratios between models, and sentences on them

_NOUNS = {cost.key: cost.noun for cost in COSTS}
_REFERENCE = "vs_reference_"


def target_label(target: str | None) -> str:
    """Return a quality as a table shows it: ``Fréchet ≤ 12.3`` of ``frechet_glyphs<=12.3``."""
    target = target or ""
    signs = [(at, sign) for sign in ("<=", ">=") if (at := target.find(sign, 1)) > 0]
    at, sign = min(signs, default=(0, ""))
    metric, value = target[:at].rstrip(), target[at + 2 :].lstrip()
    if not (sign and metric and value) or any(symbol.isspace() for symbol in value):
        return target or "not stated"
    return f"{metric_of(Row('', '', metric, None)).label} {'≤' if sign == '<=' else '≥'} {value}"


def reach_table(rows: Sequence[Row]) -> Table | None:
    """Return what each model needs for each quality, in every currency, or None where nothing says so."""
    reached = [row for row in rows if row.group == "reach" and row.metric.endswith("_to_reach")]
    if not reached:
        return None
    notes, grid = Footnotes(), []
    written = {row.metric for row in reached}
    costs = [cost for cost in COSTS if f"{cost.key}_to_reach" in written]
    for (target, model), here in grouped(reached, lambda row: (row.target, row.model)).items():
        mine = {row.metric: row for row in here}
        cells = [_rough(mine.get(f"{cost.key}_to_reach"), notes) for cost in costs]
        samplers = dict.fromkeys(
            ", ".join(sampler_label(name) for name in _separate(row.sampler) if name)
            for row in mine.values()
            if row.sampler
        )
        grid.append([Cell(target_label(target)), Cell(model), *cells, Cell("; ".join(samplers) or "none")])
    names = {"nfe": "NFE ↓", "seconds": "Seconds ↓", "flops": "FLOPs ↓"}
    heads = [Column(names[cost.key]) for cost in costs]
    columns = [*left("To reach", "Model"), *heads, *left("Best sampler")]
    caption = (
        "Per image, decoder included; interpolated between neighbouring points of each model's lower "
        "envelope over its samplers, logarithmic in both. Intervals: 95 %, from the errors of the points."
    )
    return Table("What a quality costs", columns, grid, notes.notes, caption)


def _rough(row: Row | None, notes: Footnotes) -> Cell:
    """Return a cost with its interval; a very large or small one with its power of ten apart."""
    if row is None or row.value is None or row.value <= 0 or 1e-3 <= row.value < 1e6:
        return cell_of(row, notes)
    power = int(f"{row.value:e}".partition("e")[2])
    ends = [None if end is None else scaled(end, -power) for end in (row.ci_low, row.ci_high)]
    text = f"({error_bar(scaled(row.value, -power), *ends)})e{power}"
    return Cell(text, row=row, sort=row.value)


def _separate(names: str) -> list[str]:
    """Return names apart that semicolons, or commas outside of brackets, stand between."""
    parts, depth = [""], 0
    for symbol in names:
        depth = max(0, depth + (symbol == "(") - (symbol == ")"))
        if symbol == ";" or (symbol == "," and not depth):
            parts.append("")
        else:
            parts[-1] += symbol
    return [part.strip() for part in parts]


@dataclass(frozen=True)
class _Ratio:
    """What the second model costs over what the first does, at equal quality."""

    row: Row
    first: str
    second: str
    noun: str
    low: float
    """Both ends of the interval: 0 and infinity stand for such that could not be told."""
    high: float

    @property
    def verdict(self) -> str:
        """Whether the first model is ahead."""
        if self.row.value is None or (self.low, self.high) == (0.0, math.inf):
            return "unknown"
        if self.low <= 1 <= self.high:
            return "undecided: contains 1"
        return "yes" if self.low > 1 else "no"


def _ratios(rows: Sequence[Row]) -> list[_Ratio]:
    found = []
    for row in rows:
        if row.group == "reach" and row.metric.startswith("speedup_"):
            first, _, second = row.model.partition(" / ")
            currency = row.metric.removeprefix("speedup_")
            absent = "the reference procedure, dopri5 at 1e-5" if _REFERENCE in currency else "not stated"
            currency = currency.removeprefix(_REFERENCE)
            low = 0.0 if row.ci_low is None else row.ci_low
            high = math.inf if row.ci_high is None else row.ci_high
            found.append(_Ratio(row, first, second or absent, _NOUNS.get(currency, currency), low, high))
    return found


def _between(low: float, high: float) -> str:
    if high == math.inf:
        return f"above {low:.3g}" if low > 0 else "unknown"
    return f"{low:.3g} to {high:.3g}" if low > 0 else f"below {high:.3g}"


def speedup_table(rows: Sequence[Row]) -> Table | None:
    """Return the ratios of costs at equal quality, or None where nothing was compared."""
    if not (ratios := _ratios(rows)):
        return None
    notes, grid = Footnotes(), []
    for each in ratios:
        row, ratio = each.row, cell_of(each.row, notes)
        if row.value is not None:
            ratio = Cell(f"{row.value:.3g}", row=row, sort=row.value)
        words = (target_label(row.target), each.first, each.second, each.noun)
        known = None if each.verdict == "unknown" else each.low
        between = Cell(_between(each.low, each.high), sort=known)
        grid.append([*map(Cell, words), ratio, between, Cell(each.verdict)])
    columns = [*left("At", "Model", "Against", "Cost"), Column("Times cheaper ↑"), Column("95 % interval")]
    columns += left("Ahead")
    caption = "The other's cost over the model's at equal quality: above 1 the model is the cheaper one."
    return Table("Speed-ups at equal quality", columns, grid, notes.notes, caption)


def speedup_sentences(rows: Sequence[Row]) -> list[str]:
    """Return a line of Markdown per ratio that says in words what came out, whichever way it came out."""
    return [f"- {_sentence(each)}" for each in _ratios(rows)]


def _sentence(ratio: _Ratio) -> str:
    first, second, noun, value = ratio.first, ratio.second, ratio.noun, ratio.row.value
    at, between = f"At {target_label(ratio.row.target)}", _between(ratio.low, ratio.high)
    if value is None:
        return f"{at} {first} and {second} cannot be compared in {noun}: {ratio.row.note or 'not measured'}."
    match ratio.verdict:
        case "unknown":
            return (
                f"{at} the {noun} of {second} are {value:.3g} times those of {first}; without an interval "
                "that says nothing of which is ahead."
            )
        case "yes":
            return f"{at} {first} needs {value:.3g} ({between}) times fewer {noun} than {second}."
        case "no":
            turned = _between(
                1 / ratio.high if ratio.high > 0 else 0.0, 1 / ratio.low if ratio.low > 0 else math.inf
            )
            times = f"{f'{1 / value:.3g}' if value > 0 else 'infinitely many'} ({turned})"
            return f"{at} {first} is not ahead: it needs {times} times as many {noun} as {second}."
    return (
        f"{at} it is undecided whether {first} needs fewer {noun} than {second}: the ratio is {value:.3g}, "
        f"and its 95 % interval, {between}, contains 1."
    )


def cost_tables(rows: Sequence[Row]) -> list[Table]:
    """Return everything on quality against cost: speed-ups, what a quality costs, the front, all points."""
    found = (speedup_table(rows), reach_table(rows), *front_tables(rows), curve_table(rows))
    return [table for table in found if table is not None]
