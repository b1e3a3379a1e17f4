"""What a person and what a program reads of the stages' results."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lsgm.conformance.folder import CHECKPOINT, Deviation, Golden, read_folder
from lsgm.conformance.model import load
from lsgm.conformance.stage import Result, Tolerances, examine
from lsgm.conformance.stages import AVERAGES, DECODE, GRADIENTS, PRIOR, TIMES, VAE_EVAL
from lsgm.discovery import offers
from lsgm.files.names import shown

__all__ = ["FAMILIES", "as_json", "as_lines", "conform", "conform_folder", "passed", "summary"]

_HEAD = ("stage", "error", "absolute", "relative", "tolerance", "verdict", "")


def passed(results: Sequence[Result]) -> bool:
    """Return whether something was compared and nothing failed; what was skipped has not passed."""
    verdicts = {result.verdict for result in results}
    return "PASS" in verdicts and "FAIL" not in verdicts


def as_json(result: Result) -> str:
    """Return one stage as a JSON object; numbers that are not finite are null."""
    found: dict[str, Any] = {"stage": result.stage, "verdict": result.verdict}
    if result.deviation is not None:
        found |= {**_numbers(result.deviation), "tolerance": result.tolerance, "tensors": result.tensors}
    if result.worst is not None:
        found["worst"] = result.worst
    if result.reason is not None:
        found["reason"] = result.reason
    return json.dumps(found)


def as_lines(results: Sequence[Result], *, verbose: bool = False) -> list[str]:
    """Return a table, one line a stage, and with ``verbose`` one for each tensor of a stage of several."""
    rows: list[tuple[str, ...]] = [_HEAD]  # names are out of a file, and may be any text
    for result in results:
        rows.append(_row(result))
        if verbose and result.members:
            rows += [
                (f"  {name.removeprefix(result.stage + '/')}", *_cells(found), "", "", "")
                for name, found in result.members.items()
            ]
    rows = [tuple(map(shown, row)) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def summary(results: Sequence[Result]) -> str:
    """Return how many stages passed, failed and were skipped."""
    counts = {verdict: sum(r.verdict == verdict for r in results) for verdict in ("PASS", "FAIL", "SKIP")}
    text = f"{counts['PASS']} of {len(results)} stages pass, {counts['FAIL']} fail"
    return text + (f", {counts['SKIP']} could not be compared" if counts["SKIP"] else "")


def _row(result: Result) -> tuple[str, ...]:
    if result.deviation is None:
        return (result.stage, "", "", "", "", result.verdict, result.reason or "")
    several = f"{result.tensors} tensors, worst {result.worst}" if result.worst is not None else ""
    note = "; ".join(filter(None, (several, result.reason)))
    return (result.stage, *_cells(result.deviation), f"{result.tolerance:.0e}", result.verdict, note)


def _cells(found: Deviation) -> tuple[str, str, str]:
    return f"{found.error:.1e}", f"{found.absolute:.1e}", f"{found.relative:.1e}"


def _numbers(found: Deviation) -> dict[str, float | None]:
    values = {"error": found.error, "absolute": found.absolute, "relative": found.relative}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


# The stages in the order in which a model runs, and the run itself

FAMILIES = (VAE_EVAL, PRIOR, DECODE, TIMES, AVERAGES, GRADIENTS)
"""Eval mode first: the training step moves the running statistics of batch normalisation."""


def conform_folder(folder: Path, tolerances: Tolerances) -> list[Result]:
    """Compare the model in a folder with the values beside it.

    A folder without `checkpoint.pt` is offered to the other importers: a module of the entry-point group
    ``lsgm.importers`` may have ``CHECKPOINT: str``, its file's name, and ``conform(folder, tolerances)``.
    Raises UserError, one sentence, where the folder is of none of them, incomplete or damaged.
    """
    if not os.path.lexists(folder / CHECKPOINT):
        for point in offers("lsgm.importers").values():
            importer = point.load()
            name = getattr(importer, "CHECKPOINT", None)
            if name is not None and os.path.lexists(folder / name):
                results: list[Result] = importer.conform(folder, tolerances)
                return results
    return conform(read_folder(folder), tolerances)


def conform(golden: Golden, tolerances: Tolerances) -> list[Result]:
    """Compare a folder's model with its values; raises UserError where they do not belong together."""
    return examine(golden, load(golden), FAMILIES, tolerances)
