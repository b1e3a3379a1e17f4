"""What of a result row is printed where training ends: on model cards and in the table of an ablation.

Rows are the harness's (`lsgm_eval`), which writes them and knows all their fields. Free of torch.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lsgm.config import require
from lsgm.errors import UserError
from lsgm.files.limits import DOCUMENT
from lsgm.files.text import json_lines, parse_json, record_of

__all__ = ["ResultRow", "read_rows"]

REPAIR = "give a results.jsonl"


@dataclass(frozen=True)
class ResultRow:
    """A number with its interval, and what it is of."""

    metric: str
    model: str | None = None
    value: int | float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    unit: str | None = None
    group: str | None = None
    task: str | None = None
    split: str | None = None
    n: int | None = None
    sampler: str | None = None
    note: str | None = None
    levels_sha256: str | None = None
    checkpoint_sha256: str | None = None
    git_revision: str | None = None

    def __post_init__(self) -> None:
        for name in ("value", "ci_low", "ci_high"):
            number = getattr(self, name)
            require(
                number is None or math.isfinite(number), f"{name} is {number}; it must be finite, or null"
            )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON lines, each with every key of `ResultRow`.

    Raises UserError, one sentence, where a line is no row.
    """
    rows: list[dict[str, Any]] = []
    for line in json_lines(path, DOCUMENT, UserError):
        where = f"{path}, line {line.number}"
        table = parse_json(line.text, where, UserError, REPAIR)
        if not isinstance(table, dict):
            raise UserError(f"{where} cannot be read as a result row: it is no JSON object; {REPAIR}")
        rows.append(asdict(record_of(ResultRow, table, where, UserError, REPAIR)))
    return rows
