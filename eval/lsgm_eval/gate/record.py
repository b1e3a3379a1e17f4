"""Writing golden rows: the same numbers computed in several ways, estimates repeated, and what has moved."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lsgm.errors import UserError
from lsgm.logs import log
from lsgm.progress import bar
from lsgm.results.metrics import entry_of
from lsgm.runs.provenance import git_revision, versions
from lsgm_eval.gate.golden import Change, EstimateRow, Golden, ImagesRow, ReplayRow, Row, pack, rounded
from lsgm_eval.gate.measure import Measured, Repeat, Subject, identities, measure_estimates, measure_replays
from lsgm_eval.gate.verdict import CUT, FLOAT32, pooled_error, repeat_error, rounding_of
from lsgm_eval.metrics.intervals import mean_interval
from lsgm_eval.task import Task

MOVED = 1e-6
"""Relative change of a value that is told as one: above rounding, below the error of any estimate."""


LOOSEST = 1e-3
"""Relative difference between ways of computing a row above which replaying it would tell nothing."""


def record(subject: Subject, task: Task, reason: str, previous: Golden | None) -> Golden:
    """Return golden rows of a model as it is, with ``reason`` at the end of the history.

    Raises UserError for an empty reason, and where anything of the plan cannot be measured.
    """
    if not reason.strip():
        raise UserError("new golden rows need a reason: --reason 'what changed, and why that is right'")
    rows: dict[str, Row] = {**_replays(subject), **_estimates(subject)}
    before = dict(previous.rows) if previous else {}
    change = Change(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        reason=reason.strip(),
        git_revision=git_revision(),
        checkpoint_sha256=subject.model.sha256,
        versions={name: text for name, text in versions().items() if text},
        before={name: rounded(row.value)[0] for name, row in before.items() if _moved(row, rows.get(name))},
    )
    return Golden(
        format=1,
        model=subject.model.name,
        checkpoint_sha256=subject.model.sha256,
        task=f"{task.name}@{task.version}",
        dataset=subject.images.dataset,
        split=subject.images.split,
        levels_sha256=subject.images.levels_sha256,
        spaces=identities(subject),
        plan=subject.plan,
        rows=rows,
        history=(*(previous.history if previous else ()), change),
    )


def moves(old: Golden | None, new: Golden) -> list[str]:
    """Return a sentence for every row that is new, gone or of another value than before."""
    before: Mapping[str, Row] = old.rows if old else {}
    told = [
        f"{name}: {before[name].value:.6g} -> {row.value:.6g}" if name in before else f"{name}: new"
        for name, row in new.rows.items()
        if name not in before or _moved(before[name], row)
    ]
    return told + [f"{name}: gone" for name in before if name not in new.rows]


def _moved(old: Row, new: Row | None) -> bool:
    if new is None or type(old) is not type(new):
        return True
    return not math.isclose(old.value, new.value, rel_tol=MOVED)


def _replays(subject: Subject) -> dict[str, Row]:
    """Return the rows of what the gate's own way gives, with what the other ways make of it."""
    own = _whole(measure_replays(subject))
    others = {name: found for name, way in _ways(subject).items() if (found := _tried(name, way)) is not None}
    ways = tuple(others)
    rows: dict[str, Row] = {}
    for name, values in own.replays.items():
        if not values.any():
            continue  # a term that the model does not have
        largest, mean = rounding_of(values, [found.replays[name] for found in others.values()])
        if _replayable(name, largest / float(np.abs(values).mean())):
            errors = (rounded(largest, 4)[0], rounded(mean, 4)[0])
            rows[name] = ReplayRow("replay", "nats", rounded(values), *errors, ways)
    for name, levels in own.drawn.items():
        flips = max((int((found.drawn[name] != levels).sum()) for found in others.values()), default=0)
        if _replayable(name, flips / levels.size):
            rows[name] = ImagesRow("images", levels.shape, pack(levels), flips, ways)
    return rows


def _replayable(name: str, spread: float) -> bool:
    """Return whether a row is known well enough to be replayed; one that is not is named."""
    if spread <= LOOSEST:
        return True
    log.warning(
        f"{name} is left out: ways of computing it differ by {spread:.1g} of its size, which is more than a "
        "replay could tell a fault from"
    )
    return False


