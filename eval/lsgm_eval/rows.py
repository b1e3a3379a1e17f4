"""What the keys of a result row may hold: texts, counts, real numbers, truth values, or nothing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsgm.errors import DataError, UserError
from lsgm.files.limits import RESULTS, ROWS
from lsgm.files.names import shown, spelt
from lsgm.files.text import TextLine, json_lines, parse_json
from lsgm.files.write import atomic_path
from lsgm.results.metrics import entry_of
from lsgm.runs.provenance import git_revision

__all__ = [
    "KEYS",
    "METRICS",
    "Context",
    "Metric",
    "keep_rows",
    "merge_rows",
    "read_rows",
    "row_problem",
    "write_rows",
]

NAMES = ("task", "model", "metric")
"""Texts that every row has."""
TEXTS = (
    *("checkpoint_sha256", "split", "sampler", "extractor", "reference_sha256", "dataset", "seeds"),
    *("git_revision", "run_id", "unit", "group", "note", "levels_sha256", "target", "manifest"),
)
COUNTS = ("n", "n_of", "peak_bytes")
NUMBERS = ("value", "ci_low", "ci_high", "solver_error", "bias")
COSTS = (
    *("nfe_mean", "nfe_max", "seconds", "decoder_seconds", "flops_per_image", "decoder_flops_per_image"),
    "solver_error_margin",
)
TRUTHS = ("higher_is_better",)
LARGEST = 1e300
"""Of a number: sums and differences of some of them are numbers still."""


def row_problem(row: Mapping[str, Any]) -> str:
    """Return what is wrong with the values of a row, in words; nothing where they may stand.

    Keys that are absent are no fault, and of those that are not known only that they can be written again.
    """
    for key, value in row.items():
        if problem := _problem(key, value):
            return f"'{shown(key)[:60]}' is {_brief(value)}, {problem}"
    low, high = row.get("ci_low"), row.get("ci_high")
    if low is not None and high is not None and low > high:
        return f"its interval goes from {low!r} down to {high!r}"
    return ""


def _problem(key: str, value: Any) -> str:
    if key in NAMES:
        return "" if isinstance(value, str) and value.strip() else "and a text belongs there"
    if value is None:
        return ""
    if key in TEXTS:
        return "" if isinstance(value, str) else "and a text belongs there"
    if key in TRUTHS:
        return "" if isinstance(value, bool) else "and true, false or null belongs there"
    if key in (*COUNTS, *NUMBERS, *COSTS):
        return _number_problem(key, value)
    return "" if _writable(value) else "which is not finite"


def _number_problem(key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "and a number belongs there"
    if not abs(value) <= LARGEST:
        return "and a finite number belongs there"
    if key not in NUMBERS and value < 0:
        return "which cannot be negative"
    if key in COUNTS and not float(value).is_integer():
        return "and a whole number belongs there"
    return ""


def _writable(value: Any) -> bool:
    """Return whether JSON has words for a value; a reader lets infinities pass."""
    if isinstance(value, Mapping):
        return all(map(_writable, value.values()))
    if isinstance(value, list):
        return all(map(_writable, value))
    return not isinstance(value, float) or math.isfinite(value)


def _brief(value: Any) -> str:
    text = shown(repr(value)) if not isinstance(value, dict | list) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:60]}..."


# Result rows: one measured number with everything that is needed to know what it is, as JSON lines

Row = dict[str, Any]

KEYS = (
    "task",
    "model",
    "checkpoint_sha256",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "n",
    "split",
    "sampler",
    "nfe_mean",
    "nfe_max",
    "seconds",
    "peak_bytes",
    "extractor",
    "reference_sha256",
    "dataset",
    "seeds",
    "git_revision",
    "run_id",
    "unit",
    "higher_is_better",
    "group",
    "note",
    "levels_sha256",
    "decoder_seconds",
    "flops_per_image",
    "decoder_flops_per_image",
    "target",
    "manifest",
    "n_of",
    "solver_error",
    "solver_error_margin",
    "bias",
)
"""Every row has every key, in this order; what does not apply is null. ``n_of`` is how many images the ``n``
measured ones were drawn from, null where these are all there are."""

IDENTITY = ("task", "model", "metric", "group", "sampler", "split", "target", "dataset")
"""Rows that agree in these, and in `SPACE`, measure the same thing: the newer one stands."""

SPACE = ("extractor", "reference_sha256")
"""In what a distance is measured and to what. A row without a value need not know either."""


@dataclass(frozen=True)
class Metric:
    """What a metric is measured in, which way is better (None: neither), and under which heading it goes."""

    unit: str
    higher_is_better: bool | None
    group: str


METRICS = {
    "frechet": Metric("distance", False, "quality"),
    "kernel": Metric("distance", False, "quality"),
    "frechet_infinity": Metric("distance", False, "quality"),
    "spatial_frechet": Metric("distance", False, "quality"),
    "inception_score": Metric("score", True, "quality"),
    "precision": Metric("share", True, "quality"),
    "recall": Metric("share", True, "quality"),
    "density": Metric("ratio", True, "quality"),
    "coverage": Metric("share", True, "quality"),
    "memorised": Metric("share", None, "quality"),
    "nelbo_nats": Metric("nats/image", False, "likelihood"),
    "nelbo_bpd": Metric("bits/dim", False, "likelihood"),
    "iw_nats": Metric("nats/image", False, "likelihood"),
    "iw_bpd": Metric("bits/dim", False, "likelihood"),
    "ode_nll_nats": Metric("nats/image", False, "likelihood"),
    "ode_nll_bpd": Metric("bits/dim", False, "likelihood"),
    "paired_nelbo_nats": Metric("nats/image", False, "likelihood"),
    "paired_iw_nats": Metric("nats/image", False, "likelihood"),
    "paired_ode_nll_nats": Metric("nats/image", False, "likelihood"),
    "nfe": Metric("evaluations", False, "cost"),
    "seconds_per_1000": Metric("s", False, "cost"),
    "parameters": Metric("parameters", False, "cost"),
    "nfe_to_reach": Metric("evaluations/image", False, "reach"),
    "seconds_to_reach": Metric("s/image", False, "reach"),
    "flops_to_reach": Metric("FLOP/image", False, "reach"),
    **{
        f"{speedup}_{cost}": Metric("ratio", True, "reach")
        for speedup in ("speedup", "speedup_vs_reference")
        for cost in ("nfe", "seconds", "flops")
    },
}

TERM = re.compile(r"(nelbo|iw|ode_nll)_term_[a-z_]+(/\w+)?_nats")
"""A part of a bound, of all latent groups or of one: ``nelbo_term_negative_entropy/0_nats``."""


@dataclass(frozen=True)
class Context:
    """What all rows of one model in one evaluation share."""

    task: str
    model: str
    checkpoint_sha256: str | None
    dataset: str
    run_id: str
    manifest: str | None = None
    """Of the call that measures: the file ``manifests/<manifest>.json`` beside the rows."""

    def row(self, metric: str, value: float | None, **fields: Any) -> Row:
        """Return a complete row. Raises UserError for a value that is not finite, ValueError for odd keys.

        ``metric`` may carry its feature space, ``frechet_glyphs``, or name a term of a bound;
        ``value`` None means not measurable.
        """
        unknown = set(fields) - set(KEYS)
        if unknown:
            raise ValueError(f"no such keys in a result row: {sorted(unknown)}")
        if value is not None and not math.isfinite(value):
            raise UserError(
                f"{metric} of {self.model} is {value}: look at its samples and its training metrics"
            )
        about = entry_of(metric)
        shared = {
            "task": self.task,
            "model": self.model,
            "checkpoint_sha256": self.checkpoint_sha256,
            "dataset": self.dataset,
            "run_id": self.run_id,
            "manifest": self.manifest,
            "git_revision": git_revision(),
            "unit": about.unit,
            "higher_is_better": about.higher_is_better,
            "group": about.group,
        }
        row = dict.fromkeys(KEYS) | shared | {"metric": metric, "value": value} | fields
        # A model or a folder may be named by bytes that are no text.
        return {key: spelt(said) if isinstance(said, str) else said for key, said in row.items()}


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a JSON lines file, whose values are what `row_problem` asks for.

    Rows of earlier and later versions have other keys, which stay as they are. Raises DataError naming the
    line that cannot be read; a last one without a line feed that cannot be read is called half-written.
    """
    rows: list[Row] = []
    for line in json_lines(path, RESULTS):
        rows.append(_row(path, line))
        ROWS.hold(shown(str(path)), len(rows))
    return rows


