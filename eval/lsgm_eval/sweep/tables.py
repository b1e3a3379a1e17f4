"""A sweep's rows for the terminal: the points with the Pareto front marked, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lsgm_eval.sweep.derive import COSTS
from lsgm_eval.sweep.front import pareto_front

__all__ = ["point_lines", "reach_lines"]

Row = dict[str, Any]


def point_lines(rows: Sequence[Row]) -> list[str]:
    """Return aligned lines of points; ``front`` names the currencies in which no other point beats it."""
    cells = [("model", "sampler", "metric", "value", "95 % interval", "NFE", "ms/image", "FLOPs", "front")]
    for row, front in zip(rows, _fronts(rows), strict=True):
        seconds, flops = COSTS["seconds"](row), COSTS["flops"](row)
        cells.append(
            (
                row["model"],
                row["sampler"] or "",
                row["metric"],
                _number(row["value"]),
                _interval(row),
                _number(row["nfe_mean"]),
                _number(None if seconds is None else 1e3 * seconds),
                _number(flops),
                ", ".join(front),
            )
        )
    return _aligned(cells)


def reach_lines(rows: Sequence[Row]) -> list[str]:
    """Return aligned lines of costs to reach qualities and of ratios, each with what must be said of it."""
    cells = [("model", "quantity", "at", "value", "95 % interval", "sampler", "note")]
    for row in rows:
        texts = (row["model"], row["metric"], row["target"], _number(row["value"]), _interval(row))
        cells.append((*texts, row["sampler"] or "", row["note"] or ""))
    return _aligned(cells) if rows else []


def _fronts(rows: Sequence[Row]) -> list[list[str]]:
    """Return, point by point, the currencies in which it belongs to its metric's front over all models."""
    found: list[list[str]] = [[] for _ in rows]
    for metric in dict.fromkeys(row["metric"] for row in rows):
        for cost, of in COSTS.items():
            known = [
                (k, spent, -row["value"] if row["higher_is_better"] else row["value"])
                for k, row in enumerate(rows)
                if row["metric"] == metric and row["value"] is not None and (spent := of(row)) is not None
            ]
            for at in pareto_front([spent for _, spent, _ in known], [loss for _, _, loss in known]):
                found[known[at][0]].append(cost)
    return found


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _interval(row: Row) -> str:
    if row["ci_low"] is None and row["ci_high"] is None:
        return ""
    return f"{_number(row['ci_low'])} .. {_number(row['ci_high'])}"


def _aligned(cells: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(line[k]) for line in cells) for k in range(len(cells[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
