"""Two models on the same images: the difference of their bounds, with its own, smaller, error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from lsgm.errors import UserError
from lsgm.files.arrays import Arrays
from lsgm.results import Row
from lsgm_eval.likelihood.scores import mean_and_margin
from lsgm_eval.likelihood.store import METRIC, SOLVER, read_scores, scores_file
from lsgm_eval.live.table import with_error
from lsgm_eval.metrics.intervals import Interval, paired_difference
from lsgm_eval.rows import Context

__all__ = ["paired_rows", "paired_scores"]


def paired_rows(
    contexts: Sequence[Context],
    out: Path,
    split: str,
    *,
    methods: Iterable[str] = tuple(METRIC),
    variant: str = "",
) -> list[Row]:
    """Return, for every pair of models that have the same bound, the mean of first - second in nats.

    It is over the images that both have. Files may be left from earlier calls: those of another task than the
    context's, or of other bits, are not compared.
    """
    rows: list[Row] = []
    for method in methods:
        files = [(context, scores_file(out, context.model, method, variant)) for context in contexts]
        found = [(context, _load(file, context.task)) for context, file in files]
        for (first, a), (second, b) in combinations([(c, saved) for c, saved in found if saved], 2):
            row = _pair(METRIC[method], first, a, second, b, split)
            rows += [row] if row else []
    return rows


def _load(path: Path, task: str) -> Arrays | None:
    """Return the arrays that pairs are made of; none where they are damaged, or of another task."""
    said = "the numbers of single images in {path} are damaged ({why}); nothing is paired with them"
    saved = read_scores(path, damaged=said)
    return None if saved is None or _text(saved, "task") not in (None, task) else saved


def _pair(metric: str, first: Context, a: Arrays, second: Context, b: Arrays, split: str) -> Row | None:
    """Return the row of one pair, or None where they do not share two images' bits."""
    levels, estimators = ([_text(saved, name) for saved in (a, b)] for name in ("levels_sha256", "estimator"))
    common, in_a, in_b = np.intersect1d(a["rows"], b["rows"], assume_unique=True, return_indices=True)
    if levels[0] != levels[1] or len(common) < 2:
        return None
    difference = paired_difference(a["nats"][in_a], b["nats"][in_b])
    part = len(common) < max(len(a["rows"]), len(b["rows"]))
    notes = [f"over the {len(common):,} images that both have"] if part else []
    notes += [f"by {estimators[0]} and {estimators[1]}"] if estimators[0] != estimators[1] else []
    error, margin = _solver_error(a, b) or (None, None)
    if error is not None and margin is not None:
        words = f"solver error of {with_error(error, error - margin, error + margin)} nats"
        large = abs(error) + margin > (difference.high - difference.low) / 2
        notes += [f"its {words} exceeds half its 95 % interval" if large else f"within a {words}"]
    context = replace(first, model=f"{first.model} - {second.model}", checkpoint_sha256=None)
    return context.row(
        f"paired_{metric}_nats",
        difference.value,
        ci_low=difference.low,
        ci_high=difference.high,
        n=len(common),
        split=split,
        levels_sha256=levels[0],
        note="; ".join(notes) or None,
        solver_error=error,
        solver_error_margin=margin,
    )


def _solver_error(a: Arrays, b: Arrays) -> tuple[float, float | None] | None:
    """Return the solver error of a difference, by the images that were solved again; None where none were.

    A bound without a flow owes nothing to a solver.
    """
    solved = [saved for saved in (a, b) if all(name in saved for name in SOLVER)]
    if not solved:
        return None
    if len(solved) == 1:
        return mean_and_margin(solved[0]["solver_error"] * (1 if solved[0] is a else -1))
    _, first, second = np.intersect1d(
        a["solver_rows"], b["solver_rows"], assume_unique=True, return_indices=True
    )
    return mean_and_margin(a["solver_error"][first] - b["solver_error"][second])


def _text(saved: Arrays, name: str) -> str | None:
    return saved.text(name) if name in saved else None


def paired_scores(a: Path, b: Path) -> Interval:
    """Return the mean difference a - b in nats of two saved score files, with its own error.

    Raises UserError unless both scored the same images.
    """
    first, second = (read_scores(path) for path in (a, b))
    if first is None or second is None:
        raise UserError(f"{a if first is None else b} has no scores of single images: measure them again")
    if not np.array_equal(first["rows"], second["rows"]):
        raise UserError(f"{a} and {b} score different images: measure both under one task and tier")
    return paired_difference(first["nats"], second["nats"])
