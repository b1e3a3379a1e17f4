"""What is said of two runs, part by part: as text, as Markdown, and as JSON lines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lsgm.files.names import shown
from lsgm.progress import aligned
from lsgm_eval.compare.facts import Compared, Fact, differing
from lsgm_eval.compare.numbers import LEVEL, MEASURED_ON, OTHERWISE, NumberLine

__all__ = ["Part", "parts", "to_json_rows", "to_markdown", "to_text"]

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
    for part, facts in (
        ("config", found.config or ()),
        ("code", found.machines),
        ("data", found.data),
        ("training", found.training or ()),
    ):
        for fact in differing(facts):
            yield _dumped({"part": part, "name": fact.name, "a": fact.a, "b": fact.b})
    for name, span in found.spans:
        yield _dumped(
            {
                "part": "code",
                "name": f"revision ({name})",
                "a": span.a,
                "b": span.b,
                "commits": span.commits,
            }
        )
    for line in found.numbers:
        yield _dumped(_number(line))


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
    return [
        _config(found),
        *_code_parts(found),
        _facts("Data", found.data, "nothing is known of the data of either"),
        _training(found),
        *_numbers(found),
    ]


def _config(found: Compared) -> Part:
    if found.config is None:
        missing = " and ".join(label for label, run in zip("AB", found.trainings, strict=True) if run is None)
        several = len(found.models) > 1
        hint = "name one model by --model" if several else "give the directory of a training run"
        return Part("Configuration", [f"The configuration of {missing} is not known here: {hint}."])
    changed = differing(found.config)
    same = len(found.config) - len(changed)
    said = f"{len(changed)} of {len(found.config)} keys differ." if changed else f"All {same} keys agree."
    elsewhere = [
        f"That of {label} is read from {run.folder}, where its results say it was trained."
        for label, run, place in zip("AB", found.trainings, found.places, strict=True)
        if run is not None and run.folder != place
    ]
    return Part("Configuration", [*elsewhere, said], _table("key", changed))


def _code_parts(found: Compared) -> list[Part]:
    parts = []
    for name, span in found.spans:
        raw = [*span.commits, *(("",) if span.commits and span.stat else ()), *span.stat]
        parts.append(Part(f"Code that {name}", [f"{span.said[:1].upper()}{span.said[1:]}."], (), raw))
    if found.machines:
        parts.append(_facts("Versions and hardware", found.machines, "nothing is recorded"))
    return parts


def _facts(title: str, facts: Sequence[Fact], unknown: str) -> Part:
    """Return a table of what differs, and by name what does not."""
    known = [fact for fact in facts if not (fact.a is None and fact.b is None)]
    if not known:
        return Part(title, [f"{unknown[:1].upper()}{unknown[1:]}."])
    same = [fact.name for fact in known if fact.kind == "same"]
    said = [f"The same: {', '.join(same)}."] if same else []
    return Part(title, said, _table("what", differing(known)))


def _training(found: Compared) -> Part:
    if not found.training:
        return Part("Training", ["How both were trained is not known here."])
    said = ["Validation terms are of one checkpoint each, without intervals."]
    # Terms on other data measure something else.
    same = all(fact.kind == "same" for fact in found.data if fact.name == "training data sha256")
    lines = [
        (
            fact.name,
            _shown(fact.a),
            _shown(fact.b),
            _minus(fact) if same or not fact.name.startswith("validation") else "",
        )
        for fact in found.training
    ]
    return Part("Training", said, [("what", "A", "B", "B - A"), *lines])


def _minus(fact: Fact) -> str:
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (fact.a, fact.b)]
    return _signed(float(fact.b) - float(fact.a)) if all(numbers) else ""


def _numbers(found: Compared) -> list[Part]:
    if not found.numbers:
        return [
            Part(
                "Numbers",
                [
                    "There are not results of both: `lsgm eval TASK --model RUN --out RUN` measures a run, "
                    "into its own directory if that is named."
                ],
            )
        ]
    of: dict[tuple[str, str], list[NumberLine]] = {}
    for line in found.numbers:
        of.setdefault(line.models, []).append(line)
    tables = [_of_models(pair, of.get(pair, [])) for pair in found.models]
    told = any(part.table for part in tables)
    return [*tables, *([Part("How to read them", _reading(found))] if told else [])]


def _of_models(pair: tuple[str, str], lines: Sequence[NumberLine]) -> Part:
    """Return the table of two models; what latent groups have of a bound's terms is in JSON alone."""
    lines = [line for line in lines if "/" not in line.metric]
    tasks = list(dict.fromkeys(str(line.match["task"]) for line in lines))
    name = pair[0] if pair[0] == pair[1] else f"{pair[0]} (A) and {pair[1]} (B)"
    title = f"Numbers of {name}" + (f", {tasks[0]}" if len(tasks) == 1 else "")
    told = [line for line in lines if line.difference is not None]
    several = _several(lines)
    head = ("metric", "A", "B", "B - A", "95 % interval", "verdict", "how")
    table = [head, *(_cells(line, tasks, several) for line in told)] if told else []
    said = ["Nothing here compares."] if not told else []
    return Part(
        title,
        said,
        table,
        points=[*_measured_otherwise(told, tasks, several), *_not_compared(lines, tasks, several)],
    )


