"""The table of a running sweep: how far each model is, its best point, and the front of all points so far."""

from __future__ import annotations

from typing import Any

from lsgm_eval.live.board import Board, Entry
from lsgm_eval.live.table import head_lines, running_words
from lsgm_eval.live.words import aligned, clipped, columns_of, headline, value_words
from lsgm_eval.sweep.front import pareto_front

__all__ = ["sweep_lines"]

Row = dict[str, Any]


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
