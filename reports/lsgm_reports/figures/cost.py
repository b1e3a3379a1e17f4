"""The figure of quality against cost: curves of a metric over a cost, envelopes, single measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsgm.discovery import import_matplotlib
from lsgm.files.write import atomic_path
from lsgm.results.labels import curve_name, family, is_adaptive
from lsgm.results.metrics import Shown
from lsgm.results.row import Row, row_id
from lsgm_reports.figures.style import (
    INK,
    MARKERS,
    PALETTE,
    STYLE,
    clipped,
    drawing,
    is_drawable,
    nice_ticks,
    plain_labels,
)
from lsgm_reports.read import grouped
from lsgm_reports.tables.headline import metrics_of
from lsgm_reports.tables.points import COSTS, Cost, costs_of, front_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

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
        return [row.number for row in self.rows]

    @property
    def bands(self) -> list[tuple[float, float, float]]:
        """Cost and both ends of the interval, of the points that have one on the axes."""
        pairs = zip(self.costs, map(_ends, self.rows), strict=True)
        return [(at, *ends) for at, ends in pairs if ends is not None]

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


def _ends(row: Row) -> tuple[float, float] | None:
    """Return the interval of a point, None where an end is unknown or beyond every axis."""
    return row.interval if is_drawable(row.ci_low) and is_drawable(row.ci_high) else None


def curve_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the points of the curves that took network evaluations, which have a place on the axis."""
    return [row for row in rows if row.group == "curve" and row.nfe_mean]


def _measured(rows: Sequence[Row], cost: Cost) -> list[Row]:
    return [row for row in curve_rows(rows) if row.value is not None and cost.of(row)]


def curves_of(rows: Sequence[Row], cost: Cost = _NFE) -> list[Curve]:
    """Return one curve per metric, model and sampler with its options, in the order of the file."""
    found = grouped(_measured(rows, cost), lambda row: (row.metric, row.model, curve_name(row.sampler)))
    return [
        Curve(name, sorted(mine, key=lambda row: cost.of(row) or 0.0), cost)
        for (_, _, name), mine in found.items()
    ]


def envelopes_of(rows: Sequence[Row], cost: Cost) -> list[Curve]:
    """Return for each model its Pareto front over all samplers: what it gives under its best ones."""
    by_model = grouped(_measured(rows, cost), lambda row: row.model)
    return [Curve("best", front_of(mine, cost), cost) for mine in by_model.values()]


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


# The figure of quality against cost: a row per metric, a column per currency


