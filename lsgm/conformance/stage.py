"""Every stage that a golden folder has values for: how far off each is, or why it cannot be run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from torch import Tensor

from lsgm.conformance.folder import Deviation, GoldenFolder, deviation, worst
from lsgm.errors import DataError
from lsgm.files.names import shown
from lsgm.progress import aligned

M = TypeVar("M")
"""The model that a folder is of."""


class CannotRunError(Exception):
    """A family of stages that cannot be run on this folder; the message is the reason, a clause."""


@dataclass(frozen=True)
class Tolerances:
    """The largest error that passes."""

    forward: float = 1e-9
    gradient: float = 1e-7


@dataclass(frozen=True)
class Result:
    """What became of one stage."""

    stage: str
    verdict: Literal["PASS", "FAIL", "SKIP"]
    deviation: Deviation | None = None
    """None where the stage was skipped."""
    tolerance: float | None = None
    tensors: int = 1
    """How many tensors the stage covers."""
    worst: str | None = None
    """Where there are several, the one with the largest error."""
    reason: str | None = None
    """Why it was skipped, or what its tolerance allows for by design."""
    members: Mapping[str, Deviation] | None = None
    """Every tensor of a stage of several."""


class Allowance(NamedTuple):
    """How far a stage lies from the folder's values by design, and why."""

    absolute: float
    """Largest difference of an entry."""
    reason: str


