"""What samples cost: network evaluations, seconds, memory, parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from lsgm.generative import GenerativeModel
from lsgm_eval.intervals import Interval, mean_interval
from lsgm_eval.rows import Context

__all__ = ["cost_rows", "seconds_interval"]


def seconds_interval(seconds: Sequence[float], counts: Sequence[int]) -> Interval | None:
    """Return seconds per 1,000 images over all batches; None for the interval of fewer than three batches.

    The error is that of a ratio of means over batches: a smaller last batch counts for its images.
    """
    s, n = np.asarray(seconds), np.asarray(counts, dtype=np.float64)
    if len(s) < 3:
        return None
    rate = s.sum() / n.sum()
    error = float((s - rate * n).std(ddof=1) / np.sqrt(len(s)) / n.mean())
    return Interval.normal(1000 * float(rate), 1000 * error)


def cost_rows(
    context: Context,
    model: GenerativeModel,
    nfe: Tensor,
    seconds: Sequence[float],
    counts: Sequence[int],
    shared: dict[str, Any],
) -> list[dict[str, Any]]:
    """Return the rows nfe, seconds_per_1000 and parameters of one run of a sampler.

    They have no value where the model's images were made elsewhere and what they cost is not known.
    """
    if not getattr(model, "costs_known", True):
        why = "the images were made elsewhere: what they cost is not known"
        names = ("nfe", "seconds_per_1000", "parameters")
        return [context.row(name, None, **shared | {"note": why}) for name in names]
    evaluations = mean_interval(nfe.double().numpy())
    timing = seconds_interval(seconds, counts)
    rate = 1000 * sum(seconds) / sum(counts)
    parts = ", ".join(f"{name} {count:,}" for name, count in model.parameters.items())
    return [
        context.row("nfe", evaluations.value, ci_low=evaluations.low, ci_high=evaluations.high, **shared),
        context.row(
            "seconds_per_1000",
            rate,
            ci_low=timing.low if timing else None,
            ci_high=timing.high if timing else None,
            **shared | {"note": f"in batches of {counts[0]}, extraction of features not counted"},
        ),
        context.row("parameters", float(sum(model.parameters.values())), note=parts or None),
    ]
