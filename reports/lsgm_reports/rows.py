"""Result rows: one measured number each, with its interval and where it comes from, read from JSON lines."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from lsgm.errors import DataError, did_you_mean
from lsgm.files import text
from lsgm.files.limits import RESULTS, ROWS
from lsgm.files.names import brief, shown
from lsgm.files.regular import refuse_special
from lsgm_reports.places import below, present

__all__ = [
    "WHOLE",
    "Parsed",
    "Row",
    "find_results",
    "grouped",
    "is_bare_run",
    "number_keys",
    "parse_lines",
    "ranks",
    "read_rows",
    "read_text",
    "row_from",
]


@dataclass(frozen=True)
class Row:
    """One number, or the reason why there is none (``value`` None, ``note`` says why).

    Texts can be encoded, hold no zero byte and are no longer than a name or a remark may be, and of task,
    model and metric none is blank; numbers are finite, counts and costs not negative, and an interval's lower
    end is not above its upper one. The value may lie outside: that of a biased estimate does. `row_from`
    sees to all of this.
    """

    task: str
    """Name, version and tier: ``glyphs@2/quick``."""
    model: str
    metric: str
    value: float | None
    ci_low: float | None = None
    """Lower end of the 95 % interval."""
    ci_high: float | None = None
    """Upper end of the 95 % interval."""
    n: int | None = None
    """Images measured."""
    split: str | None = None
    sampler: str | None = None
    """How images were drawn, ``heun(steps=20)``; of a bound how it was estimated, ``iw(samples=1000)``."""
    nfe_mean: float | None = None
    nfe_max: float | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    checkpoint_sha256: str | None = None
    extractor: str | None = None
    reference_sha256: str | None = None
    dataset: str | None = None
    """name@version@sha256 of the pixels."""
    seeds: str | None = None
    git_revision: str | None = None
    run_id: str | None = None
    unit: str | None = None
    higher_is_better: bool | None = None
    """None where neither is (network evaluations of two adaptive solvers)."""
    group: Literal["quality", "likelihood", "terms", "cost", "curve", "reach"] | None = None
    note: str | None = None
    levels_sha256: str | None = None
    """Hash of the bits that were scored: two bounds are of the same images where it agrees."""
    versions: str | None = None
    decoder_seconds: float | None = None
    """The decoder's part of ``seconds``; None where it is not known."""
    flops_per_image: float | None = None
    """Floating-point operations to draw an image, the decoder's among them, mean over images."""
    decoder_flops_per_image: float | None = None
    target: str | None = None
    """Of a cost: the quality that it buys, ``frechet_glyphs<=12.3``."""
    manifest: str | None = None
    """The file ``manifests/<manifest>.json`` beside the rows says how they were measured."""
    n_of: int | None = None
    """Images that the ``n`` measured ones were drawn from; None where these are all."""
    solver_error: float | None = None
    """Of a bound by a flow: how far it lies above that of a finer solve, in its own unit, on average."""
    solver_error_margin: float | None = None
    """Half of its 95 % interval."""
    bias: float | None = None
    """Estimated upward bias of the value at n; of a difference, the first model's less the second's."""

    @property
    def counted(self) -> str | None:
        """How many images were measured, ``1,000 of 50,000`` where these are not all; None if unknown."""
        if self.n is None:
            return None
        return f"{self.n:,}" if self.n_of is None else f"{self.n:,} of {self.n_of:,}"

    @property
    def upward_bias(self) -> float:
        """The estimated bias, which older rows have in their note alone; 0 where none is known."""
        if self.bias is not None:
            return self.bias
        found = _BIAS.search(self.note or "")
        number = float(found[1]) if found else 0.0
        return number if math.isfinite(number) else 0.0

    @property
    def dataset_name(self) -> str:
        """Name of the data set without version and checksum; the task's where the row names none."""
        return (self.dataset or self.task).partition("@")[0]

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends of the interval, or None where there is none."""
        return None if self.ci_low is None or self.ci_high is None else (self.ci_low, self.ci_high)

    @property
    def half_width(self) -> float | None:
        """Half the interval, which is a number even where the whole of it is none."""
        return None if self.interval is None else self.interval[1] / 2 - self.interval[0] / 2

    @property
    def solved_finely(self) -> bool:
        """Whether the solver's error, as far as it is known, is below half the interval of the number."""
        if self.solver_error is None or self.half_width is None:
            return True
        return abs(self.solver_error) + (self.solver_error_margin or 0.0) <= self.half_width


