"""Everything that two runs can be asked, and how the answers are said: text, Markdown and JSON lines."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from lsgm.files.names import shown
from lsgm.progress import aligned
from lsgm.results import Row
from lsgm.runs.checkpoint import located
from lsgm.structure import flat
from lsgm_eval.compare.numbers import LEVEL, MEASURED_ON, OTHERWISE, NumberLine, compare_numbers
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
    """Return what changed from run A to run B; ``model`` as in `choose_models`. Either may be on the Hub.

    Raises UserError where either holds nothing, where it is not clear which models are meant, and what the
    readers say of damaged files.
    """
    a, b = located(a), located(b)
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


# What is said of two runs, part by part

LONG = 60
"""Characters of a value that a table shows; JSON has all of them."""
ROW = ("value", "ci_low", "ci_high", "n", "sampler", "manifest")
"""Keys of a result row that a comparison repeats for A and for B."""


def to_text(found: Compared) -> str:
    """Return what a terminal shows: sentences and aligned tables."""
    blocks = [f"A: {_line(found.places[0])}\nB: {_line(found.places[1])}"]
    for part in parts(found):
        lines = [
            part.title.upper(),
            *part.said,
            *aligned([[_line(cell) for cell in line] for line in part.table]),
        ]
        lines += [f"- {point}" for point in part.points]
        lines += [f"    {line}".rstrip() for line in part.raw]
        blocks.append("\n".join(map(_line, lines)))
    return "\n\n".join(blocks)


def to_markdown(found: Compared) -> str:
    """Return the same as a Markdown document."""
    blocks = ["# Two runs side by side", f"- A: {_code(found.places[0])}\n- B: {_code(found.places[1])}"]
    for part in parts(found):
        blocks += [f"## {_escaped(part.title)}", *(_escaped(sentence) for sentence in part.said)]
        if part.table:
            head, *lines = [f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in part.table]
            blocks.append("\n".join([head, "|" + " --- |" * len(part.table[0]), *lines]))
        if part.points:
            blocks.append("\n".join(f"- {_escaped(point)}" for point in part.points))
        if part.raw:
            blocks.append("\n".join(["```", *map(_line, part.raw), "```"]))
    return "\n\n".join(blocks)


def to_json_rows(found: Compared) -> Iterator[str]:
    """Return JSON objects, one a line, each with its ``part``: every difference and every pair of numbers."""
    objects: list[dict[str, Any]] = [
        {"part": part, **fact._asdict()}
        for part, facts in (
            ("config", found.config or ()),
            ("code", found.machines),
            ("data", found.data),
            ("training", found.training),
        )
        for fact in differing(facts)
    ]
    for name, span in found.spans:
        ends = {"a": span.a, "b": span.b, "commits": span.commits}
        objects.append({"part": "code", "name": f"revision ({name})", **ends})
    for row in [*objects, *map(_number, found.numbers)]:
        yield json.dumps(_finite(row), allow_nan=False, default=str)


@dataclass(frozen=True)
class Part:
    """A heading, sentences, a table with its head first, points, and lines that are shown as they are."""

    title: str
    said: Sequence[str]
    table: Sequence[Sequence[str]] = ()
    raw: Sequence[str] = ()
    points: Sequence[str] = ()


def parts(found: Compared) -> list[Part]:
    """Return all parts in their order."""
    told = [_config(found)]
    for name, span in found.spans:
        raw = [*span.commits, *(("",) if span.commits and span.stat else ()), *span.stat]
        told.append(Part(f"Code that {name}", [f"{span.said[:1].upper()}{span.said[1:]}."], raw=raw))
    if found.machines:
        told.append(_facts("Versions and hardware", found.machines, "Nothing is recorded."))
    told.append(_facts("Data", found.data, "Nothing is known of the data of either."))
    return [*told, _training(found), *_numbers(found)]


def _config(found: Compared) -> Part:
    if found.config is None:
        missing = " and ".join(label for label, run in zip("AB", found.trainings, strict=True) if run is None)
        several = len(found.models) > 1
        hint = "name one model by --model" if several else "give the directory of a training run"
        return Part("Configuration", [f"The configuration of {missing} is not known here: {hint}."])
    changed, total = differing(found.config), len(found.config)
    said = f"{len(changed)} of {total} keys differ." if changed else f"All {total} keys agree."
    elsewhere = [
        f"That of {label} is read from {run.folder}, where its results say it was trained."
        for label, run, place in zip("AB", found.trainings, found.places, strict=True)
        if run is not None and run.folder != place
    ]
    return Part("Configuration", [*elsewhere, said], _table("key", changed))


def _facts(title: str, facts: Sequence[Fact], unknown: str) -> Part:
    """Return a table of what differs, and by name what does not."""
    known = [fact for fact in facts if not (fact.a is None and fact.b is None)]
    if not known:
        return Part(title, [unknown])
    changed = differing(known)
    same = ", ".join(fact.name for fact in known if fact.a == fact.b)
    return Part(title, [f"The same: {same}."] if same else [], _table("what", changed))


def _table(title: str, facts: Sequence[Fact]) -> list[tuple[str, ...]]:
    rows = [(fact.name, _shown(fact.a), _shown(fact.b)) for fact in facts]
    return [(title, "A", "B"), *rows] if rows else []


def _training(found: Compared) -> Part:
    if not found.training:
        return Part("Training", ["How both were trained is not known here."])
    # Terms on other data measure something else.
    same = all(fact.a == fact.b for fact in found.data if fact.name == "training data sha256")
    lines = [
        (*line, _minus(fact) if same or not fact.name.startswith("validation") else "")
        for line, fact in zip(_table("", found.training)[1:], found.training, strict=True)
    ]
    said = "Validation terms are of one checkpoint each, without intervals."
    return Part("Training", [said], [("what", "A", "B", "B - A"), *lines])


def _minus(fact: Fact) -> str:
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (fact.a, fact.b)]
    return _signed(float(fact.b) - float(fact.a)) if all(numbers) else ""


def _numbers(found: Compared) -> list[Part]:
    if not found.numbers:
        said = (
            "There are not results of both: `lsgm eval TASK --model RUN --out RUN` measures a run, "
            "into its own directory if that is named."
        )
        return [Part("Numbers", [said])]
    tables = [
        _of_models(pair, list(lines)) for pair, lines in groupby(found.numbers, key=lambda line: line.models)
    ]
    told = any(part.table for part in tables)
    return [*tables, *([Part("How to read them", _reading(found))] if told else [])]


def _of_models(pair: tuple[str, str], lines: Sequence[NumberLine]) -> Part:
    """Return the table of two models; what latent groups have of a bound's terms is in JSON alone."""
    lines = [line for line in lines if "/" not in line.metric]
    tasks = list(dict.fromkeys(str(line["task"]) for line in lines))
    name = pair[0] if pair[0] == pair[1] else f"{pair[0]} (A) and {pair[1]} (B)"
    title = f"Numbers of {name}" + (f", {tasks[0]}" if len(tasks) == 1 else "")
    several = _several(lines)
    table: list[tuple[str, ...]] = []
    # By what numbers were measured where the task has not the same for both, and why some are not compared.
    points: dict[str, list[str]] = {}
    for line in lines:
        known, (a, b), gap = _name(line, tasks, several), line.pair, line.difference
        if gap is None or a is None or b is None:
            points.setdefault(f"not compared, {line.how}", []).append(known)
            continue
        ends = f"{_signed(gap.low)} .. {_signed(gap.high)}" if gap.low != gap.high else ""
        cells = (f"{a.value:.6g}", f"{b.value:.6g}", _signed(gap.value), ends, line.verdict, line.how)
        table.append((known, *cells))
        if line.how.endswith(OTHERWISE):
            by = f"A by {a.sampler or 'nothing'} and B by {b.sampler or 'nothing'}"
            points.setdefault(f"measured otherwise, {by}", []).append(known)
    head = ("metric", "A", "B", "B - A", "95 % interval", "verdict", "how")
    return Part(
        title,
        [] if table else ["Nothing here compares."],
        [head, *table] if table else [],
        points=[
            f"{how}: {', '.join(names)}"
            for how, names in sorted(points.items(), key=lambda each: each[0].startswith("not"))
        ],
    )


