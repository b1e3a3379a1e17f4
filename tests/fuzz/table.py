"""The figures of a campaign by kind of file, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["table", "total"]

HEAD = ("kind of file", "inputs", "results", "sentences", "failures", "slowest", "largest memory")


def table(found: Sequence[dict[str, Any]]) -> str:
    """Return a row for each kind, and one for all of them: memory is by how much the process grew."""
    kinds = list(dict.fromkeys(each["kind"] for each in found))
    lines = [HEAD, ("---", *["---:"] * (len(HEAD) - 1))]
    lines += [_row(kind, [each for each in found if each["kind"] == kind]) for kind in kinds]
    lines.append(_row("all", found))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _row(name: str, found: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    slowest = max((each["seconds"] for each in found), default=0.0)
    largest = max((each["memory"] for each in found), default=0)
    counts = [f"{total(found, verdict):,}" for verdict in ("result", "sentence", "failure")]
    return (name, f"{len(found):,}", *counts, f"{slowest:.1f} s", f"{largest / 2**20:,.0f} MiB")


def total(found: Iterable[dict[str, Any]], verdict: str) -> int:
    """Return how many inputs came to a verdict."""
    return sum(each["verdict"] == verdict for each in found)
