"""Where every number comes from: a record per row, which a page opens where the number stands."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lsgm.errors import DataError
from lsgm.results.labels import sampler_label
from lsgm.results.manifest import Manifest, manifest_of
from lsgm.results.metrics import metric_of
from lsgm.results.row import Row, row_id
from lsgm_reports.digits import error_bar
from lsgm_reports.read import Placed, Reading
from lsgm_reports.render.html_tables import exact, tag, words
from lsgm_reports.render.text import relative
from lsgm_reports.reproduce.apart import copied, place_word

Facts = list[tuple[str, str | None, bool]]
"""(name, value, whether the value is code: a checksum, a command); what has no value is not shown."""


def _label(row: Row) -> str:
    """Return what a row is called: model, metric, sampler."""
    metric = metric_of(row)
    head = f"{metric.label} ({metric.unit})" if metric.unit else metric.label
    parts = [row.model, head, sampler_label(row.sampler) if row.sampler else "", row.target or ""]
    return " · ".join(part for part in parts if part)


def _value(row: Row) -> str:
    return "not measured" if row.value is None else error_bar(row.value, row.ci_low, row.ci_high)


def _row_facts(row: Row) -> Facts:
    """Return what is the row's own: the number unrounded, the images, how they were drawn, the cost."""
    better = {True: "higher", False: "lower", None: None}[row.higher_is_better]
    interval = None if row.interval is None else f"{row.interval[0]!r} to {row.interval[1]!r}"
    spent = None if row.nfe_mean is None else f"{row.nfe_mean!r} per image"
    if spent and row.nfe_max is not None:
        spent += f", at most {row.nfe_max!r}"
    solved = None if row.solver_error is None else repr(row.solver_error)
    if solved and row.solver_error_margin:
        solved += f" ± {row.solver_error_margin!r}"
    memory = None if row.peak_bytes is None else f"{row.peak_bytes / 2**20:,.0f} MiB"
    return [
        ("Value, unrounded", None if row.value is None else repr(row.value), True),
        ("95 % interval", interval, True),
        ("Why there is none" if row.value is None else "Remark", row.note, False),
        ("Solver error", solved, True),
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
    ]


def _of(whole: float | None, decoder: float | None) -> str | None:
    if whole is None:
        return None
    return f"{whole:.4g}" + ("" if decoder is None else f", the decoder's {decoder:.4g}")


def _measured_facts(row: Row) -> Facts:
    return [
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
    ]


def _call_facts(manifest: Manifest) -> Facts:
    task = manifest.task
    typed = copied(manifest.command, manifest.directory, manifest.processes)
    facts: Facts = [
        ("Command", typed.line, True),
        ("Why no command is shown", typed.why, False),
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
    ]
    for model in manifest.models:
        parameters = ", ".join(f"{name} {count:,}" for name, count in model.parameters.items())
        parts = [model.path or model.spec, f"sha256 {model.sha256}" if model.sha256 else "", parameters]
        facts.append((f"Model {model.name}", "; ".join(part for part in parts if part), True))
    return facts


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value not in (None, "", {}))


# The provenance of every number: a record per row, which a page opens where the number stands


class Records:
    """The records of the rows that were read, for a page in the folder ``out``."""

    def __init__(self, reading: Reading, out: Path) -> None:
        self._placed = {row_id(each.row): each for each in reading.placed}
        self._names = {file: relative(file, out) for file in {each.file for each in reading.placed}}
        self._shared: dict[tuple[tuple[str, str | None, bool], ...], str] = {}
        self._calls: dict[tuple[Path, str], tuple[str, Row]] = {}

    @property
    def labels(self) -> dict[str, str]:
        """Id of every row -> what it says, on one line."""
        return {name: f"{_label(each.row)}: {_value(each.row)}" for name, each in self._placed.items()}

    def html(self, heading: str) -> str:
        """Return the records, then what several share: data, checkpoints and code, and the measuring calls.

        ``heading`` is the element of the headings within, ``h4``.
        """
        introduction = (
            "Each number of this report, unrounded, with what it was measured on. The command, typed in the "
            "folder of this report, says what must hold to measure it again and what to type, and does it "
            f"with {tag('code', '--run')}."
        )
        records = "".join(self._record(name, each) for name, each in self._placed.items())
        found = [
            (f"Model, data and code ({number})", _list(facts), anchor)
            for number, (facts, anchor) in enumerate(self._shared.items(), start=1)
        ]
        found += [
            (f"Call {name}", _call(folder, row), anchor)
            for (folder, name), (anchor, row) in self._calls.items()
        ]
        shared = "".join(
            tag("div", tag(heading, words(head)) + inner, cls="facts", id=anchor)
            for head, inner, anchor in found
        )
        return tag("p", introduction) + tag("div", records, cls="records") + shared

    def _record(self, name: str, placed: Placed) -> str:
        row, place = placed.row, placed.file
        shared = tuple(_measured_facts(row))
        anchors = [self._shared.setdefault(shared, f"measured-{len(self._shared) + 1}")]
        links = [tag("a", "model, data and code", href=f"#{anchors[0]}")]
        if row.manifest:
            anchor = f"call-{len(self._calls) + 1}"
            anchors.append(self._calls.setdefault((place.parent, row.manifest), (anchor, row))[0])
            links.append(tag("a", f"call {words(row.manifest)}", href=f"#{anchors[1]}"))
        head = tag("span", words(_label(row)), cls="name") + tag("span", words(_value(row)), cls="value")
        inner = _list([*_row_facts(row), ("Row", name, True)])
        inner += tag("p", f"Measured with {' by '.join(links)}.", cls="links")
        word = f"{place_word(self._names[place])}#{name}"
        inner += tag("div", tag("code", exact(f"lsgm reproduce {shlex.quote(word)}")), cls="command")
        return tag(
            "details",
            tag("summary", head) + tag("div", inner),
            cls="record",
            id=f"row-{name}",
            data_with=" ".join(anchors),
        )


def _call(folder: Path, row: Row) -> str:
    """Return what is known of the call that measured a row; a damaged manifest takes no number away."""
    try:
        manifest = manifest_of(row, folder)
    except DataError as error:
        return tag("p", words(str(error)))
    if manifest is None:
        return tag("p", f"Its file {tag('code', words(f'manifests/{row.manifest}.json'))} is gone.")
    return _list(_call_facts(manifest))


def _list(facts: Iterable[tuple[str, str | None, bool]]) -> str:
    pairs = (
        tag("div", tag("dt", words(name)) + tag("dd", tag("code", exact(value)) if code else words(value)))
        for name, value, code in facts
        if value
    )
    return tag("dl", "".join(pairs))
