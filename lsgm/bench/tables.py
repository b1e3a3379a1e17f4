"""The training benchmark's rows as a Markdown page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["markdown", "spread", "table"]

Row = Mapping[str, Any]

_PHASES = ("data", "forward", "backward", "optimiser")


def markdown(stages: Sequence[Row], passes: Sequence[Row], *, about: str, warm_up: int) -> str:
    """Return the page: the machine, the table of stages, and that of backward passes where there is one."""
    parts = ["# What training costs", about, "## Steps", table(_STAGE_HEADS, map(_stage, stages))]
    parts.append(
        f"{stages[0]['steps']} steps of each stage in the training engine, after {warm_up} not counted. "
        "Rates are means, step times medians with quartiles, shares those of the summed time. Clipping, the "
        "moving average and the finite check count as optimiser; validation and checkpoints are left out."
    )
    if passes:
        parts += ["## One backward pass for both objectives", table(_PASS_HEADS, map(_pass, passes))]
        parts.append(
            f"Forward and backward of a joint step, medians of {passes[0]['rounds']} rounds with quartiles, "
            "taken in turn on one model and batch, not compiled. *Two* is algorithm 3 of arXiv:2106.05931 as "
            "it is written; *two, cut* stops the second pass at the prior's parameters. Ratios are medians "
            "within rounds. The last column is the largest difference of any gradient in float64, relative "
            "to the largest gradient of its part."
        )
    return "\n\n".join(parts) + "\n"


_STAGE_HEADS = ("recipe", "stage", "batch", "precision", "steps/s", "images/s", "step, ms", *_PHASES)
_PASS_HEADS = (
    "recipe",
    "weighting",
    "batch",
    "precision",
    "one, ms",
    "two, ms",
    "two, cut, ms",
    "two / one",
    "two, cut / one",
    "difference",
)


def _stage(row: Row) -> list[str]:
    return [
        row["recipe"],
        row["stage"],
        str(row["batch_size"]),
        row["precision"] + (", compiled" if row["compile"] else ""),
        f"{row['steps_per_second']:.3g}",
        f"{row['images_per_second']:.3g}"
        if row["images_per_second"] < 1000
        else f"{row['images_per_second']:.0f}",
        spread(row, "step_ms", 0),
        *(f"{row[f'share_{phase}']:.0%}" for phase in _PHASES),
    ]


def _pass(row: Row) -> list[str]:
    times = [spread(row, f"{name}_ms", 0) for name in ("one", "two", "two_cut")]
    ratios = [spread(row, f"{name}_over_one", 2) for name in ("two", "two_cut")]
    head = [row["recipe"], row["weighting"], str(row["batch_size"]), row["precision"]]
    return [*head, *times, *ratios, f"{row['largest_difference']:.0e}"]


def spread(row: Row, name: str, digits: int) -> str:
    """Return the median of a row's value with its quartiles."""
    low, middle, high = row[f"{name}_q1"], row[name], row[f"{name}_q3"]
    # Two digits more where the whole is a few milliseconds.
    digits += 2 if name.endswith("_ms") and middle < 10 else 0
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def table(heads: Sequence[str], rows: Any) -> str:
    """Return a Markdown table, its first two columns to the left."""
    body = [list(cells) for cells in rows]
    # A bar inside a recipe's path would end its cell.
    lines = [" | ".join(cell.replace("|", "\\|") for cell in cells) for cells in [list(heads), *body]]
    rule = " | ".join("---" if index < 2 else "---:" for index in range(len(heads)))
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])
