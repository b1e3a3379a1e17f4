"""What is known of a row and of the call that measured it, as names with values."""

from __future__ import annotations

from typing import Any

from lsgm_reports.digits import error_bar
from lsgm_reports.metrics import metric_of
from lsgm_reports.provenance import Manifest
from lsgm_reports.rows import Row
from lsgm_reports.samplers import sampler_label

__all__ = ["Facts", "call_facts", "label_of", "measured_facts", "row_facts", "said_of", "value_of"]

Facts = list[tuple[str, str, bool]]
"""(name, value, whether the value is code: a checksum, a command)."""


def label_of(row: Row) -> str:
    """Return what a row is called: model, metric, sampler."""
    metric = metric_of(row)
    head = f"{metric.label} ({metric.unit})" if metric.unit else metric.label
    parts = [row.model, head, sampler_label(row.sampler) if row.sampler else "", row.target or ""]
    return " · ".join(part for part in parts if part)


def value_of(row: Row) -> str:
    """Return the number of a row with its error, or that there is none."""
    return "not measured" if row.value is None else error_bar(row.value, row.ci_low, row.ci_high)


def said_of(row: Row) -> str:
    """Return a row on one line, as a point of a figure says it."""
    return f"{label_of(row)}: {value_of(row)}"


def row_facts(row: Row) -> Facts:
    """Return what is the row's own: the number unrounded, the images, how they were drawn, the cost."""
    better = {True: "higher", False: "lower", None: None}[row.higher_is_better]
    interval = None if row.interval is None else f"{row.interval[0]!r} to {row.interval[1]!r}"
    spent = None if row.nfe_mean is None else f"{row.nfe_mean!r} per image"
    if spent and row.nfe_max is not None:
        spent += f", at most {row.nfe_max!r}"
    memory = None if row.peak_bytes is None else f"{row.peak_bytes / 2**20:,.0f} MiB"
    return _known(
        ("Value, unrounded", None if row.value is None else repr(row.value), True),
        ("95 % interval", interval, True),
        ("Why there is none" if row.value is None else "Remark", row.note, False),
        ("Solver error", _solver_error(row), True),
        ("Metric", row.metric, True),
        ("Unit", row.unit, False),
        ("Better", better, False),
        ("Images", row.counted, False),
        ("Split", row.split, False),
        ("Sampler", row.sampler, True),
        ("Reaches", row.target, True),
        ("Seeds", row.seeds, False),
        ("Network evaluations", spent, False),
        ("Operations per image", _of(row.flops_per_image, row.decoder_flops_per_image), False),
        ("Seconds", _of(row.seconds, row.decoder_seconds), False),
        ("Peak memory", memory, False),
    )


def _solver_error(row: Row) -> str | None:
    if row.solver_error is None:
        return None
    return repr(row.solver_error) + (f" ± {row.solver_error_margin!r}" if row.solver_error_margin else "")


def _of(whole: float | None, decoder: float | None) -> str | None:
    if whole is None:
        return None
    return f"{whole:.4g}" + ("" if decoder is None else f", the decoder's {decoder:.4g}")


def measured_facts(row: Row) -> Facts:
    """Return what a row shares with others: model, data, features, code."""
    return _known(
        ("Task", row.task, True),
        ("Model", row.model, False),
        ("Checkpoint sha256", row.checkpoint_sha256, True),
        ("Data set", row.dataset, True),
        ("Reference sha256", row.reference_sha256, True),
        ("Extractor", row.extractor, True),
        ("Bits scored sha256", row.levels_sha256, True),
        ("Git revision", row.git_revision, True),
        ("Run", row.run_id, True),
        ("Versions", row.versions, False),
    )


def call_facts(manifest: Manifest) -> Facts:
    """Return what a measuring call was given and what it ran on."""
    task = manifest.task
    facts = _known(
        ("Command", manifest.typed.line, True),
        ("Why no command is shown", manifest.typed.why, False),
        ("Typed in", manifest.directory, True),
        ("Environment", _listed(manifest.environment), True),
        ("Started", manifest.started, False),
        ("Git revision", manifest.git_revision, True),
        ("Code version", manifest.code_version, True),
        ("Versions", _listed(manifest.versions), False),
        ("Hardware", _listed(manifest.hardware), False),
        ("Device", manifest.device, False),
        ("Task", f"{task.identity}, sha256 {task.sha256}", True),
        ("Data", f"{task.data}: {task.dataset}", True),
        ("Extractors", ", ".join(task.extractors), True),
    )
    for model in manifest.models:
        parameters = ", ".join(f"{name} {count:,}" for name, count in model.parameters.items())
        parts = [model.path or model.spec, f"sha256 {model.sha256}" if model.sha256 else "", parameters]
        facts.append((f"Model {model.name}", "; ".join(part for part in parts if part), True))
    return facts


def _listed(values: dict[str, Any]) -> str:
    """Return names with what is known of them, one after the other."""
    return ", ".join(f"{name} {value}" for name, value in values.items() if value not in (None, "", {}))


def _known(*facts: tuple[str, str | None, bool]) -> Facts:
    return [(name, value, code) for name, value, code in facts if value]