def _signed(value: float | None) -> str:
    return "0" if not value else f"{value:+.3g}"


def _several(lines: Sequence[NumberLine]) -> list[str]:
    """Return what of data, extractor and reference one number has several of."""
    seen: dict[tuple[Any, ...], set[Any]] = {}
    for line in lines:
        number = [line[key] for key in ("task", "metric", "group", "sampler", "target")]
        for key in MEASURED_ON:
            seen.setdefault((key, *number), set()).add(line[key])
    return [key for key in MEASURED_ON if any(len(seen[of]) > 1 for of in seen if of[0] == key)]


def _name(line: NumberLine, tasks: Sequence[str], several: Sequence[str]) -> str:
    """Return the metric, and what tells it from others of its name."""
    keys = ("sampler", "target") if line["group"] in ("curve", "reach") else ()
    more = [str(line[key]) for key in keys if line[key]]
    words = {"dataset": "data", "extractor": "extractor", "reference_sha256": "reference"}
    more += [f"{words[key]} {_shown(line[key])}" for key in several if line[key]]
    task = f"{line['task']} " if len(tasks) > 1 else ""
    return f"{task}{line.metric}" + (f" [{', '.join(more)}]" if more else "")


def _reading(found: Compared) -> list[str]:
    many, sure = found.judged, LEVEL * 100
    return [
        "Each interval holds for its own number: of 20 that compare equal models, about one leaves 0 out.",
        f"'better' and 'worse' hold for all {many} judged numbers together (Holm, {sure:.0f} %; nats and "
        "bits of one bound count once); 'leans' means that the interval by itself leaves 0 out.",
        "'may be bias' means that the upward biases of both distances at this n differ by about as much as "
        "the distances: there is no verdict. More images have less of it, kernel distances none.",
        "'paired' differences are taken image by image or seed by seed; 'unpaired' ones treat both errors as "
        "independent, which makes the interval wide rather than narrow where they share images.",
        "All of it is about these trained weights: training again with another seed moves numbers too.",
    ]


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = "@".join(part[:12] if len(part) == 64 and part.isalnum() else part for part in text.split("@"))
    return text if len(text) <= LONG else f"{text[: LONG - 3]}..."


