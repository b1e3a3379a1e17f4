"""Two runs side by side as JSON lines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from lsgm_eval.compare.facts import differing
from lsgm_eval.compare.numbers import Line
from lsgm_eval.compare.whole import Compared

__all__ = ["to_json_rows"]

ROW = ("value", "ci_low", "ci_high", "n", "sampler", "manifest")
"""Keys of a result row that a comparison repeats for A and for B."""


def to_json_rows(found: Compared) -> Iterator[str]:
    """Return JSON objects, one a line, each with its ``part``: every difference and every pair of numbers."""
    for part, facts in (
        ("config", found.config or ()),
        ("code", found.machines),
        ("data", found.data),
        ("training", found.training or ()),
    ):
        for fact in differing(facts):
            yield _dumped({"part": part, "name": fact.name, "a": fact.a, "b": fact.b})
    for name, span in found.spans:
        yield _dumped(
            {
                "part": "code",
                "name": f"revision ({name})",
                "a": span.a,
                "b": span.b,
                "commits": span.commits,
            }
        )
    for line in found.numbers:
        yield _dumped(_number(line))


def _number(line: Line) -> dict[str, Any]:
    gap, match = line.difference, line.match
    named = ("task", "metric", "group", "target", "unit", "higher_is_better")
    return {
        "part": "numbers",
        "model_a": line.models[0],
        "model_b": line.models[1],
        **{key: match[key] for key in named},
        **{
            f"{key}_{end}": (row or {}).get(key)
            for end, row in (("a", match.a), ("b", match.b))
            for key in ROW
        },
        "difference": gap.value if gap else None,
        "ci_low": gap.low if gap else None,
        "ci_high": gap.high if gap else None,
        "p": gap.p if gap else None,
        "p_holm": line.p_holm,
        "paired": line.how.startswith("paired"),
        "how": line.how,
        "verdict": line.verdict or None,
        "bias": gap.bias if gap else None,
    }


def _dumped(row: dict[str, Any]) -> str:
    return json.dumps(_finite(row), allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    """Return JSON's values: a configuration may hold infinities, which JSON has no word for."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
