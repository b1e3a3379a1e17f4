"""From the command of a whole call to that of one of its numbers, as far as the commands allow it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from lsgm_reports.reproduce.command_line import CommandLine
from lsgm_reports.rows import Row

__all__ = ["ELSEWHERE", "method_of", "models_of", "narrowed", "pair_of", "parse_label", "with_models"]

FLOW = ("tol", "rtol", "atol", "solver", "steps", "probes", "divergence")
"""Options of `lsgm nll` that the score-matching bound refuses."""

MATCHING = ("times", "control-variate", "no-control-variate")
"""Options of `lsgm nll` that are of the score-matching bound alone."""

ELSEWHERE = ("json", "save", "export-reference", "time-budget")
"""Options that change no number, or stop before the one that is wanted."""

LABEL = re.compile(r"(?P<name>[^()]+)\((?P<settings>.*)\)")


def narrowed(line: CommandLine, row: Row, siblings: Sequence[Row]) -> CommandLine:
    """Return the command that measures a row and as little as possible beside it.

    ``siblings`` are the rows of the same file, which tell what one pass gave together. The models are left to
    `models_of`.
    """
    line = line.without(*ELSEWHERE)
    if line.command == "eval":
        return line.with_values("only", *_measurements(row, siblings))
    if line.command == "nll":
        method = method_of(row.metric)
        unused = FLOW if method == "nelbo" else MATCHING
        return line.without(*unused).with_values("method", method)
    return line if line.command == "fid" else _one_point(line, row)


def models_of(row: Row, names: Sequence[str]) -> list[str]:
    """Return which models of a call a row is about: one, both of a difference, or all of a sweep's ratios.

    A number whose protocol was changed by hand is measured beside all models of its call again, because a
    change that is one for any of them makes it another protocol for all.
    """
    if row.group == "reach" or row.task.endswith("-custom"):
        return list(names)
    if row.model in names:
        return [row.model]
    return pair_of(row.model, names, (" - ",)) or list(names)


def pair_of(model: str, names: Sequence[str], signs: Sequence[str]) -> list[str]:
    """Return the two of many names that a difference or a ratio is of, none where it is of no two."""
    place = {name: index for index, name in enumerate(names)}
    found = [
        (place[first], place[second])
        for sign in signs
        # Few lengths come into question, whatever a model calls itself.
        for at in {len(name) for name in names}
        if model.startswith(sign, at)
        and (first := model[:at]) in place
        and (second := model[at + len(sign) :]) in place
    ]
    return [names[index] for index in min(found)] if found else []


def method_of(metric: str) -> str:
    """Return the method of a bound or of one of its terms: nelbo, iw or ode."""
    name = metric.removeprefix("paired_")
    return "ode" if name.startswith("ode") else name.partition("_")[0]


def _measurements(row: Row, siblings: Sequence[Row]) -> list[str]:
    """Return what `lsgm eval --only` must be given."""
    if row.group in ("likelihood", "terms"):
        return [method_of(row.metric)]
    if row.group != "curve":
        return ["quality"]
    headline = {
        other.sampler
        for other in siblings
        if (other.group, other.task, other.model) == ("quality", row.task, row.model)
    }
    # The headline's first images are a point of the curve too, which is measured with the headline.
    return ["quality", "curve"] if row.sampler in headline or not headline else ["curve"]


def _one_point(line: CommandLine, row: Row) -> CommandLine:
    """Return a sweep of the one sampler and budget of a row; what is derived from curves needs them whole."""
    if row.group != "curve" or row.sampler is None:
        return line
    found = parse_label(row.sampler)
    if found is None:
        return line
    name, settings = found
    words = [word for text in line.values("samplers") for word in text.split(",")]
    fitting = [word for word in words if _fits(word, name, settings)]
    line = line.with_values("samplers", ",".join(fitting) or _word(name, settings))
    if "rtol" in settings:
        return line.without("nfe").with_values("tol", settings["rtol"])
    if row.nfe_mean is None or not math.isfinite(row.nfe_mean):
        return line
    return line.with_values("nfe", str(round(row.nfe_mean))).with_values("tol", "none")


def parse_label(label: str) -> tuple[str, dict[str, str]] | None:
    """Return name and settings of ``heun(steps=20, grid=edm)``, None for another form."""
    found = LABEL.fullmatch(label)
    if found is None:
        return None
    pairs = [part.partition("=") for part in found["settings"].split(", ") if part]
    return found["name"], {key: value for key, _, value in pairs}


def _beyond_budget(settings: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in settings.items() if key not in ("steps", "rtol", "atol", "grid")}


def _fits(word: str, name: str, settings: dict[str, str]) -> bool:
    """Say whether a word of --samplers is the sampler of a label, by name, grid and what options it sets."""
    head, *options = word.strip().split(":")
    sampler, _, grid = head.partition("@")
    given = {option.partition("=")[0].replace("-", "_") for option in options}
    return (sampler, grid, given) == (name, settings.get("grid", ""), set(_beyond_budget(settings)))


def _word(name: str, settings: dict[str, str]) -> str:
    """Return the word of --samplers that a label was made from: ``edm-heun@edm:churn=10``."""
    grid = f"@{settings['grid']}" if "grid" in settings else ""
    return name + grid + "".join(f":{key}={value}" for key, value in _beyond_budget(settings).items())


def with_models(line: CommandLine, words: Sequence[str]) -> CommandLine:
    """Return the line with these words for its models, where its command takes them."""
    if line.command == "nll":
        return replace(line, words=tuple(words))
    if line.command == "fid":
        return line  # its words are a reference and samples, of whatever kind
    return line.with_values("model", *words)
