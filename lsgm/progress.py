"""What a terminal shows: progress on standard error (LSGM_PROGRESS=0 silences it), sentences, tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.cells import cell_len
from tqdm import tqdm

from lsgm.files.names import shown

__all__ = ["aligned", "bar", "say"]


def bar(
    iterable: Iterable[Any] | None = None, *, total: float | None = None, desc: str, unit: str = "it"
) -> tqdm[Any]:
    """Return a progress bar named ``desc``; ``set_postfix_str`` shows the current loss beside it."""
    silent = os.environ.get("LSGM_PROGRESS") == "0" or os.environ.get("RANK", "0") != "0"
    # In a log file a bar that redraws ten times a second is noise: one line every ten seconds is news.
    interval = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm(
        iterable,
        total=total,
        desc=shown(desc),
        unit=unit,
        disable=silent,
        file=sys.stderr,
        mininterval=interval,
    )


def say(sentence: str) -> None:
    """Print a sentence for the user on standard error, on the first process only."""
    if os.environ.get("RANK", "0") == "0":
        print(f"lsgm: {shown(sentence)}", file=sys.stderr, flush=True)


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Return a line for each row of cells, all columns to the left and as wide as they must be."""
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in table
    ]
