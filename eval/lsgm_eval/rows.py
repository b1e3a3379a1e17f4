"""Rows as a measuring call makes them: complete, finite, and of a metric that is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lsgm.errors import UserError
from lsgm.files.names import spelt
from lsgm.results.metrics import entry_of
from lsgm.results.row import KINDS, Row
from lsgm.runs.provenance import git_revision


@dataclass(frozen=True)
class Context:
    """What all rows of one model in one evaluation share."""

    task: str
    model: str
    checkpoint_sha256: str | None
    dataset: str
    run_id: str
    manifest: str | None = None
    """Of the call that measures: the file ``manifests/<manifest>.json`` beside the rows."""

    def row(self, metric: str, value: float | None, **fields: Any) -> Row:
        """Return a complete row. Raises UserError for a value that is not finite, ValueError for odd keys.

        ``metric`` may carry its feature space, ``frechet_glyphs``, or name a term of a bound;
        ``value`` None means not measurable. Raises KeyError for a metric that no entry knows.
        """
        unknown = set(fields) - set(KINDS)
        if unknown:
            raise ValueError(f"no such keys in a result row: {sorted(unknown)}")
        if value is not None and not math.isfinite(value):
            raise UserError(
                f"{metric} of {self.model} is {value}: look at its samples and its training metrics"
            )
        about = entry_of(metric)
        shared: dict[str, Any] = {
            "checkpoint_sha256": self.checkpoint_sha256,
            "dataset": self.dataset,
            "run_id": self.run_id,
            "manifest": self.manifest,
            "git_revision": git_revision(),
            "unit": about.unit,
            "higher_is_better": about.higher_is_better,
            "group": about.group,
        }
        # A model or a folder may be named by bytes that are no text.
        known: dict[str, Any] = shared | fields
        known = {key: spelt(said) if isinstance(said, str) else said for key, said in known.items()}
        return Row(spelt(self.task), spelt(self.model), metric, value, **known)


def value_cells(
    value: float | None, low: float | None, high: float | None, digits: int = 5
) -> tuple[str, str]:
    """Return a value and its interval as tables of the terminal show them, with so many digits."""
    told = ["-" if number is None else f"{number:.{digits}g}" for number in (value, low, high)]
    return told[0], "" if low is high is None else f"{told[1]} .. {told[2]}"