def _measured_otherwise(
    lines: Sequence[NumberLine], tasks: Sequence[str], several: Sequence[str]
) -> list[str]:
    """Return by what either model was measured, where the task has not the same for both."""
    found: dict[str, list[str]] = {}
    for line in lines:
        if line.how.endswith(OTHERWISE) and line.match.rows is not None:
            by = [row.sampler or "nothing" for row in line.match.rows]
            found.setdefault(f"A by {by[0]} and B by {by[1]}", []).append(_name(line, tasks, several))
    return [f"measured otherwise, {how}: {', '.join(names)}" for how, names in found.items()]


def _not_compared(lines: Sequence[NumberLine], tasks: Sequence[str], several: Sequence[str]) -> list[str]:
    """Return the reasons, each with the numbers that it is about."""
    found: dict[str, list[str]] = {}
    for line in lines:
        if line.difference is None:
            found.setdefault(line.how, []).append(_name(line, tasks, several))
    return [f"not compared, {why}: {', '.join(names)}" for why, names in found.items()]


def _cells(line: NumberLine, tasks: Sequence[str], several: Sequence[str]) -> tuple[str, ...]:
    gap = line.difference
    if gap is None or line.match.rows is None:
        raise ValueError(f"{line.metric} has no difference to show")
    values = [f"{row.value:.6g}" for row in line.match.rows]
    known = gap.low is not None and gap.high is not None and gap.low < gap.high
    interval = f"{_signed(gap.low)} .. {_signed(gap.high)}" if known else ""
    return (_name(line, tasks, several), *values, _signed(gap.value), interval, line.verdict, line.how)


def _signed(value: float | None) -> str:
    return "0" if not value else f"{value:+.3g}"


def _several(lines: Sequence[NumberLine]) -> list[str]:
    """Return what of data, extractor and reference one number has several of."""
    seen: dict[tuple[Any, ...], set[Any]] = {}
    for line in lines:
        number = [line.match[key] for key in ("task", "metric", "group", "sampler", "target")]
        for key in MEASURED_ON:
            seen.setdefault((key, *number), set()).add(line.match[key])
    return [key for key in MEASURED_ON if any(len(seen[of]) > 1 for of in seen if of[0] == key)]


def _name(line: NumberLine, tasks: Sequence[str], several: Sequence[str]) -> str:
    """Return the metric, and what tells it from others of its name."""
    match = line.match
    keys = ("sampler", "target") if match["group"] in ("curve", "reach") else ()
    more = [str(match[key]) for key in keys if match[key]]
    words = {"dataset": "data", "extractor": "extractor", "reference_sha256": "reference"}
    more += [f"{words[key]} {_shown(match[key])}" for key in several if match[key]]
    task = f"{match['task']} " if len(tasks) > 1 else ""
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


def _table(title: str, facts: Sequence[Fact]) -> list[tuple[str, str, str]]:
    if not facts:
        return []
    return [(title, "A", "B"), *((fact.name, _shown(fact.a), _shown(fact.b)) for fact in facts)]


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
    gap, match = line.difference, line.match
    named = ("task", "metric", "group", "target", "unit", "higher_is_better")
    return {
        "part": "numbers",
        "model_a": line.models[0],
        "model_b": line.models[1],
        **{key: match[key] for key in named},
        **{
            f"{key}_{end}": None if row is None else row[key]
            for end, row in (("a", match.a), ("b", match.b))
            for key in ROW
        },
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


def _dumped(row: dict[str, Any]) -> str:
    return json.dumps(_finite(row), allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    """Return JSON's values: a configuration may hold infinities, which JSON has no word for."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
