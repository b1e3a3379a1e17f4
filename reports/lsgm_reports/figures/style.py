"""How figures look: a palette that colour-blind readers tell apart, ticks at round numbers, direct labels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lsgm.discovery import import_matplotlib
from lsgm.files.names import one_line
from lsgm_reports.digits import minus

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours (Color Universal Design, 2008), those of strong contrast first."""

MARKERS = ("o", "^", "v", "P", "X", "<", ">", "p", "h", "*", "d", "8")
INK = "#333333"
GRID = "#e3e3e3"

STYLE: Any = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    # Names of models are words, whatever they are made of: a dollar sign begins no formula.
    "text.parse_math": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "lines.markeredgecolor": "white",
    "lines.markeredgewidth": 0.6,
    "pdf.fonttype": 42,
    "svg.hashsalt": "lsgm",
    # A page lends its own typeface and colours to the words of a figure.
    "svg.fonttype": "none",
}


@contextmanager
def drawing(across: int, down: int) -> Iterator[tuple[Figure, list[Axes]]]:
    """Yield a figure and its panels, line by line; what is drawn on them is named at its end."""
    mpl = import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, [figure.add_subplot(down, across, place) for place in range(1, across * down + 1)]
        # Labels are placed by what is drawn, so everything else must have its place first.
        figure.draw_without_rendering()
        for axes in figure.axes:
            _label_ends(axes)


_FARTHEST, _NEAREST = 1e30, 1e-30
"""Beyond these a number has no place in a figure: its axes, and what is computed for them, would overflow."""


def is_drawable(value: object, *, logarithmic: bool = False) -> bool:
    """Say whether a number has a place on an axis: far from overflow, and above 0 where that counts."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return (_NEAREST if logarithmic else -_FARTHEST) <= value <= _FARTHEST


def nice_ticks(axis: Axis, low: float, high: float) -> None:
    """Label a logarithmic axis at 1, 2, 5, 10, ... as plain numbers, as many as have room."""
    from matplotlib.ticker import FixedLocator, NullLocator

    low, high = max(low, _NEAREST), min(high, _FARTHEST)  # beyond, a power of ten is no float
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**decade for decade in decades for factor in factors]
        inside = [tick for tick in ticks if low / 1.5 <= tick <= high * 1.5]
        if sum(len(_label(tick)) + 2 for tick in inside) <= 40:  # letters that have room below a panel
            break
    axis.set_major_locator(FixedLocator(inside))
    axis.set_minor_locator(NullLocator())
    plain_labels(axis)


def plain_labels(axis: Axis) -> None:
    """Label the ticks of an axis as plain numbers; matplotlib writes formulas, which `STYLE` turns off."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: _label(value)))


def _label(value: float) -> str:
    number = minus(f"{value:g}")
    mantissa, _, power = number.partition("e")
    return f"{mantissa}e{int(power)}" if power else mantissa


def clipped(name: str, room: int = 26) -> str:
    """Return a name on one line, or its beginning where it would take the room of the lines that it names."""
    name = one_line(name)
    return name if len(name) <= room else f"{name[: room - 1]}…"


def _label_ends(axes: Axes) -> None:
    """Name each line at its right end, in its colour, moved apart where names would overlap."""
    handles, names = axes.get_legend_handles_labels()
    ends = []
    for handle, name in zip(handles, names, strict=True):
        line: Any = handle.lines[0] if hasattr(handle, "lines") else handle
        x, y = float(line.get_xdata()[-1]), float(line.get_ydata()[-1])
        spot = axes.transData.transform((x, y))
        across = len(line.get_xdata()) == 2 and tuple(line.get_xdata()) == (0, 1)
        left, bottom = axes.transAxes.inverted().transform(spot)
        ends.append((float(bottom), 1.0 if across else float(left), name, line.get_color()))
    height = axes.get_window_extent().height
    gap = 12.5 * axes.figure.dpi / 72 / height
    ends.sort()
    leader: Any = {"arrowstyle": "-", "linewidth": 0.5, "alpha": 0.6, "shrinkB": 3, "relpos": (0, 0.5)}
    heights = _inside(_apart([end[0] for end in ends], gap), gap)
    for (bottom, left, name, colour), at in zip(ends, heights, strict=True):
        axes.annotate(
            clipped(name),
            xy=(left, bottom),
            xytext=(1.03, at),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=colour,
            va="center",
            fontsize=9.5,
            annotation_clip=False,
            arrowprops={"color": colour, **leader},
        )


def _apart(wanted: list[float], gap: float) -> list[float]:
    """Return ascending positions at least ``gap`` apart whose squared distance from the wanted is least.

    Neighbours that collide are merged into a block around their mean (pool adjacent violators).
    """
    blocks: list[tuple[float, int]] = []  # (mean of wanted - k * gap over the block, how many)
    for index, place in enumerate(wanted):
        blocks.append((place - index * gap, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (mean1, n1), (mean2, n2) = blocks[-2], blocks[-1]
            blocks[-2:] = [((mean1 * n1 + mean2 * n2) / (n1 + n2), n1 + n2)]
    flat = [mean for mean, count in blocks for _ in range(count)]
    return [mean + index * gap for index, mean in enumerate(flat)]


def _inside(placed: list[float], gap: float) -> list[float]:
    """Return the positions pushed up until none lies below the axes, then down while there is room."""
    out: list[float] = []
    for place in placed:
        out.append(max(place, out[-1] + gap if out else 0.0))
    ceiling = max(1.0, (len(out) - 1) * gap)
    for index in range(len(out) - 1, -1, -1):
        out[index] = min(out[index], ceiling)
        ceiling = out[index] - gap
    return out
