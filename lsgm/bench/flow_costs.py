"""Runs the ways of `lsgm.bench.flow_ways` over their settings and compares them at equal measured error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor

from lsgm.bench.flow_problems import Problem
from lsgm.bench.flow_ways import Way, adaptive, controlled, fixed_steps, reference
from lsgm.progress import bar

__all__ = ["ERRORS", "OWN", "REFERENCE", "at_equal_error", "measure_ways"]

REFERENCE, OWN = "reference", "this package"
ERRORS = {"error": "the number", "step_error": "its steps"}
"""The two errors at which costs are compared, and what they are of."""


def measure_ways(
    problem: Problem,
    *,
    tols: Sequence[float],
    own_tols: Sequence[float],
    probes: Sequence[int],
    steps: Sequence[int],
    isolate: bool,
    repeats: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Return a row per way and setting: evaluations, gradients and seconds per image, errors in nats.

    ``error`` is the RMS over images of log p minus the truth, the truth's own variance taken off, and None
    where that variance is most of it; in ``step_error`` the truth's trace stands for the probes, so that the
    steps are judged alone. Every way but the reference, whose noise many evaluations average, runs
    ``repeats`` times with other probes: a fixed probe's noise has heavy tails.
    """
    listed = _settings(tols, own_tols, probes, steps, isolate)
    rows = []
    for (name, setting), way in bar(listed, desc="log-densities", unit="way"):
        batch = len(problem.truth)
        # Seeds of a run are seed, ..., seed + batch - 1.
        runs = [way(problem.flow, seed + k * batch) for k in range(1 if name == REFERENCE else repeats)]
        taken = [found.seconds for found in runs if found.seconds is not None]
        errors = torch.cat([found.log_p - problem.truth for found in runs])
        step_errors = torch.cat([found.smooth - problem.truth for found in runs])
        rows.append(
            {
                "what": "way",
                "on": problem.name,
                "batch_size": batch,
                "way": name,
                **setting,
                "evaluations": fmean(found.evaluations for found in runs),
                "gradients": fmean(found.gradients for found in runs),
                "seconds": median(taken) / batch if taken else None,
                "error": _beyond(errors, problem.truth_error),
                "step_error": _rms(step_errors),
                "truth_error": _rms(problem.truth_error),
            }
        )
    return rows


def at_equal_error(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return, per setting of the reference and kind of error, this package's cheapest one as good or better.

    Nothing is interpolated, which favours the reference. Cheapest is by evaluations plus gradients; ``own``
    is None where no setting reaches the error. Errors that the truth is too coarse for are left out.
    """
    own = [row for row in rows if row["way"] == OWN]
    compared = []
    for row in (row for row in rows if row["way"] == REFERENCE):
        for kind in (kind for kind in ERRORS if row[kind] is not None):
            good = [other for other in own if other[kind] is not None and other[kind] <= row[kind]]
            best = min(good, key=lambda other: other["evaluations"] + other["gradients"], default=None)
            shown: dict[str, Any] = {"what": "equal", "on": row["on"], "batch_size": row["batch_size"]}
            shown |= {"at": kind, "reference": dict(row), "own": None if best is None else dict(best)}
            if best is not None:
                costs = ("evaluations", "gradients", "seconds")
                shown |= {f"{cost}_ratio": row[cost] / best[cost] for cost in costs}
            compared.append(shown)
    return compared


def _settings(
    tols: Sequence[float],
    own_tols: Sequence[float],
    probes: Sequence[int],
    steps: Sequence[int],
    isolate: bool,
) -> list[tuple[tuple[str, dict[str, Any]], Way]]:
    ways: list[tuple[tuple[str, dict[str, Any]], Way]] = []
    for tol in tols:
        ways.append(((REFERENCE, {"tol": tol, "probes": 1}), reference(tol)))
    for tol in own_tols:
        # Elsewhere one probe will do: it costs the steps that are judged there.
        for count in probes if tol in tols else probes[:1]:
            ways.append(((OWN, {"tol": tol, "probes": count}), adaptive(tol, count)))
    for count in steps:
        ways.append((("rk4, fixed steps", {"steps": count, "probes": 1}), fixed_steps(count)))
    for tol in tols if isolate else ():
        for inside in (False, True):
            for redrawn in (False, True):
                name = (
                    f"{'redrawn' if redrawn else 'fixed'} probe, log p {'in' if inside else 'out of'} control"
                )
                way = controlled(tol, inside=inside, redrawn=redrawn)
                ways.append(((name, {"tol": tol, "probes": 1}), way))
    return ways


def _rms(values: Tensor) -> float:
    """Return the root mean square over images."""
    return math.sqrt(float(values.double().square().mean()))


def _beyond(values: Tensor, noise: Tensor) -> float | None:
    """Return the RMS of ``values`` less the truth's variance, or None where most of it is the truth's."""
    square, own = _rms(values) ** 2, _rms(noise) ** 2
    return math.sqrt(square - own) if square >= 2 * own else None
