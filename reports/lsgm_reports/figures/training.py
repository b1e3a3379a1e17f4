"""Training curves from the ``metrics.jsonl`` of run directories."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsgm.errors import DataError
from lsgm.files.limits import LOGGED
from lsgm.files.names import shown
from lsgm.files.text import json_lines, parse_json
from lsgm_reports.figures.style import PALETTE, clipped, drawing, is_drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_RUNS = 100
"""Runs that have room in a figure."""


@dataclass(frozen=True)
class Training:
    """What one run logged, key by key, over ``elapsed``: seconds of training since the run's beginning."""

    name: str
    columns: dict[str, tuple[array[float], array[float]]]
    """Key -> elapsed seconds and values, where it was logged and has a place in a figure."""
    boundaries: list[float]
    """Elapsed seconds at which a new stage begins."""


def read_training(file: Path) -> Training | None:
    """Return the curves of a run, or None where nothing is logged yet.

    A last line torn by a kill is left out; any other malformed line is a DataError with its number.
    """
    run = Training(shown(file.parent.name), {}, [])
    before = last = 0.0
    unbegun = stage = object()  # before the first step
    torn = None
    for count, line in enumerate(json_lines(file), start=1):
        LOGGED.hold(shown(str(file)), count)
        if torn is not None:
            raise torn
        try:
            row = _step(line.text, f"{shown(str(file))} line {line.number}")
        except DataError as error:
            torn = error
            continue
        # The clock of a stage starts at 0, and goes on here where the one before ended.
        seconds, new = row["seconds"], stage is not unbegun and row.get("stage") != stage
        if new and len(run.boundaries) < _MOST_KEYS:
            run.boundaries.append(before + last)
        if new or seconds < last:
            before += last
        last, stage = seconds, row.get("stage")
        for key, value in row.items():
            shown_here = (key == "total" or key.startswith("val_")) and is_drawable(value)
            if shown_here and (key in run.columns or len(run.columns) < _MOST_KEYS):
                places, values = run.columns.setdefault(key, (array("d"), array("d")))
                places.append(before + seconds)
                values.append(value)
    return None if stage is unbegun else run


def _step(line: str, where: str) -> dict[str, Any]:
    """Return the row of a line, whose seconds are a number. Raises DataError for anything else."""
    wrong = DataError(f"{where} is not a row of metrics; remove or repair it")
    try:
        row = parse_json(line, where)
    except DataError:
        raise wrong from None
    if not isinstance(row, dict) or not is_drawable(row.get("seconds")) or row["seconds"] < 0:
        raise wrong
    return row


_MOST_KEYS = 200
"""Metrics of a log, and stages, that are looked at."""


def training_figure(runs: Sequence[Training]) -> Figure | None:
    """Draw the training loss and a validation metric against training seconds, a line per run.

    Losses of different kinds of model are different quantities, which the panel of the loss says.
    """
    # The loss and one validation metric: the bound where a run logs it, else the commonest.
    counts = Counter(key for run in runs for key in run.columns)
    order = sorted(counts, key=lambda key: (key != "total", "nelbo" not in key, -counts[key], key))
    if not (keys := order[:2]):
        return None
    with drawing(len(keys), 1) as (figure, panels):
        figure.set_size_inches(4.3 * len(keys), 3.2)
        for axes, key in zip(panels, keys, strict=True):
            for index, run in enumerate(runs):
                _line(axes, run, key, PALETTE[index % len(PALETTE)])
            axes.set_ylim(*_window(runs, key))
            axes.set_xlabel("training seconds")
            axes.set_ylabel(_named(key))
    return figure


def _named(key: str) -> str:
    if key == "total":
        return "training loss (own to each kind of model)"
    name = key.removeprefix("val_").replace("_", " ").replace("nelbo", "NELBO")
    return f"validation {clipped(name, 40)}"


def _line(axes: Axes, run: Training, key: str, colour: str) -> None:
    if key not in run.columns:
        return
    seconds, values = run.columns[key]
    marker = "o" if key != "total" and len(seconds) < 30 else ""
    axes.plot(seconds, values, color=colour, label=run.name, linewidth=1.2, marker=marker, markersize=3.5)
    for boundary in run.boundaries:
        axes.axvline(boundary, color=colour, linestyle=(0, (1, 2)), linewidth=0.8)


def _window(runs: Sequence[Training], key: str) -> tuple[float, float]:
    """Return limits that leave out the first steps, whose loss would flatten everything after them."""
    settled: list[float] = []
    for run in runs:
        seconds, values = run.columns.get(key, ((), ()))
        start = 0.03 * max(seconds, default=0.0)
        settled += [value for at, value in zip(seconds, values, strict=True) if at >= start]
    low, high = min(settled), max(settled)
    margin = max(0.05 * (high - low), 1e-9 * max(abs(low), abs(high))) or 1.0
    return low - margin, high + margin
