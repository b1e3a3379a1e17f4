"""Two models' distances to one reference: their difference, its interval, and whether it is real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lsgm_eval.comparisons import Comparison, compare_frechet, compare_kernel
from lsgm_eval.measure.space import Gathered, Space
from lsgm_eval.passes.run import Pass
from lsgm_eval.rows import Context

__all__ = ["compare_models", "unlike_counts"]


def compare_models(
    first: Context, second: Context, a: Pass, b: Pass, spaces: Sequence[Space], split: str | None
) -> list[dict[str, Any]]:
    """Return rows ``paired_<distance>`` of the first model minus the second in every space.

    Both models' images are of the same seeds, so that what a seed does to both cancels.
    """
    rows = []
    for space in spaces:
        ours, theirs = (Gathered.of(found, space.extractor) for found in (a, b))
        rows += _pair(first, ours, second, theirs, space, split)
    return rows


def unlike_counts(
    first: Context, second: Context, counts: tuple[int, int], spaces: Sequence[Space], split: str | None
) -> list[dict[str, Any]]:
    """Return rows without a value for two models of unlike numbers of images, whose biases are unlike too."""
    context = replace(first, model=f"{first.model} - {second.model}", checkpoint_sha256=None)
    why = (
        f"{first.model} has {counts[0]:,} images and {second.model} {counts[1]:,}: distances of unlike "
        "numbers have unlike biases; draw equally many by --images"
    )
    return [
        context.row(f"paired_{space.metric(family)}", None, split=split, extractor=space.label, note=why)
        for space in spaces
        for family in ("frechet", "kernel")
        if family in space.spec.statistics
    ]


def _pair(
    first: Context, a: Gathered, second: Context, b: Gathered, space: Space, split: str | None
) -> list[dict[str, Any]]:
    reference, statistics = space.reference.stats, space.spec.statistics
    compared: dict[str, Comparison] = {}
    if "frechet" in statistics:
        compared["frechet"] = compare_frechet(a.stats, b.stats, reference.moments, paired=True)
    if "kernel" in statistics and len(reference.rows):
        compared["kernel"] = compare_kernel(a.stats.rows, b.stats.rows, reference.rows, paired=True)
    context = replace(first, model=f"{first.model} - {second.model}", checkpoint_sha256=None)
    return [
        context.row(
            f"paired_{space.metric(family)}",
            found.difference.value,
            ci_low=found.difference.low,
            ci_high=found.difference.high,
            bias=found.bias if family == "frechet" else None,
            n=a.stats.moments.count,
            split=split,
            extractor=space.label,
            reference_sha256=space.reference.sha256,
            note=found.verdict(first.model, second.model),
        )
        for family, found in compared.items()
    ]