def cost_figure(rows: Sequence[Row]) -> Figure | None:
    """Draw each quality metric against every cost that is known, or return None where there are no curves.

    Colour is the model, marker the sampler. Thick: the best of a model's samplers at each cost, with 95 %
    intervals as bands; thin: each sampler. Adaptive solvers are diamonds without a line, a single
    measurement a square with its interval, a model that takes nothing of a currency a dashed level. Ringed
    points are the Pareto front over all models.
    """
    points, curves = curve_rows(rows), curves_of(rows)
    drawn = dict.fromkeys(curve.rows[0].metric for curve in curves)
    if not drawn:
        return None
    known = {metric.key: metric for metric in metrics_of(points)}
    costs = costs_of(points) or [_NFE]
    models = list(dict.fromkeys(row.model for row in rows if row.group != "reach"))
    colours = {model: PALETTE[i % len(PALETTE)] for i, model in enumerate(models)}
    # The samplers that have a marker of their own.
    fixed = dict.fromkeys(curve.sampler for curve in curves if not curve.adaptive)
    markers = {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(fixed)}
    with drawing(len(costs), len(drawn)) as (figure, panels):
        legend = _legend(curves, markers)
        columns = 2 * len(costs)
        figure.set_size_inches(4.4 * len(costs), _height(len(models), len(drawn), len(legend) // columns))
        for axes, (key, cost) in zip(panels, product(drawn, costs), strict=True):
            _panel(axes, rows, known[key], cost, colours, markers)
        figure.legend(handles=legend, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    return figure


def _height(models: int, metrics: int, lines: int) -> float:
    """Return inches in which the names beside each panel, and the lines of the legend, have room."""
    return max(3.4, 0.19 * models) * metrics + 0.2 * (1 + lines)


def crowded(rows: Sequence[Row]) -> str:
    """Return why the figure of these rows would have no room for what it shows, or "" where it has."""
    points = curve_rows(rows)
    models = len({row.model for row in rows if row.group != "reach"})
    metrics = len({row.metric for row in points})
    samplers = len({curve_name(row.sampler) for row in points})
    # Inches: at 200 dots to the inch matplotlib draws less than three times as many.
    if _height(models, metrics, samplers // 2) <= 120 and len(points) <= 20_000:
        return ""
    return (
        f"{len(points):,} points of {models:,} models, {metrics:,} metrics and {samplers:,} samplers have no "
        "room in one figure; give fewer files to see it"
    )


def _panel(
    axes: Axes,
    rows: Sequence[Row],
    metric: Shown,
    cost: Cost,
    colours: dict[str, str],
    markers: dict[str, str],
) -> None:
    # What has no place on the axes is left out.
    mine = [
        row
        for row in rows
        if row.metric == metric.key
        and (row.value is None or is_drawable(row.value))
        and (not (spent := cost.of(row)) or is_drawable(spent, logarithmic=True))
    ]
    curves, levels = curves_of(mine, cost), levels_of(mine, cost)
    for curve in curves:  # thin: the envelope is what is compared
        if curve.adaptive:
            style: Any = {"linestyle": "", "marker": "D", "markersize": 4}
        else:
            style = {"linewidth": 0.7, "alpha": 0.6, "marker": markers[curve.sampler], "markersize": 3.5}
        axes.plot(curve.costs, curve.values, color=colours[curve.model], **style)
    for best in envelopes_of(mine, cost):
        colour = colours[best.model]
        axes.plot(best.costs, best.values, color=colour, linewidth=2.2, label=best.model, zorder=3)
        if bands := best.bands:
            costs, lows, highs = zip(*bands, strict=True)
            axes.fill_between(costs, lows, highs, color=colour, alpha=0.18, linewidth=0)
    for level in levels:
        _level(axes, level, colours[level.row.model])
    # An invisible spot over every point leads to the row it shows, where the format has links.
    spots = [spot for curve in curves for spot in zip(curve.costs, curve.values, curve.rows, strict=True)]
    spots += [(level.cost, level.row.number, level.row) for level in levels if level.cost]
    if spots:
        places, values, shown = zip(*spots, strict=True)
        spread = axes.scatter(places, values, s=60, alpha=0.0, linewidths=0, zorder=5)
        spread.set_urls([f"#row-{row_id(row)}" for row in shown])
    # What costs nothing may beat others, and has no place of its own on a logarithmic axis.
    front = [row for row in front_of([row for row in mine if row.group == "curve"], cost) if cost.of(row)]
    axes.plot([cost.of(row) or 0.0 for row in front], [row.number for row in front], **_RING, zorder=4)
    axes.set_xscale("log")
    if spots:
        _quality_scale(axes, curves, [*values, *(level.row.number for level in levels if not level.cost)])
        nice_ticks(axes.xaxis, min(places), max(places))
    axes.set_xlabel(cost.axis)
    axes.set_ylabel(_axis(metric))


_RING: Any = {"linestyle": "", "marker": "o", "markersize": 8, "fillstyle": "none", "markeredgecolor": INK}


def _axis(metric: Shown) -> str:
    if not metric.key.startswith(("frechet", "kernel")):
        return clipped(metric.head, 60)
    direction = {True: ", higher is better", False: ", lower is better", None: ""}[metric.higher_is_better]
    unit = f" [{clipped(metric.unit)}]" if metric.unit else ""
    return f"{clipped(metric.label, 60)} distance{unit}{direction}"


def _quality_scale(axes: Axes, curves: Sequence[Curve], values: Sequence[float]) -> None:
    """Choose a logarithmic axis for values that span much, linear around 0 where intervals reach it."""
    bands = [band for curve in curves for band in curve.bands]
    if max(values) <= 8 * sorted(values)[len(values) // 4]:
        return
    if is_drawable(min([*values, *(low for _, low, _ in bands)]), logarithmic=True):
        axes.set_yscale("log")
        nice_ticks(axes.yaxis, min(values), max(values))
        return
    # Estimates without bias fall below 0: there the axis is linear over the size of their errors.
    widths = sorted((high - low) / 2 for _, low, high in bands)
    middle = widths[len(widths) // 2] if widths else 0.0
    furthest = max(abs(value) for value in values)
    axes.set_yscale("symlog", linthresh=max(middle or furthest / 100, 1e-12 * furthest, 1e-30))
    plain_labels(axes.yaxis)


def _level(axes: Axes, level: Level, colour: str) -> None:
    """Draw a measurement that is no curve: a square at its cost, or a level across where it has none."""
    ends, value = _ends(level.row), level.row.number
    if level.cost:
        arms = [[max(value - ends[0], 0.0)], [max(ends[1] - value, 0.0)]] if ends else None
        axes.errorbar(
            [level.cost], [value], yerr=arms, color=colour, marker="s", capsize=2.5, label=level.label
        )
        return
    axes.axhline(value, color=colour, linestyle=(0, (5, 2)), linewidth=1.1, label=level.label)
    if ends:
        axes.axhspan(*ends, color=colour, alpha=0.12, linewidth=0)


def _legend(curves: Sequence[Curve], markers: dict[str, str]) -> list[Line2D]:
    from matplotlib.lines import Line2D

    thin: Any = {"color": INK, "linewidth": 0.7}
    adaptive = dict.fromkeys(curve.sampler for curve in curves if curve.adaptive)
    return [
        *(Line2D([], [], **thin, marker=marker, label=clipped(name)) for name, marker in markers.items()),
        *(Line2D([], [], color=INK, linestyle="", marker="D", label=clipped(name)) for name in adaptive),
        Line2D([], [], color=INK, linewidth=2.2, label="best sampler of a model"),
        Line2D([], [], **_RING, label="Pareto front"),
    ]


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG, PDF and SVG beside each other, the same bytes for the same figure.

    The SVG has words that are text, and links ``#row-ID`` where points stand, for a page that shows it among
    its own and lends it the ground's colour.
    """
    mpl = import_matplotlib()
    written = []
    for suffix, metadata in ((".png", "Software"), (".pdf", "CreationDate"), (".svg", "Date")):
        # Not `with_suffix`: a task's version may have a point in it.
        path = stem.with_name(f"{stem.name}{suffix}")
        with mpl.rc_context(STYLE), atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=200, metadata={metadata: None}, facecolor="white")
        figure.set_layout_engine("none")  # the first file has found it
        written.append(path)
    return written