def _row(path: Path, line: TextLine) -> Row:
    where = f"{shown(str(path))} line {line.number}"
    try:
        row = parse_json(line.text, where)
    except DataError as error:
        said = str(error).removeprefix(where).strip().partition("; ")[0]
        what = "half-written: the file ends within it" if line.torn else f"not a result row: it {said}"
        raise DataError(f"{where} is {what}; remove the line or the file") from error
    if not isinstance(row, dict):
        raise DataError(f"{where} is not a result row, but {type(row).__name__}; remove the line or the file")
    if problem := row_problem(row):
        raise DataError(f"{where} is not a result row: {problem}; remove the line or the file")
    return row


def merge_rows(old: Iterable[Row], new: Sequence[Row]) -> list[Row]:
    """Return ``old`` without what ``new`` measures again, then ``new``.

    Numbers of other data, of another extractor or of another reference stay. A row that says only why there
    is no number gives way to whatever is measured in its place, and takes the place of numbers of another
    checkpoint alone: those of its own hold, whatever was missing at the later call.
    """

    def identity(row: Row) -> tuple[Any, ...]:
        return tuple(row.get(key) for key in IDENTITY)

    def space(row: Row) -> tuple[Any, ...]:
        return tuple(row.get(key) for key in SPACE)

    measured: dict[tuple[Any, ...], list[Row]] = {}
    for row in new:
        measured.setdefault(identity(row), []).append(row)

    def stands(row: Row) -> bool:
        again = measured.get(identity(row), [])
        if row.get("value") is None:
            return not again
        return not any(
            space(other) == space(row)
            or (other.get("value") is None and other.get("checkpoint_sha256") != row.get("checkpoint_sha256"))
            for other in again
        )

    kept = [row for row in old if stands(row)]
    numbers = {identity(row) for row in kept}
    return kept + [row for row in new if row.get("value") is not None or identity(row) not in numbers]


def keep_rows(path: Path, measured: list[Row]) -> list[Row]:
    """Write rows to a file of results, in the place of those they measure again, and return them."""
    write_rows(path, merge_rows(read_rows(path) if path.exists() else [], measured))
    return measured


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON lines, atomically: a reader sees the old file or the new one, never a half."""
    text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
