"""The table of a running evaluation: models down, measurements across, as wide as the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from lsgm_eval.live.board import Board, Entry
from lsgm_eval.live.words import aligned, clipped, columns_of, duration, headline, value_words

__all__ = ["head_lines", "measured_line", "measurement_lines", "running_words", "time_left"]


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