def _ways(subject: Subject) -> dict[str, Callable[[], Measured]]:
    """Return other ways of computing what `measure_replays` does, by what sets them apart."""
    threads = 1 if torch.get_num_threads() > 1 else 2

    def threaded() -> Measured:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return measure_replays(subject)
        finally:
            torch.set_num_threads(before)

    def doubled() -> Measured:
        with Doubled():
            return measure_replays(subject)

    return {
        "batches of 1": lambda: measure_replays(subject, batch=1),
        "batches of 7": lambda: measure_replays(subject, batch=7),
        f"{threads} threads" if threads > 1 else "1 thread": threaded,
        "float64": doubled,
    }


def _tried(name: str, way: Callable[[], Measured]) -> Measured | None:
    """Return what a way gives; a model may not bear float64, and the other ways then have to do."""
    try:
        return _whole(way())
    except (RuntimeError, TypeError, UserError) as error:
        log.warning(f"this model is not computed by way of {name} ({error})")
        return None


def _estimates(subject: Subject) -> dict[str, Row]:
    repeats = range(subject.plan.repeats)
    with bar(total=len(repeats), desc=f"{subject.model.name}: repeats", unit="repeat") as progress:
        found = []
        for repeat in repeats:
            found.append(_whole(measure_estimates(subject, repeat=repeat)).estimates)
            progress.update(1)
    return {name: _estimate(name, [one[name] for one in found]) for name in found[0]}


def _estimate(name: str, found: list[Repeat]) -> EstimateRow:
    """Return the row of an estimate's repeats, each over the same images or, of a distance, of new ones."""
    values = np.array([one.value for one in found])
    error, df = repeat_error(values)
    of_images: dict[str, Any] = {}
    images = [one.per_image for one in found if one.per_image is not None]
    if images:
        ends = np.quantile(images, [CUT, 1 - CUT])
        within = np.clip(images, *ends)
        (error, df), centre = pooled_error(within), within.mean(axis=0)
        values = within.mean(axis=1)
        of_images = {
            "image_error": rounded(mean_interval(centre).standard_error, 4)[0],
            "per_image": rounded(centre, 7),
            "cut": rounded(ends),
        }
    about = entry_of(name)
    return EstimateRow(
        kind="estimate",
        unit=about.unit,
        higher_is_better=bool(about.higher_is_better),
        value=rounded(values.mean())[0],
        # A bound without draws gives the same number for all seeds, up to its rounding.
        error=rounded(max(error, FLOAT32 * float(np.abs(values).max())), 4)[0],
        df=rounded(df, 4)[0],
        repeats=len(found),
        **of_images,
    )


def _whole(found: Measured) -> Measured:
    """Return what was measured. Raises UserError where something could not be, or is not finite."""
    for name, why in found.failures.items():
        raise UserError(f"{name} cannot be measured, and golden rows are whole: {why}")
    arrays: dict[str, Any] = {**found.replays, **{name: one.value for name, one in found.estimates.items()}}
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise UserError(f"{name} is not finite: golden rows are of models that work")
    return found


# The same computation in float64, whatever the model: what float32 rounding does to its numbers

KEPT = frozenset({"grad", "backward", "seed", "manual_seed", "empty", "randn", "rand"})
"""Functions that are left alone: those of the autograd graph, and those that make room for random numbers,
which would be other numbers in float64."""
VIEWS = frozenset(
    {"unbind", "select", "narrow", "__getitem__", "view", "view_as", "reshape", "flatten", "unflatten"}
    | {"expand", "expand_as", "permute", "transpose", "t", "squeeze", "unsqueeze", "chunk", "split"}
    | {"detach", "contiguous"}
)
"""Functions that compute nothing, and whose results may be written to in the place of their arguments."""


class Doubled(TorchFunctionMode):
    """Within it every torch function sees float64 in the place of float32.

    Random numbers and whatever is written in place keep their dtype, so that seeds give the same noise;
    weights stay float32 and are widened where they are used. Everything between two such places is computed
    in float64: the differences from a computation outside are float32's roundings.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``func`` with float32 arguments widened."""
        given = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in KEPT or name in VIEWS or _in_place(name):
            return func(*args, **given)
        if func is Tensor.float:
            return args[0].double()
        return func(*_wide(args), **{key: _wide(value) for key, value in given.items()})


def _in_place(name: str) -> bool:
    if name in ("__get__", "__set__", "__setitem__", "__delete__"):
        return True
    operator = name.startswith("__i") and name.endswith("__") and name not in ("__invert__", "__index__")
    return operator or (name.endswith("_") and not name.endswith("__"))


def _wide(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.dtype is torch.float32 else value
    if value is torch.float32:
        return torch.float64
    if type(value) in (list, tuple):
        return type(value)(_wide(item) for item in value)
    return value
