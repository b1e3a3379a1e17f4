"""The rows of ``lsgm bench fid`` as a Markdown page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from lsgm.bench.measuring import spread, table

__all__ = ["installed", "page"]

Row = Mapping[str, Any]
PACKAGES = ("numpy", "scipy", "torch-fidelity", "clean-fid")


def installed() -> dict[str, str]:
    """Return the versions of what is compared."""
    return {name: version(name) for name in PACKAGES}


def page(rows: Sequence[Row], *, about: str, versions: Mapping[str, str]) -> str:
    """Return a table for each part that was measured, and what its columns are."""
    software = ", ".join(f"{name} {number}" for name, number in versions.items())
    parts = ["# What sample quality costs", f"{about} {software}."]
    for part, (title, heads, cells, note) in _PARTS.items():
        mine = [row for row in rows if row["part"] == part]
        if mine:
            parts += [f"## {title}", table(heads, map(cells, mine)), note]
    return "\n\n".join(parts) + "\n"


def _times(row: Row) -> list[str]:
    return [
        spread(row, "seconds", ".2f"),
        spread(row, "cpu_seconds", ".2f"),
        spread(row, "over_ours", ".2f"),
        spread(row, "cpu_over_ours", ".2f"),
    ]


def _distance(row: Row) -> list[str]:
    return [row["way"], row["spectrum"], *_times(row), f"{row['difference']:.0e}"]


def _memory(row: Row) -> list[str]:
    sizes = [f"{row[f'{name}_bytes'] / 2**20:.0f}" for name in ("before", "peak", "rise", "rows")]
    return [f"{row['images']:,}", str(row["dim"]), *sizes, f"{row['seconds']:.1f}"]


def _pass(row: Row) -> list[str]:
    return [row["way"], row["extractor"], str(row["images"]), *_times(row)]


def _packages(row: Row) -> list[str]:
    return [row["way"], row["result"], str(row["images"]), *_times(row), f"{row['difference']:.0e}"]


_TIMES = ("s", "processor, s")
_PARTS: dict[str, tuple[str, tuple[str, ...], Callable[[Row], list[str]], str]] = {
    "distance": (
        "A Frechet distance of given moments",
        ("way", "spectrum", *_TIMES, "/ ours", "/ ours, processor", "difference"),
        _distance,
        "Medians with quartiles, ratios within rounds; *processor* counts the seconds of this process alone. "
        "*Spectrum* is how variances fall along the axes; *difference* is relative to singular values.",
    ),
    "memory": (
        "Peak memory of a pass",
        ("images", "features", "before, MiB", "peak, MiB", "rise, MiB", "rows, MiB", "s"),
        _memory,
        "Free images, each number in a process of its own. *Rows* is what is kept of features for metrics of "
        "neighbours, of at most 10,000 images; it counts twice in the rise, when they are put in order.",
    ),
    "pass": (
        "A pass against its extractor",
        ("way", "extractor", "images", *_TIMES, "/ alone", "/ alone, processor"),
        _pass,
        "Ready images in memory. The pass also sums the moments of pooled and spatial features and the class "
        "probabilities of the Inception Score.",
    ),
    "packages": (
        "Files end to end",
        ("way", "result", "images", *_TIMES, "/ ours", "/ ours, processor", "difference"),
        _packages,
        "The same PNG files and weights. *Features* are with the network at hand, *distance* reads it first.",
    ),
}
