"""Short texts for a terminal: durations, values with their errors, and columns of text that fit a width."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import Any

from lsgm_eval.cost_curve.reach import pareto_front
from lsgm_eval.live.board import Board, Entry

__all__ = [
    "aligned",
    "clipped",
    "columns_of",
    "count_words",
    "duration",
    "head_lines",
    "headline",
    "measured_line",
    "measurement_lines",
    "running_words",
    "sweep_lines",
    "time_left",
    "value_words",
    "with_error",
]

Row = dict[str, Any]

HEADLINE = ("quality", "curve", "likelihood")
"""Groups of rows that a measurement is known by; costs and terms stand beside them."""


def duration(seconds: float) -> str:
    """Return ``8 s``, ``3 min 05 s`` or ``2 h 07 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def with_error(value: float, low: float | None, high: float | None) -> str:
    """Return ``12.3 ± 0.4``: half of the interval to two digits, and the value to the same decimal place.

    Without an interval, or with one of no width, four digits stand alone.
    """
    half = 0.0 if low is None or high is None else (high - low) / 2
    if not 0 < half < math.inf:
        return f"{value:.4g}"
    decimals = max(0, 1 - math.floor(math.log10(half)))
    return f"{value:.{decimals}f} ± {half:.{decimals}f}"


def value_words(row: Row) -> str:
    """Return a row's value with half of its interval, or that there is none."""
    if row["value"] is None:
        return "not measured"
    return with_error(row["value"], row["ci_low"], row["ci_high"])


def count_words(row: Row) -> str:
    """Return how many images a row is of, ``1000 of 50000`` where these are not all; nothing if unknown."""
    n, n_of = row["n"], row.get("n_of")
    return "" if n is None else f"{n}" if n_of is None else f"{n} of {n_of}"


def headline(rows: Sequence[Row]) -> Row | None:
    """Return the row that a measurement is known by: its first one with a value, else its first one."""
    known = [row for row in rows if row["group"] in HEADLINE] or list(rows)
    return next((row for row in known if row["value"] is not None), known[0] if known else None)


