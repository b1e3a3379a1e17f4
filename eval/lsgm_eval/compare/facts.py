"""Everything that two runs can be asked: how they were told, made and trained, and where they differ."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from lsgm_eval.compare.numbers import NumberLine, compare_numbers
from lsgm_eval.compare.sides import Row, RunSide, RunTraining, choose_models, open_side, trained_as

__all__ = [
    "PACKAGES",
    "Compared",
    "Fact",
    "Span",
    "compare_runs",
    "config_facts",
    "data_facts",
    "differing",
    "flat",
    "machine_facts",
    "span",
    "training_facts",
]


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
    newest = next((row for row in reversed(side.rows) if row.model in meant), None)
    if newest is None:
        return _Call()
    made = side.manifest_of(newest)
    return _Call(newest.git_revision, made.versions, made.hardware)


PACKAGES = ("lsgm", "eval", "baselines", "reports")
"""The four source roots, whose files make the numbers."""
REVISION = re.compile(r"[0-9a-f]{4,64}")
MOST = 40
"""Commits and files listed; of more the first ones and their number are enough to look them up."""


@dataclass(frozen=True)
class Fact:
    """One thing that is known of A, of B, or of both; None where it is not."""

    name: str
    a: Any
    b: Any

    @property
    def kind(self) -> Literal["same", "changed", "only A", "only B"]:
        """How the two stand to each other."""
        if self.a == self.b:
            return "same"
        if self.a is None or self.b is None:
            return "only B" if self.a is None else "only A"
        return "changed"


def differing(facts: Sequence[Fact]) -> list[Fact]:
    """Return those that are not the same in both."""
    return [fact for fact in facts if fact.kind != "same"]


def config_facts(a: RunTraining, b: RunTraining) -> list[Fact]:
    """Return every key of either configuration; one that is absent, as None in TOML is, is None."""
    return _side_by_side(flat(a.config), flat(b.config))


def training_facts(a: RunTraining, b: RunTraining) -> list[Fact]:
    """Return steps, images and seconds of training, and the last validation terms (in nats)."""
    return _side_by_side(_trained(a), _trained(b))


def machine_facts(a: RanOn, b: RanOn, what: str) -> list[Fact]:
    """Return versions and hardware of two calls, named ``what``."""
    facts = [Fact(f"{fact.name} ({what})", fact.a, fact.b) for fact in _side_by_side(a.versions, b.versions)]
    return [*facts, Fact(f"hardware ({what})", a.hardware, b.hardware)]


def data_facts(
    sides: tuple[RunSide, RunSide], models: tuple[str, str] | None, runs: Sequence[RunTraining | None]
) -> list[Fact]:
    """Return what was trained on, and on what the chosen models were measured, one fact for each field."""
    first, second = ((run.dataset if run else {}) for run in runs)
    facts = [
        Fact(f"training data {name}", first.get(name), second.get(name))
        for name in ("name", "version", "sha256")
    ]
    if models is None:
        return [fact for fact in facts if not fact.a is fact.b is None]
    rows = [side.of(model) for side, model in zip(sides, models, strict=True)]
    return facts + [
        Fact(title, _values(rows[0], key), _values(rows[1], key))
        for title, key in (
            ("weights", "checkpoint_sha256"),
            ("measured data", "dataset"),
            ("bits scored", "levels_sha256"),
            ("extractor", "extractor"),
            ("reference", "reference_sha256"),
        )
    ]


class RanOn(Protocol):
    """A call, of a training or of a measurement, that knows what it ran on."""

    @property
    def versions(self) -> Mapping[str, Any]: ...
    @property
    def hardware(self) -> Any: ...


def flat(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as ``{"a.b.c": value}``; an empty table is no key at all."""
    found: dict[str, Any] = {}
    for key, value in tables.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _side_by_side(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Fact]:
    return [Fact(name, a.get(name), b.get(name)) for name in dict.fromkeys([*a, *b])]


def _trained(run: RunTraining) -> dict[str, Any]:
    seconds = run.state.get("seconds_by_stage") or {}
    found = {"steps": run.state.get("step"), "images": run.state.get("images")}
    found |= {f"seconds of {stage}": value for stage, value in seconds.items()}
    found |= {"finished": run.state.get("finished")}
    at = run.validation.get("step")
    found |= {"validated at step": at}
    found |= {f"validation {name}": value for name, value in run.validation.items() if name != "step"}
    return {name: value for name, value in found.items() if value is not None}


def _values(rows: Sequence[Row], key: str) -> str | None:
    """Return all that rows say under a key, joined; None where they say nothing."""
    found = dict.fromkeys(str(row[key]) for row in rows if row[key] is not None)
    return ", ".join(found) or None


@dataclass(frozen=True)
class Span:
    """What a clone knows of the way from one revision to another."""

    a: str | None
    b: str | None
    said: str
    """One sentence."""
    commits: tuple[str, ...] = ()
    """``git log --oneline A..B``, newest first."""
    stat: tuple[str, ...] = ()
    """``git diff --stat A B`` of the four packages."""


def span(a: str | None, b: str | None, clone: Path | None = None) -> Span:
    """Return what lies between two recorded revisions, which may end in ``+dirty`` or ``-dirty``.

    ``clone`` is any folder of the checkout that is asked, by default the one that this code is in.
    """
    if a is None or b is None:
        which = "neither run names a" if a is b is None else f"run {'A' if a is None else 'B'} names no"
        return Span(a, b, f"{which} git revision, as code outside of a clone has none")
    first, second = (_plain(revision) for revision in (a, b))
    dirty = [label for label, full, plain in (("A", a, first), ("B", b, second)) if full != plain]
    beside = f"; changes that {' and '.join(dirty)} had not committed are not in git" if dirty else ""
    if first == second:
        return Span(a, b, f"both are at {first[:12]}{beside}")
    folder = clone or Path(__file__).resolve().parent
    elsewhere = f"from {first[:12]} to {second[:12]}, which are not both in a clone at hand{beside}"
    if not (REVISION.fullmatch(first) and REVISION.fullmatch(second)):
        return Span(a, b, elsewhere)  # git has other words for commits, and options
    try:
        for revision in (first, second):
            _git(folder, "cat-file", "-e", f"{revision}^{{commit}}")
        commits = _git(folder, "log", "--oneline", f"{first}..{second}")
        back = _git(folder, "log", "--oneline", f"{second}..{first}")
        stat = _git(
            folder, "diff", f"--stat=100,80,{MOST}", first, second, "--", *(f":/{name}" for name in PACKAGES)
        )
    except (OSError, subprocess.SubprocessError):
        return Span(a, b, elsewhere)
    said = f"from {first[:12]} to {second[:12]}: {_commits(len(commits))} of B not in A"
    said += f", {_commits(len(back))} of A not in B" if back else ""
    said += "" if stat else "; no file of the four packages differs"
    more = (f"... and {len(commits) - MOST} more",) if len(commits) > MOST else ()
    return Span(a, b, said + beside, (*commits[:MOST], *more), stat)


def _plain(revision: str) -> str:
    return revision.removesuffix("+dirty").removesuffix("-dirty")


def _commits(count: int) -> str:
    return f"{count} commit{'s' * (count != 1)}"


def _git(folder: Path, *words: str) -> tuple[str, ...]:
    done = subprocess.run(
        ["git", "--no-optional-locks", "-C", str(folder), *words],
        capture_output=True,
        text=True,
        errors="replace",
        check=True,
        timeout=20,
    )
    return tuple(line.rstrip() for line in done.stdout.splitlines())
