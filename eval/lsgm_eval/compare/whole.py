"""Everything that two runs can be asked, gathered once for whatever it is then printed as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lsgm_eval.compare.facts import Fact, Span, config_facts, data_facts, machine_facts, span, training_facts
from lsgm_eval.compare.numbers import NumberLine, compare_numbers
from lsgm_eval.compare.sides import RunSide, RunTraining, choose_models, open_side, trained_as

__all__ = ["Compared", "compare_runs"]


@dataclass(frozen=True)
class Compared:
    """Two runs side by side."""

    places: tuple[Path, Path]
    models: Sequence[tuple[str, str]]
    """Which model of A was compared with which of B."""
    trainings: tuple[RunTraining | None, RunTraining | None]
    """How both were trained, where that is known and there is one model of each."""
    config: Sequence[Fact] | None
    """None where the configuration of either is not known."""
    training: Sequence[Fact] | None
    spans: Sequence[tuple[str, Span]]
    """The code that ``trained`` and that ``measured`` both."""
    machines: Sequence[Fact]
    data: Sequence[Fact]
    numbers: Sequence[NumberLine]

    @property
    def worse(self) -> list[NumberLine]:
        """Numbers in which B is worse than A, judged together with all others."""
        return [line for line in self.numbers if line.verdict == "worse"]

    @property
    def judged(self) -> int:
        """How many different questions the verdicts answer."""
        return len({line.hypothesis for line in self.numbers if line.judged})


def compare_runs(a: Path, b: Path, model: str = "", *, clone: Path | None = None) -> Compared:
    """Return what changed from run A to run B; ``model`` as in `choose_models`, ``clone`` as in `span`.

    Raises UserError where either holds nothing, where it is not clear which models are meant, and what the
    readers say of damaged files.
    """
    sides = open_side(a), open_side(b)
    models = choose_models(*sides, model)
    one = models[0] if len(models) == 1 else None
    first, second = _trainings(sides, one)
    both = (first, second) if first is not None and second is not None else None
    calls = [_call(side, [pair[k] for pair in models]) for k, side in enumerate(sides)]
    spans = [("trained", span(both[0].revision, both[1].revision, clone))] if both else []
    machines: list[Fact] = []
    if both:
        machines += machine_facts(both[0], both[1], "training")
    if models:
        spans.append(("measured", span(calls[0].revision, calls[1].revision, clone)))
        machines += machine_facts(calls[0], calls[1], "measuring")
    return Compared(
        (a, b),
        models,
        (first, second),
        config_facts(*both) if both else None,
        training_facts(*both) if both else None,
        spans,
        machines,
        data_facts(sides, one, (first, second)),
        compare_numbers(*sides, models),
    )


def _trainings(
    sides: tuple[RunSide, RunSide], models: tuple[str, str] | None
) -> tuple[RunTraining | None, ...]:
    if models is None:
        return tuple(side.training for side in sides)
    return tuple(trained_as(side, name) for side, name in zip(sides, models, strict=True))


@dataclass(frozen=True)
class _Call:
    """What is known of a call: the revision of its code, versions and hardware."""

    revision: str | None = None
    versions: Mapping[str, Any] = field(default_factory=dict)
    hardware: Any = None


def _call(side: RunSide, models: Sequence[str]) -> _Call:
    """Return what the newest row of the models knows of the call that measured it."""
    meant = set(models)
    newest = next((row for row in reversed(side.rows) if row["model"] in meant), None)
    if newest is None:
        return _Call()
    made = side.manifest_of(newest)
    return _Call(newest.get("git_revision"), made.versions, made.hardware)
