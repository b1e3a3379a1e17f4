"""Figures: quality against network evaluations, and training curves. Drawn off screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lsgm_reports.curves import Curve, Level, curves_of, levels_of
from lsgm_reports.details import curve_rows
from lsgm_reports.headline import metrics_of
from lsgm_reports.rows import Row
from lsgm_reports.style import DASHES, INK, MARKERS, PALETTE, STYLE, label_ends, nice_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["nfe_figure", "save"]


def nfe_figure(rows: Sequence[Row]) -> Figure | None:
    """Draw each quality metric against NFE, a panel per metric, or return None where there are no curves.

    Colour is the model, marker and dashes the sampler; bands are 95 % intervals. A model measured at one
    place only (an adaptive solver) is a diamond with its interval, one without any network evaluation a
    dashed level.
    """
    metrics = list(dict.fromkeys(curve.metric for curve in curves_of(rows)))
    if not metrics:
        return None
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6 * len(metrics), 3.5), layout="constrained")
        FigureCanvasAgg(figure)
        models = list(dict.fromkeys(row.model for row in rows))
        for place, metric in enumerate(metrics):
            axes = figure.add_subplot(1, len(metrics), place + 1)
            _panel(axes, rows, metric, models)
        # Labels are placed by what is drawn, so everything else must have its place first.
        figure.draw_without_rendering()
        for axes in figure.axes:
            label_ends(axes)
    return figure


def _panel(axes: Axes, rows: Sequence[Row], metric: str, models: Sequence[str]) -> None:
    curves = [curve for curve in curves_of(rows) if curve.metric == metric]
    levels = levels_of(rows, metric)
    samplers = list(dict.fromkeys(curve.sampler for curve in curves))
    colours = {model: PALETTE[i % len(PALETTE)] for i, model in enumerate(models)}
    for curve in curves:
        _curve(axes, curve, colours[curve.model], samplers.index(curve.sampler), len(samplers) > 1)
    for level in levels:
        _level(axes, level, colours[level.model])
    _quality_scale(axes, curves, levels)
    axes.set_xscale("log")
    spread = [nfe for curve in curves for nfe in curve.nfe] + [level.nfe for level in levels if level.nfe]
    nice_ticks(axes.xaxis, min(spread), max(spread))
    axes.set_xlabel("network evaluations per image (NFE)")
    shown = next(each for each in metrics_of(curve_rows(rows)) if each.key == metric)
    direction = {True: ", higher is better", False: ", lower is better", None: ""}[shown.higher_is_better]
    unit = f" [{shown.unit}]" if shown.unit else ""
    axes.set_ylabel(f"{shown.label} distance{unit}{direction}" if _is_distance(metric) else shown.head)


def _quality_scale(axes: Axes, curves: Sequence[Curve], levels: Sequence[Level]) -> None:
    """Choose a logarithmic axis for values that span much, linear around 0 where intervals reach it."""
    values = [value for curve in curves for value in curve.values] + [level.value for level in levels]
    lows = [low for curve in curves for low in curve.lows if low is not None]
    if max(values) <= 8 * sorted(values)[len(values) // 4]:
        return
    if min(values + lows) > 0:
        axes.set_yscale("log")
        nice_ticks(axes.yaxis, min(values), max(values))
        return
    # Estimates without bias fall below 0: there the axis is linear over the size of their errors.
    widths = sorted(
        (high - low) / 2
        for curve in curves
        for low, high in zip(curve.lows, curve.highs, strict=True)
        if low is not None and high is not None
    )
    axes.set_yscale("symlog", linthresh=widths[len(widths) // 2] if widths else max(values) / 100)


def _is_distance(metric: str) -> bool:
    return metric.startswith(("frechet", "kernel"))


def _curve(axes: Axes, curve: Curve, colour: str, style: int, named: bool) -> None:
    name = f"{curve.model} · {curve.sampler}" if named else curve.model
    axes.plot(
        curve.nfe,
        curve.values,
        color=colour,
        linestyle=DASHES[style % len(DASHES)],
        marker=MARKERS[style % len(MARKERS)],
        label=name,
    )
    banded = [
        (nfe, low, high)
        for nfe, low, high in zip(curve.nfe, curve.lows, curve.highs, strict=True)
        if low is not None and high is not None
    ]
    if banded:
        nfe, lows, highs = zip(*banded, strict=True)
        axes.fill_between(nfe, lows, highs, color=colour, alpha=0.18, linewidth=0)


def _level(axes: Axes, level: Level, colour: str) -> None:
    """Draw a measurement that is no curve: a diamond at its NFE, or a level across where it has none."""
    if level.nfe:
        arms = None
        if level.low is not None and level.high is not None:
            arms = [[max(level.value - level.low, 0.0)], [max(level.high - level.value, 0.0)]]
        axes.errorbar(
            [level.nfe], [level.value], yerr=arms, color=colour, marker="D", capsize=2.5, label=level.label
        )
        return
    axes.axhline(level.value, color=colour, linestyle=(0, (5, 2)), linewidth=1.1, label=level.label)
    if level.low is not None and level.high is not None:
        axes.axhspan(level.low, level.high, color=colour, alpha=0.12, linewidth=0)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG and PDF beside each other, the same bytes for the same figure."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
        path = stem.with_suffix(suffix)
        figure.savefig(path, dpi=200, metadata=metadata, facecolor="white", edgecolor=INK)
        written.append(path)
    return written
