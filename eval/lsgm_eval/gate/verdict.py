"""Golden rows against what was measured: which rows stand, which do not, and one sentence for each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lsgm.errors import UserError
from lsgm_eval.gate.golden import EstimateRow, Golden, ImagesRow, ReplayRow
from lsgm_eval.gate.measure import Measured
from lsgm_eval.gate.tolerance import (
    FALSE_ALARM,
    HEADROOM,
    flips_allowed,
    paired_margin,
    predictive_margin,
)

__all__ = ["Verdict", "judge"]


@dataclass(frozen=True)
class Verdict:
    """What the gate says of one row."""

    row: str
    kind: str
    unit: str
    golden: float
    """Its value; of a replay the mean over images, of drawn images the mean level."""
    measured: float | None
    """The same of this model; None where it could not be measured or is not finite."""
    difference: float | None
    """What is compared with ``allowed``: of an estimate measured - golden, of a replay the largest difference
    of an image, or the mean one where that is what fails; of drawn images the levels turned over."""
    allowed: float
    passed: bool
    sentence: str
    """What was found, for a reader who sees nothing else."""


def judge(golden: Golden, measured: Measured, *, retrained: bool = False) -> list[Verdict]:
    """Return the verdict of every golden row, in their order.

    ``retrained`` is for a checkpoint trained anew, whose numbers are its own: replays are left out, and
    estimates fail only where they are worse, by more than chance explains over images as well.

    Raises UserError where there is a row that this version does not measure, and where none is left.
    """
    rows = {name: row for name, row in golden.rows.items() if isinstance(row, EstimateRow) or not retrained}
    if not rows:
        raise UserError("there are only replays among the golden rows, and none of a model trained anew")
    chance = FALSE_ALARM / len(rows)
    return [_judge(name, row, measured, chance, retrained) for name, row in rows.items()]


def _judge(name: str, row: Any, measured: Measured, chance: float, retrained: bool) -> Verdict:
    why = measured.why_missing(name)
    if why is not None:
        unit = getattr(row, "unit", "level")
        sentence = f"{name} could not be measured: {why}"
        return Verdict(name, row.kind, unit, _value(row), None, None, 0.0, False, sentence)
    if isinstance(row, ReplayRow):
        return _replay(name, row, _of(measured.replays, name))
    if isinstance(row, ImagesRow):
        return _images(name, row, _of(measured.drawn, name), chance)
    if retrained:
        return _retrained(name, row, _of(measured.estimates, name), chance)
    return _estimate(name, row, _of(measured.estimates, name), chance)


def _of(found: dict[str, Any], name: str) -> Any:
    if name not in found:
        raise UserError(
            f"the golden row '{name}' is not measured of this model by this version: use the version that "
            "wrote it, or write the rows again by --update --reason TEXT"
        )
    return found[name]


def _value(row: Any) -> float:
    if isinstance(row, ReplayRow):
        return float(np.mean(row.values))
    return row.value if isinstance(row, EstimateRow) else float(row.levels().mean())


def _replay(name: str, row: ReplayRow, values: Any) -> Verdict:
    _require_count(name, len(row.values), len(values))
    gap = np.abs(values - np.asarray(row.values))
    largest, mean = float(gap.max()), float(gap.mean())
    wide, narrow = HEADROOM * row.largest, HEADROOM * row.mean
    finite = bool(np.isfinite(values).all())
    value = float(values.mean()) if finite else None
    by_largest = largest / wide >= mean / narrow
    worst, allowed = (largest, wide) if by_largest else (mean, narrow)
    what = f"image {int(gap.argmax())} of {len(gap)}" if by_largest else f"the mean of {len(gap)} images"
    passed = finite and largest <= wide and mean <= narrow
    if not finite:
        bad = int((~np.isfinite(values)).argmax())
        sentence = f"{name} is not finite at image {bad} of {len(values)}"
        return Verdict(name, row.kind, row.unit, _value(row), None, None, allowed, False, sentence)
    sentence = (
        f"{name} differs by {worst:.3g} {row.unit} at {what}, where rounding explains {allowed:.2g}"
        if not passed
        else f"{name} differs by at most {largest:.2g} {row.unit}, and rounding explains {wide:.2g}"
    )
    return Verdict(name, row.kind, row.unit, _value(row), value, worst, allowed, passed, sentence)


def _images(name: str, row: ImagesRow, levels: Any, chance: float) -> Verdict:
    old = row.levels()
    _require_count(name, old.size, levels.size)
    if old.shape != levels.shape:
        raise UserError(
            f"the golden row '{name}' is of {list(old.shape)} images by sub-pixels and {list(levels.shape)} "
            "were measured: its shape was changed by hand; write the rows again by --update --reason TEXT"
        )
    turned, allowed = int((old != levels).sum()), flips_allowed(row.flips, chance)
    passed = turned <= allowed
    sentence = (
        f"{name}: {turned:,} of {old.size:,} sub-pixels of images drawn from the same seeds differ, where "
        f"rounding explains {allowed:,}"
    )
    return Verdict(
        name, row.kind, "level", float(old.mean()), float(levels.mean()), turned, allowed, passed, sentence
    )


def _estimate(name: str, row: EstimateRow, found: Any, chance: float) -> Verdict:
    margin = predictive_margin(row.error, row.df, row.repeats, chance / 2)
    value = found.value
    if row.per_image and found.per_image is not None:
        _require_count(name, len(row.per_image), len(found.per_image))
        value = float(row.cut_values(found.per_image).mean())
    why = f"other seeds explain {margin:.2g}, at a chance of {FALSE_ALARM:g} of a false alarm of the gate"
    return _compared(name, row, value, margin, lambda gap: abs(gap) <= margin, why)


def _retrained(name: str, row: EstimateRow, found: Any, chance: float) -> Verdict:
    """Judge an estimate of a model trained anew, one-sided.

    Where the golden row has its images, the model is compared with it in pairs; else both measurements'
    seeds are allowed for, which for a distance are its sampled images.
    """
    if row.per_image and found.per_image is not None:
        _require_count(name, len(row.per_image), len(found.per_image))
        images = row.cut_values(found.per_image)
        value = float(images.mean())
        margin = paired_margin(images - np.asarray(row.per_image), chance)
        why = f"images and seeds explain {margin:.2g}, in pairs over {len(row.per_image):,} images"
    else:
        value = found.value
        margin = predictive_margin(row.error, row.df, row.repeats, chance)
        why = f"seeds explain {margin:.2g}"
    sign = -1.0 if row.higher_is_better else 1.0
    return _compared(name, row, value, margin, lambda gap: sign * gap <= margin, why)


def _compared(
    name: str, row: EstimateRow, value: float, margin: float, stands: Callable[[float], bool], why: str
) -> Verdict:
    if not math.isfinite(value):
        sentence = f"{name} is {value}"
        return Verdict(name, row.kind, row.unit, row.value, None, None, margin, False, sentence)
    gap = value - row.value
    better = (gap > 0) == row.higher_is_better
    sentence = (
        f"{name} is {value:.6g} {row.unit} against {row.value:.6g}, {abs(gap):.3g} "
        f"{'better' if better else 'worse'}; {why}"
    )
    return Verdict(name, row.kind, row.unit, row.value, value, gap, margin, stands(gap), sentence)


def _require_count(name: str, wanted: int, found: int) -> None:
    if wanted != found:
        raise UserError(
            f"the golden row '{name}' holds {wanted:,} numbers and {found:,} were measured: its plan was "
            "changed by hand; write the rows again by --update --reason TEXT"
        )