Key = TypeVar("Key", bound=Hashable)


def grouped(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    """Return the rows by a key, keys and rows in the order in which they come."""
    found: dict[Key, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def ranks(words: Iterable[Key]) -> dict[Key, int]:
    """Return the place of each word among those that differ, in the order in which they come."""
    return {word: place for place, word in enumerate(dict.fromkeys(words))}


_TEXT = ("task", "model", "metric")
_BIAS = re.compile(r"upward bias at this n about (-?[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?)")
_SIGNED = ("value", "ci_low", "ci_high", "solver_error", "bias")
_COSTS = (
    *("nfe_mean", "nfe_max", "seconds", "decoder_seconds", "flops_per_image"),
    "decoder_flops_per_image",
    "solver_error_margin",
)
WHOLE = ("n", "peak_bytes", "n_of")
"""Keys of whole numbers."""
_LONG = 1_000
_LONGEST = {"note": 10_000, "versions": 10_000, "seeds": 10_000, "manifest": 4_000}
"""Letters of a text: names stand in tables, whose columns are as wide as the longest."""
_GROUPS = ("quality", "likelihood", "terms", "cost", "curve", "reach")
_KNOWN = [field.name for field in fields(Row)]


def number_keys() -> tuple[str, ...]:
    """Return the keys whose values are real numbers."""
    return (*_SIGNED, *_COSTS)


def row_from(mapping: Mapping[str, Any]) -> Row:
    """Return the row that a JSON object describes; keys that are not known are left out.

    Raises DataError where one of task, model, metric, value is missing, or a value cannot be that of a row.
    """
    for key in (*_TEXT, "value"):
        if key not in mapping:
            near = did_you_mean(key, list(mapping)[: len(_KNOWN)])
            raise DataError(f"the key '{key}' is missing{near.replace('did you mean', 'is it')}")
    values = {key: _checked(key, mapping[key]) for key in _KNOWN if mapping.get(key) is not None}
    for key in _TEXT:
        if not values.get(key, "").strip():
            raise DataError(f"'{key}' is empty")
    if values.get("group", "quality") not in _GROUPS:
        raise DataError(f"'group' is {brief(values['group'])}, not one of {', '.join(_GROUPS)}")
    low, high = values.get("ci_low"), values.get("ci_high")
    if low is not None and high is not None and low > high:
        raise DataError(f"the interval from {low!r} to {high!r} is impossible: its lower end is the upper")
    given = mapping["value"]
    if given is not None and values["value"] is None:
        values["note"] = "; ".join(part for part in (f"not finite ({given})", values.get("note")) if part)
    values.setdefault("value", None)
    return Row(**values)


def _checked(key: str, value: Any) -> Any:
    """Return the value of a key as a row has it. Raises DataError where it is none."""
    if key in (*WHOLE, *_SIGNED, *_COSTS):
        return _number(key, value)
    if key == "higher_is_better":
        if not isinstance(value, bool):
            raise DataError(f"'{key}' is {brief(value)}, neither true, false nor null")
        return value
    words = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    if len(words) > (longest := _LONGEST.get(key, _LONG)):
        raise DataError(
            f"'{key}' is {brief(words)} and {len(words):,} letters long; at most {longest:,} are read"
        )
    if "\0" in words:
        raise DataError(f"'{key}' is {brief(words)}, which holds a zero byte")
    try:
        words.encode()
    except UnicodeEncodeError:
        raise DataError(f"'{key}' is {brief(words)}, which holds half of a character") from None
    return words


def _number(key: str, value: Any) -> float | int | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise DataError(f"'{key}' is {brief(value)}, not a number")
    try:
        number = float(value)
    except OverflowError:
        raise DataError(f"'{key}' is too large for a number") from None
    if key not in _SIGNED and number < 0:
        raise DataError(f"'{key}' is {brief(value)}, and cannot be negative")
    if key in WHOLE:
        if not number.is_integer():
            raise DataError(f"'{key}' is {brief(value)}, not a whole number")
        return int(value)
    # NaN and infinities are not measurements: they are shown as missing, with what they were.
    return number if math.isfinite(number) else None


@dataclass(frozen=True)
class Parsed:
    """What a text of JSON lines holds."""

    rows: list[tuple[int, Row]]
    """Each row with the number of its line, from 1."""
    left_out: list[str]
    """A sentence for each line that was skipped, on request."""


def parse_lines(content: str, name: str, *, skip_malformed: bool = False) -> Parsed:
    """Return the rows of JSON lines; blank lines are passed over.

    Raises DataError naming ``name`` and the line of whatever is malformed, or skips it on request; a last
    line without a line feed that cannot be read is called half-written. More rows than a command takes are
    refused either way.
    """
    rows: list[tuple[int, Row]] = []
    left_out: list[str] = []
    for line in text.lines_of(content):
        ROWS.hold(shown(name), len(rows) + len(left_out) + 1)
        try:
            rows.append((line.number, _row_of(line, f"{shown(name)} line {line.number}")))
        except DataError as error:
            if not skip_malformed:
                raise DataError(f"{error}; {_REPAIR}") from None
            left_out.append(str(error))
    return Parsed(rows, left_out)


_REPAIR = "repair or remove it, or leave it out with --skip-malformed"
_LONGEST_LINE = 2**20
"""Letters of a line, of which a row has about a thousand."""


def _row_of(line: text.Line, where: str) -> Row:
    """Return the row that a line is. Raises DataError, a sentence that ``where`` opens."""
    if len(line.text) > _LONGEST_LINE:
        raise DataError(f"{where} is {len(line.text):,} letters long; a row has at most {_LONGEST_LINE:,}")
    try:
        mapping = text.parse_json(line.text, where, repair="")
    except DataError as error:
        if line.torn:
            raise DataError(f"{where} is half-written: the file ends within it") from None
        raise DataError(str(error).removesuffix("; ")) from None
    if not isinstance(mapping, dict):
        raise DataError(f"{where} is not a JSON object")
    try:
        return row_from(mapping)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def read_rows(files: Iterable[Path]) -> list[Row]:
    """Return the rows of JSONL files in order; DataError names file and line of whatever is malformed."""
    return [row for file in files for _, row in parse_lines(read_text(file), str(file)).rows]


def read_text(file: Path) -> str:
    """Return what a file of rows holds. Raises DataError naming one that cannot be read."""
    return text.read_text(file, RESULTS)


def is_bare_run(place: Path) -> bool:
    """Return whether a folder is a training run without results in it or below it.

    Raises DataError as `find_results`, of a folder that cannot be looked into.
    """
    trained = present(place / "config.toml") or present(place / "checkpoints")
    return trained and not any(file.name == "results.jsonl" for file in below(place))


def find_results(place: Path) -> list[Path]:
    """Return the result files of a file or folder: itself, ``results.jsonl`` in it, or those below it.

    Links to folders are not followed. Raises DataError where there are none, and for a folder below that
    cannot be looked into: what it holds would be missing unsaid.
    """
    if not present(place):
        raise DataError(f"there is no {shown(str(place))}; give a results.jsonl or a folder that holds one")
    if not os.path.isdir(place):
        refuse_special(place)
        return [place]
    here = place / "results.jsonl"
    found = [here] if present(here) else sorted(file for file in below(place) if file.name == here.name)
    if found:
        return found
    where = shown(str(place))
    if not any(place.iterdir()):
        raise DataError(
            f"{where} is empty; `lsgm eval TASK --model MODEL --out {where}` writes results there"
        )
    if is_bare_run(place):
        raise DataError(
            f"{where} is a training run without results; run `lsgm eval TASK --model {where}` first"
        )
    raise DataError(f"there is no results.jsonl in {where}; run `lsgm eval` or `lsgm nll` first")
