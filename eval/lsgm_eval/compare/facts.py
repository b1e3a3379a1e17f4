"""Everything that two runs can be asked: how they were told, made and trained, and where they differ."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lsgm.results import Row
from lsgm.structure import flat
from lsgm_eval.compare.numbers import NumberLine, compare_numbers
from lsgm_eval.compare.sides import RanOn, RunSide, RunTraining, choose_models, open_side, trained_as

PACKAGES = ("lsgm", "eval", "baselines", "reports")
"""The four source roots, whose files make the numbers."""
REVISION = re.compile(r"[0-9a-f]{4,64}")
MOST = 40
"""Commits and files listed; of more the first ones and their number are enough to look them up."""
MEASURED = {
    "weights": "checkpoint_sha256",
    "measured data": "dataset",
    "bits scored": "levels_sha256",
    "extractor": "extractor",
    "reference": "reference_sha256",
}
"""What rows say of what was measured, by the names that it is told under."""


class Fact(NamedTuple):
    """One thing that is known of A, of B, or of both; None where it is not."""

    name: str
    a: Any
    b: Any


def differing(facts: Sequence[Fact]) -> list[Fact]:
    """Return those that are not the same in both."""
    return [fact for fact in facts if fact.a != fact.b]


@dataclass(frozen=True)
class Compared:
    """Two runs side by side."""

    places: tuple[Path, Path]
    models: Sequence[tuple[str, str]]
    """Which model of A was compared with which of B."""
    trainings: tuple[RunTraining | None, RunTraining | None]
    """How both were trained, where that is known and there is one model of each."""
    config: Sequence[Fact] | None
    """Every key of either; None where the configuration of one of them is not known."""
    training: Sequence[Fact]
    """Steps, images and seconds, and the last validation terms (in nats)."""
    spans: Sequence[tuple[str, Span]]
    """The code that ``trained`` and that ``measured`` both."""
    machines: Sequence[Fact]
    """Versions and hardware of the calls that trained and that measured."""
    data: Sequence[Fact]
    """What was trained on, and what the chosen models were measured on."""
    numbers: Sequence[NumberLine]

    @property
    def worse(self) -> list[NumberLine]:
        """Numbers in which B is worse than A, judged together with all others."""
        return [line for line in self.numbers if line.verdict == "worse"]

    @property
    def judged(self) -> int:
        """How many different questions the verdicts answer."""
        return len({line.hypothesis for line in self.numbers if line.judged})


def compare_runs(a: Path, b: Path, model: str = "") -> Compared:
    """Return what changed from run A to run B; ``model`` as in `choose_models`.

    Raises UserError where either holds nothing, where it is not clear which models are meant, and what the
    readers say of damaged files.
    """
    sides = first, second = open_side(a), open_side(b)
    models = choose_models(first, second, model)
    runs = first.training, second.training
    rows: list[list[Row]] = []
    if len(models) == 1:
        ours, theirs = models[0]
        runs = trained_as(first, ours), trained_as(second, theirs)
        rows = [first.by_model[ours], second.by_model[theirs]]
    calls: list[tuple[str, str, RanOn, RanOn]] = []
    if both := (runs[0], runs[1]) if runs[0] and runs[1] else None:
        calls.append(("trained", "training", *both))
    if models:
        measured = [_measured(side, [pair[k] for pair in models]) for k, side in enumerate(sides)]
        calls.append(("measured", "measuring", measured[0], measured[1]))
    machines: list[Fact] = []
    for _, what, one, other in calls:
        known = [*_side_by_side(one.versions, other.versions), Fact("hardware", one.hardware, other.hardware)]
        machines += [fact._replace(name=f"{fact.name} ({what})") for fact in known]
    datasets = [run.dataset if run else {} for run in runs]
    keys = [(f"training data {key}", key) for key in ("name", "version", "sha256")]
    data = [Fact(name, datasets[0].get(key), datasets[1].get(key)) for name, key in keys]
    data += [Fact(name, *(_values(each, key) for each in rows)) for name, key in MEASURED.items() if rows]
    return Compared(
        (a, b),
        models,
        runs,
        _side_by_side(*(flat(run.config) for run in both)) if both else None,
        _side_by_side(*map(_trained, both)) if both else (),
        [(what, span(one.revision, other.revision)) for what, _, one, other in calls],
        machines,
        data,
        compare_numbers(first, second, models),
    )


def _measured(side: RunSide, models: Sequence[str]) -> RanOn:
    """Return what the newest row of the models knows of the call that measured it."""
    newest = next((row for row in reversed(side.rows) if row.model in set(models)), None)
    return RanOn() if newest is None else side.ran_on(newest)


def _side_by_side(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Fact]:
    return [Fact(name, a.get(name), b.get(name)) for name in dict.fromkeys([*a, *b])]


def _trained(run: RunTraining) -> dict[str, Any]:
    seconds = run.state.get("seconds_by_stage") or {}
    found = {"steps": run.state.get("step"), "images": run.state.get("images")}
    found |= {f"seconds of {stage}": value for stage, value in seconds.items()}
    found |= {"finished": run.state.get("finished"), "validated at step": run.validation.get("step")}
    found |= {f"validation {name}": value for name, value in run.validation.items() if name != "step"}
    return {name: value for name, value in found.items() if value is not None}


def _values(rows: Sequence[Row], key: str) -> str | None:
    """Return all that rows say under a key, joined; None where they say nothing."""
    return ", ".join(dict.fromkeys(str(row[key]) for row in rows if row[key] is not None)) or None


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
    first, second = (text.removesuffix("+dirty").removesuffix("-dirty") for text in (a, b))
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
    ahead, behind = (f"{len(some)} commit{'s' * (len(some) != 1)} of" for some in (commits, back))
    said = f"from {first[:12]} to {second[:12]}: {ahead} B not in A"
    said += f", {behind} A not in B" if back else ""
    said += "" if stat else "; no file of the four packages differs"
    more = (f"... and {len(commits) - MOST} more",) if len(commits) > MOST else ()
    return Span(a, b, said + beside, (*commits[:MOST], *more), stat)


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
