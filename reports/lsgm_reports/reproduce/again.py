"""All that it takes to measure a row again: the command, where to run it, and what must hold."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lsgm.results.labels import settings_of
from lsgm.results.manifest import Manifest
from lsgm.results.row import Row
from lsgm.runs.provenance import git_revision
from lsgm_reports.reproduce.allowed import CommandLine
from lsgm_reports.reproduce.apart import foreign_code
from lsgm_reports.reproduce.checks import (
    Again,
    Check,
    check_code,
    check_data,
    check_hardware,
    check_versions,
    thread_setting,
)
from lsgm_reports.reproduce.trained import locate

__all__ = [
    "ELSEWHERE",
    "method_of",
    "models_of",
    "narrowed",
    "pair_of",
    "plan_again",
    "with_models",
]


def plan_again(
    row: Row, manifest: Manifest, folder: Path, siblings: Sequence[Row], out: Path, device: str = ""
) -> Again:
    """Return how to measure a row of ``folder`` again, into ``out``, and what is known to stand in the way.

    The command is the one that the manifest has for its rows; one of an earlier version has that of the whole
    call, which is `narrowed` with the help of ``siblings``, all rows of the file. Raises DataError for a
    command that is none that measures or says more than data (`allowed`).
    """
    places = [folder, folder.parent, Path.cwd() / "checkpoints", Path.cwd() / "runs"]
    exact = manifest.again
    recorded = CommandLine.parse(exact or manifest.command)
    recorded.without(*ELSEWHERE).checked()
    directory, remarks = Path(manifest.directory), []
    if not _is_place(manifest.directory):
        remarks.append(f"{directory} is not here: relative paths are taken from the current directory")
        directory = Path.cwd()
    # The command, its models where they lie now, on the device that was chosen then.
    line = recorded.without(*ELSEWHERE) if exact else narrowed(recorded, row, siblings)
    names = [model.name for model in manifest.models]
    wanted = names if exact else models_of(row, names)
    models = [model for model in manifest.models if model.name in wanted]
    located = [locate(model, directory, places) for model in models]
    words = [where.word or f"{model.name}=CHECKPOINT" for model, where in zip(models, located, strict=True)]
    line = with_models(line, words)
    if device or manifest.processes == 1:
        line = line.with_values("device", device or manifest.device)
    checks = [
        check_code(manifest.git_revision or row.git_revision, git_revision()),
        check_versions(manifest.versions),
        *(Check("weights", where.state, where.text) for where in located),
        check_data(manifest.task.data, manifest.task.dataset, _roots(manifest), directory),
        check_hardware(manifest),
    ]
    if recorded.values("time-budget"):
        remarks.append("the call had a time budget, which is left out: it may have ended before some points")
    folder_word = str(out if directory == Path.cwd() else out.absolute())
    line = line.without("out").checked().with_values("out", folder_word)
    foreign = foreign_code(line, directory, Path.cwd())
    return Again(line.argv, directory, _environment(manifest), manifest.processes, checks, remarks, foreign)


def _is_place(directory: str) -> bool:
    """Say whether a recorded directory is here, and of a name that a terminal prints as it is."""
    return os.path.isabs(directory) and directory.isprintable() and os.path.isdir(directory)


def _environment(manifest: Manifest) -> dict[str, str]:
    """Return what must be set: the threads, by which sums are divided, and the data's place if unset here."""
    found: dict[str, str] = {}
    if manifest.threads is not None:
        found |= thread_setting(manifest.threads)
    data = _data(manifest)
    if data and "LSGM_DATA" not in os.environ:
        found["LSGM_DATA"] = data
    return found


def _data(manifest: Manifest) -> str:
    """Return the folders of data that were looked in, whole paths between colons; nothing of odd ones."""
    recorded = manifest.environment.get("LSGM_DATA", "")
    if not recorded.isprintable():
        return ""
    parts = [os.path.expanduser(part) for part in recorded.split(os.pathsep) if part]
    return os.pathsep.join(os.path.join(manifest.directory, part) for part in parts)


def _roots(manifest: Manifest) -> list[Path]:
    """Return the folders in which data are looked for, as `lsgm.data` does."""
    named = os.environ.get("LSGM_DATA", _data(manifest))
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lsgm"
    cache = Path(os.environ.get("LSGM_CACHE") or base)
    return [Path(os.path.expanduser(part)) for part in named.split(os.pathsep) if part] + [cache / "data"]


# From the command of a whole call, which earlier versions recorded, to that of one of its numbers

FLOW = ("tol", "rtol", "atol", "solver", "steps", "probes", "divergence")
"""Options of `lsgm nll` that the score-matching bound refuses."""

MATCHING = ("times", "control-variate", "no-control-variate")
"""Options of `lsgm nll` that are of the score-matching bound alone."""

ELSEWHERE = ("json", "save", "export-reference", "time-budget")
"""Options that change no number, or stop before the one that is wanted."""


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
    name, settings = row.sampler.partition("(")[0], settings_of(row.sampler)
    if not name or not settings:
        return line
    words = [word for text in line.values("samplers") for word in text.split(",")]
    fitting = [word for word in words if _fits(word, name, settings)]
    line = line.with_values("samplers", ",".join(fitting) or _word(name, settings))
    if "rtol" in settings:
        return line.without("nfe").with_values("tol", settings["rtol"])
    if row.nfe_mean is None or not math.isfinite(row.nfe_mean):
        return line
    return line.with_values("nfe", str(round(row.nfe_mean))).with_values("tol", "none")


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