def _line(text: object) -> str:
    """Return what is said of files of others as one line of the terminal, which obeys nothing in it."""
    return shown(str(text))


def _escaped(text: str) -> str:
    """Return text that a Markdown table shows as it is: no markup, no link, no picture."""
    text = _line(text).replace("\\", "\\\\")
    for mark in "|_*[]`~":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("<", "&lt;")


def _code(value: object) -> str:
    return f"`{_line(value).replace('`', chr(39))}`"


def _number(line: NumberLine) -> dict[str, Any]:
    gap, ends = line.difference, dict(zip("ab", line.pair, strict=True))
    named = ("task", "metric", "group", "target", "unit", "higher_is_better")
    return {
        "part": "numbers",
        "model_a": line.models[0],
        "model_b": line.models[1],
        **{key: line[key] for key in named},
        **{f"{key}_{end}": row[key] if row is not None else None for end, row in ends.items() for key in ROW},
        "difference": gap.value if gap else None,
        "ci_low": gap.low if gap else None,
        "ci_high": gap.high if gap else None,
        "p": gap.p if gap else None,
        "p_holm": line.p_holm,
        "paired": line.how.startswith("paired"),
        "how": line.how,
        "verdict": line.verdict or None,
        "bias": gap.bias if gap else None,
    }


def _finite(value: Any) -> Any:
    """Return JSON's values: a configuration may hold infinities, which JSON has no word for."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