def columns_of(text: str) -> int:
    """Return the columns of a terminal that a text takes: two for wide letters, none for combining marks."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def clipped(text: str, width: int) -> str:
    """Return a text of at most ``width`` columns, with an ellipsis where it is cut.

    What a terminal would not print but obey, as an escape within a model's name, becomes a question mark.
    """
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    taken, room = 0, 0
    for letters, letter in enumerate(text):
        taken += columns_of(letter)
        if taken > width:
            return f"{text[:room]}…" if width > 0 else ""
        if taken <= width - 1:
            room = letters + 1
    return text


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of cells as text in columns, two blanks apart."""
    widths = [max(columns_of(line[k]) for line in lines) for k in range(len(lines[0]))] if lines else []
    return [
        "  ".join(
            cell + " " * (width - columns_of(cell)) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    ]


# The table of a running evaluation: models down, measurements across, as wide as the terminal


def measurement_lines(board: Board, width: int) -> list[str]:
    """Return the lines of a table that ``width`` columns hold.

    A measurement is waiting, running with its share and its seconds, or a value with half of its interval.
    Where the table is too wide the measurements of a model stand one below the other.
    """
    columns = list(dict.fromkeys(entry.step.column for entry in board.entries if entry.step.column))
    models = list(dict.fromkeys(entry.step.model for entry in board.entries if entry.step.column))
    grid = [[_of(board, model, column) for column in columns] for model in models]
    titles = [_title(board, column) for column in columns]
    words = [[_cell_words(board, entries) for entries in line] for line in grid]
    table = aligned(
        [["model", *titles], *([model, *line] for model, line in zip(models, words, strict=True))]
    )
    if max(map(columns_of, table), default=0) > width:
        table = [
            text
            for model, line in zip(models, words, strict=True)
            for text in (
                model,
                *aligned([("", title, cell) for title, cell in zip(titles, line, strict=True) if cell]),
            )
        ]
    beside = _beside(board)
    foot = [board.bar] if board.bar else []
    return [clipped(line, width) for line in [*head_lines(board, width), *table, *beside, *foot]]


def head_lines(board: Board, width: int) -> list[str]:
    """Return what runs, how much of it is done, for how long, and how long it may still take."""
    done = f"{len(board.done)} of {len(board.entries)} done, {duration(board.elapsed)}"
    progress = ", ".join(filter(None, (done, time_left(board))))
    whole = f"{board.title}: {progress}"
    if columns_of(whole) <= width:
        return [whole]
    return [board.title, *([progress] if columns_of(progress) <= width else [done, time_left(board)])]


def time_left(board: Board) -> str:
    """Return ``about 3 min 05 s left``, ``at least`` where the rate of something is not known, or nothing."""
    found = board.seconds_left()
    if found is None:
        return ""
    seconds, complete = found
    return f"{'about' if complete else 'at least'} {duration(seconds)} left"


def running_words(board: Board, entry: Entry) -> str:
    """Return the share and the seconds of what is measured now."""
    share = f"{100 * board.share:.0f} %, " if board.share is not None else ""
    return f"{share}{duration(board.clock() - entry.begun)}"


def measured_line(board: Board, entry: Entry) -> str:
    """Return one line on a finished measurement, for a log."""
    told = _told(entry)
    earlier = ["measured before"] if any(row["value"] is not None for row in entry.rows) else []
    parts = earlier if entry.seconds is None else [duration(entry.seconds)]
    left = len(board.left)
    if left:
        parts += [f"{left} left", time_left(board).removesuffix(" left")]
    place = f"[{len(board.done)}/{len(board.entries)}]"
    beside = "; ".join(filter(None, (told, ", ".join(filter(None, parts)))))
    text = f"{place} {entry.step.model} {entry.step.measurement}: {beside}"
    return clipped(text, columns_of(text))


def _told(entry: Entry) -> str:
    """Return a measurement's headline with the evaluations and the time of an image where it drew any."""
    row = headline(entry.rows)
    if row is None:
        return "nothing to measure"
    cost = ""
    if row["group"] == "curve" and row["nfe_mean"] is not None and row["seconds"] is not None and row["n"]:
        cost = f"{row['nfe_mean']:.4g} NFE, {1e3 * row['seconds'] / row['n']:.3g} ms/image, "
    why = f" ({row['note']})" if row["value"] is None and row["note"] else ""
    return f"{cost}{row['metric']} {value_words(row)}{why}"


def _of(board: Board, model: str, column: str) -> list[Entry]:
    return [entry for entry in board.entries if (entry.step.model, entry.step.column) == (model, column)]


def _title(board: Board, column: str) -> str:
    """Return the metric that a column's values are of, as soon as there is one."""
    entries = [entry for entry in board.entries if entry.step.column == column]
    many = len({entry.step.measurement for entry in entries}) > 1
    rows = [headline(entry.rows) for entry in entries]
    metric = next((row["metric"] for row in rows if row is not None), column)
    return column if many else str(metric)


def _cell_words(board: Board, entries: Sequence[Entry]) -> str:
    """Return what stands in a cell: of several measurements how many are done."""
    if not entries:
        return ""
    running = next((entry for entry in entries if entry.state == "running"), None)
    failed = any(entry.state == "failed" for entry in entries)
    if len(entries) == 1:
        (entry,) = entries
        row = headline(entry.rows)
        waits = {"left": "waiting", "failed": "failed", "done": "nothing to measure", "running": ""}
        return value_words(row) if row else running_words(board, entry) if running else waits[entry.state]
    done = f"{sum(entry.state == 'done' for entry in entries)}/{len(entries)}"
    return ", ".join([done, *([running_words(board, running)] if running else []), *(["failed"] * failed)])


def _beside(board: Board) -> list[str]:
    """Return a line for what is of no single model: the differences of pairs."""
    entries = [entry for entry in board.entries if not entry.step.column]
    if not entries:
        return []
    running = next((entry for entry in entries if entry.state == "running"), None)
    now = f", now {running.step.model}: {running_words(board, running)}" if running else ""
    done = sum(entry.state == "done" for entry in entries)
    return [f"differences of pairs: {done} of {len(entries)}{now}"]


# The table of a running sweep: how far each model is, its best point, and the front of all points so far


def sweep_lines(board: Board, width: int) -> list[str]:
    """Return lines of ``width`` columns: models with their points, and the front over the evaluations.

    The front holds the points that no other one, of any model, equals or beats in both evaluations and
    quality. Where a table is too wide its last columns are left out.
    """
    models = list(dict.fromkeys(entry.step.model for entry in board.entries))
    head = ("model", "points", "best so far", "at", "now")
    lines = [head, *(_progress(board, model) for model in models)]
    front = _front([row for entry in board.done if (row := headline(entry.rows))])
    below = [("NFE", "model", "sampler", "value"), *front] if front else []
    title = [f"front so far, {_front_metric(board)}:"] if front else []
    foot = [board.bar] if board.bar else []
    text = [*head_lines(board, width), *_fitted(lines, width), *title, *_fitted(below, width), *foot]
    return [clipped(line, width) for line in text]


def _front_metric(board: Board) -> str:
    """Return the metric that the points are compared by, or nothing before there is one."""
    return next((str(row["metric"]) for entry in board.done if (row := headline(entry.rows))), "")


def _progress(board: Board, model: str) -> tuple[str, ...]:
    mine = [entry for entry in board.entries if entry.step.model == model]
    rows = [row for entry in mine if (row := headline(entry.rows)) and row["value"] is not None]
    best = min(rows, key=_loss, default=None)
    done = f"{sum(entry.state == 'done' for entry in mine)}/{len(mine)}"
    shown = (value_words(best), best["sampler"] or "") if best else ("", "")
    return (model, done, *shown, _now(board, mine))


def _now(board: Board, entries: list[Entry]) -> str:
    for entry in entries:
        if entry.state == "running":
            return f"{entry.step.measurement} {running_words(board, entry)}"
        if entry.state == "failed":
            return f"{entry.step.measurement} failed"
    return "waiting" if any(entry.state == "left" for entry in entries) else "done"


def _loss(row: Row) -> float:
    return float(-row["value"] if row["higher_is_better"] else row["value"])


def _front(rows: list[Row]) -> list[tuple[str, ...]]:
    known = [row for row in rows if row["value"] is not None and row["nfe_mean"] is not None]
    numbers = pareto_front([row["nfe_mean"] for row in known], [_loss(row) for row in known])
    return [
        (f"{row['nfe_mean']:.4g}", row["model"], row["sampler"] or "", value_words(row))
        for row in (known[number] for number in numbers)
    ]


def _fitted(lines: list[tuple[str, ...]], width: int) -> list[str]:
    """Return a table, without its last columns where it is too wide: what is first says most."""
    for count in range(len(lines[0]) if lines else 0, 1, -1):
        text = aligned([line[:count] for line in lines])
        if max(map(columns_of, text)) <= width:
            return text
    return aligned([line[:2] for line in lines])
