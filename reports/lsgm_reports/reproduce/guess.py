"""The command of a row that no manifest explains, as far as the row's own keys tell it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lsgm.errors import DataError
from lsgm_reports.provenance import MeasuredModel
from lsgm_reports.reproduce.command_line import CommandLine
from lsgm_reports.reproduce.narrow import method_of, narrowed, pair_of, parse_label
from lsgm_reports.rows import Row

__all__ = ["guessed_command", "guessed_models"]

TASK = re.compile(
    r"(?P<task>[^/]+)/(?P<tier>[^/]+?)(-limit-(?P<limit>\d+))?(-images-(?P<images>\d+|all))?(?P<custom>-custom)?"
)

ESTIMATOR = (
    *("samples", "times", "rtol", "atol", "step_control", "solver", "steps", "probes", "divergence"),
    "dequantise",
)
"""Settings that the label of a bound has in common with the options of `lsgm nll`, besides its one flag."""


def guessed_command(row: Row, siblings: Sequence[Row]) -> CommandLine:
    """Return a command, without its models, that measures what a row says it is.

    The task names its protocol, the label of the sampler or estimator the rest. What a row does not hold is
    as the task has it: its feature spaces, and its images where they are a folder. Raises DataError for a
    task column that is none of ours.
    """
    found = TASK.fullmatch(row.task)
    if found is None:
        raise DataError(f"the row's task is '{row.task}', not NAME@VERSION/TIER; its command cannot be told")
    name, tier, limit = found["task"], found["tier"], found["limit"]
    if row.group == "reach" or (row.group == "curve" and limit):
        options = [("task", name), ("tier", tier), ("metric", _metric(row))]
        options += [("images", limit)] if limit else []
        if row.target:
            options.append(("reach", row.target.partition("=")[2]))
        return narrowed(CommandLine("nfe", (), tuple(options)), row, siblings)
    if row.group in ("likelihood", "terms") and (limit or found["custom"]):
        options = [("task", name), ("tier", tier), ("method", method_of(row.metric))]
        options += [("limit", limit)] if limit else []
        label = parse_label(row.sampler or "") if found["custom"] else None
        settings = label[1] if label else {}
        flags = [("no-control-variate", None)] if settings.get("control_variate") == "off" else []
        options += [(key.replace("_", "-"), value) for key, value in settings.items() if key in ESTIMATOR]
        return CommandLine("nll", (), (*options, *flags))
    drawn = [("images", found["images"])] if found["images"] else []
    return narrowed(CommandLine("eval", (name,), (("tier", tier), *drawn)), row, siblings)


def guessed_models(row: Row, siblings: Sequence[Row]) -> list[MeasuredModel]:
    """Return the models of a row by names and checksums: its own, or both that it compares."""
    known = {
        other.model: other.checkpoint_sha256 for other in siblings if other.checkpoint_sha256 is not None
    }
    if row.checkpoint_sha256 is not None:
        return [MeasuredModel(row.model, "", sha256=row.checkpoint_sha256)]
    names = pair_of(row.model, list(known), (" - ", " / ")) or [row.model]
    return [MeasuredModel(name, "", sha256=known.get(name)) for name in names]


def _metric(row: Row) -> str:
    """Return the metric that a sweep was of; what it costs to reach a quality names that in its target."""
    if row.group != "reach" or row.target is None:
        return row.metric
    return re.split(r"[<>]=?", row.target)[0]