@dataclass(frozen=True)
class Family(Generic[M]):
    """Stages that one run of the model gives the values of."""

    covers: Callable[[str], bool]
    """Whether a tensor of the folder is a result of this family."""
    run: Callable[[GoldenFolder, M, Sequence[str]], Mapping[str, Tensor]]
    """(folder, model, names of results) -> ours by name; raises CannotRunError."""
    cropped: tuple[str, ...] = ()
    """Results of which a folder may hold the top left corner only."""
    gradients: bool = False
    """Whether the tolerance is that of gradients, and a stage a part of the model, ``step/grad/PART``."""
    translate: Callable[[GoldenFolder, M, Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None
    """Golden values under other names and layouts, where ours have others: gradients."""
    by_design: Callable[[GoldenFolder, M, str], Allowance | None] | None = None
    """What a stage may differ by besides rounding; None where it may not."""


def is_input(name: str) -> bool:
    """Return whether a tensor of a folder is given, and nothing to compare with."""
    last = name.split("/")[-1]
    return (
        name == "x_uint8"
        or "/encoder_noise/" in name
        or name in ("prior/t", "prior/z0", "prior/noise")
        or (name.startswith("step/") and last.removesuffix("_q") in ("rho", "diffusion_noise"))
    )


def examine(
    golden: GoldenFolder,
    model: M,
    families: Sequence[Family[M]],
    tolerances: Tolerances,
    given: Callable[[str], bool] = is_input,
) -> list[Result]:
    """Return the result of every stage that the folder has values for; values of no family are skipped.

    ``given`` says of a tensor's name whether it is an input. Raises DataError where the folder is not of
    this model: an input is missing, or a shape is another.
    """
    names = [name for name in golden.tensors if not given(name)]
    results: list[Result] = []
    for family in families:
        own = sorted(name for name in names if family.covers(name))
        names = [name for name in names if name not in own]
        if own:
            try:
                results += _run(golden, model, family, own, tolerances)
            except (RuntimeError, IndexError, ValueError) as error:  # torch's words on shapes
                why = shown(str(error).split("\n")[0])[:160]
                raise DataError(
                    f"{shown(str(golden.path / golden.values))}: {shown(own[0])[:200]} and what it follows "
                    f"from do not fit together ({why}); write the folder again"
                ) from error
    results += [Result(name, "SKIP", reason="this version knows no stage of that name") for name in names]
    if not results:
        raise DataError(f"{golden.path / golden.values} holds inputs only, so there is nothing to compare")
    return results


def _run(
    golden: GoldenFolder, model: M, family: Family[M], names: Sequence[str], tolerances: Tolerances
) -> list[Result]:
    stages: dict[str, list[str]] = {}
    for name in names:
        stages.setdefault("/".join(name.split("/")[:3]) if family.gradients else name, []).append(name)
    try:
        ours = family.run(golden, model, names)
    except CannotRunError as error:
        return [Result(stage, "SKIP", tensors=len(own), reason=str(error)) for stage, own in stages.items()]
    results = []
    for stage, own in stages.items():
        theirs: Mapping[str, Tensor] = {name: golden.tensors[name] for name in own}
        if family.translate is not None:
            theirs = family.translate(golden, model, theirs)
        known = [name for name in theirs if name in ours]
        if known:
            found = {name: _distance(golden, family, name, ours[name], theirs[name]) for name in known}
            name, largest = worst(found)
            tolerance, reason = tolerances.gradient if family.gradients else tolerances.forward, None
            if family.by_design is not None and (allowed := family.by_design(golden, model, stage)):
                tolerance += allowed.absolute / max(1.0, float(theirs[name].double().abs().max()))
                reason = allowed.reason
            verdict: Literal["PASS", "FAIL"] = "PASS" if largest.within(tolerance) else "FAIL"
            several = (name.removeprefix(f"{stage}/"), found) if family.gradients else (None, None)
            results.append(
                Result(stage, verdict, largest, tolerance, len(found), several[0], reason, several[1])
            )
        lost = sorted(theirs.keys() - known)
        results += [Result(name, "SKIP", reason="the model has no such value") for name in lost]
    return results


def _distance(golden: GoldenFolder, family: Family[M], name: str, ours: Tensor, theirs: Tensor) -> Deviation:
    if name in family.cropped:  # the top left corner is all that the folder kept
        ours = ours[..., : theirs.shape[-2], : theirs.shape[-1]]
    if ours.shape != theirs.shape:
        raise DataError(
            f"{shown(str(golden.path / golden.values))}: {shown(name)[:200]} has the shape "
            f"{list(theirs.shape)}, and the model gives {list(ours.shape)}; the two do not belong together"
        )
    return deviation(ours, theirs)


# What a person and what a program reads of the stages' results

_HEAD = ("stage", "error", "absolute", "relative", "tolerance", "verdict", "")


def passed(results: Sequence[Result]) -> bool:
    """Return whether something was compared and nothing failed; what was skipped has not passed."""
    verdicts = {result.verdict for result in results}
    return "PASS" in verdicts and "FAIL" not in verdicts


def as_json(result: Result) -> str:
    """Return one stage as a JSON object; numbers that are not finite are null."""
    found: dict[str, Any] = {"stage": result.stage, "verdict": result.verdict}
    if result.deviation is not None:
        numbers = result.deviation._asdict().items()
        found |= {name: value if math.isfinite(value) else None for name, value in numbers}
        found |= {"tolerance": result.tolerance, "tensors": result.tensors}
    if result.worst is not None:
        found["worst"] = result.worst
    if result.reason is not None:
        found["reason"] = result.reason
    return json.dumps(found)


def as_lines(results: Sequence[Result], *, verbose: bool = False) -> list[str]:
    """Return a table, one line a stage, and with ``verbose`` one for each tensor of a stage of several."""
    rows: list[tuple[str, ...]] = [_HEAD]  # names are out of a file, and may be any text
    for result in results:
        rows.append(_row(result))
        if verbose and result.members:
            rows += [
                (f"  {name.removeprefix(result.stage + '/')}", *_cells(found), "", "", "")
                for name, found in result.members.items()
            ]
    return aligned([tuple(map(shown, row)) for row in rows])


def summary(results: Sequence[Result]) -> str:
    """Return how many stages passed, failed and were skipped."""
    counts = {verdict: sum(r.verdict == verdict for r in results) for verdict in ("PASS", "FAIL", "SKIP")}
    text = f"{counts['PASS']} of {len(results)} stages pass, {counts['FAIL']} fail"
    return text + (f", {counts['SKIP']} could not be compared" if counts["SKIP"] else "")


def _row(result: Result) -> tuple[str, ...]:
    if result.deviation is None:
        return (result.stage, "", "", "", "", result.verdict, result.reason or "")
    several = f"{result.tensors} tensors, worst {result.worst}" if result.worst is not None else ""
    note = "; ".join(filter(None, (several, result.reason)))
    return (result.stage, *_cells(result.deviation), f"{result.tolerance:.0e}", result.verdict, note)


def _cells(found: Deviation) -> tuple[str, str, str]:
    return f"{found.error:.1e}", f"{found.absolute:.1e}", f"{found.relative:.1e}"
