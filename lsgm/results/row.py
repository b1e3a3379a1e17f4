"""A result row: one measured number with everything that is needed to know what it is."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from lsgm.errors import DataError, did_you_mean
from lsgm.files.names import brief

GROUPS = ("quality", "likelihood", "terms", "cost", "curve", "reach")
"""Headings under which metrics go."""


@dataclass(frozen=True)
class Row:
    """One number, or the reason why there is none (``value`` None, ``note`` says why).

    A new field is appended here and nowhere else: files, tables and checks follow from its annotation. What
    does not apply is None. `row_from` sees to it that texts can be encoded, hold no zero byte and are no
    longer than a name or a remark may be, and that none of task, model and metric is blank; that numbers are
    finite, counts and costs not negative, and that an interval's lower end is not above its upper one. The
    value may lie outside: that of a biased estimate does.
    """

    task: str
    """Name, version and tier: ``glyphs@2/quick``."""
    model: str
    metric: str
    """A name of `lsgm.results.metrics`, which may carry its feature space: ``frechet_glyphs``."""
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
    group: str | None = None
    """One of `GROUPS`."""
    note: str | None = None
    levels_sha256: str | None = None
    """Hash of the bits that were scored: two bounds are of the same images where it agrees."""
    versions: str | None = None
    """Of rows that early versions wrote; later ones have a manifest."""
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
    more: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What a later version wrote beside all this; it stays with the row when its file is written again."""

    @property
    def counted(self) -> str | None:
        """How many images were measured, ``1,000 of 50,000`` where these are not all; None if unknown."""
        if self.n is None:
            return None
        return f"{self.n:,}" if self.n_of is None else f"{self.n:,} of {self.n_of:,}"

    @property
    def known_bias(self) -> float | None:
        """The estimated bias, which older rows have in their note alone; None where none is known."""
        if self.bias is not None:
            return self.bias
        found = _BIAS.search(self.note or "")
        return float(found[1]) if found and math.isfinite(float(found[1])) else None

    @property
    def upward_bias(self) -> float:
        """The estimated bias; 0 where none is known."""
        return self.known_bias or 0.0

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

    @property
    def number(self) -> float:
        """The value of a row that has one."""
        if self.value is None:
            raise ValueError(f"{self.metric} of {self.model} has no value")
        return self.value

    @property
    def loss(self) -> float:
        """The value, turned round where the higher is the better."""
        return -self.number if self.higher_is_better else self.number

    @property
    def seconds_per_image(self) -> float | None:
        """Seconds from noise to an image, the decoder's among them; None where they are not known."""
        return self.seconds / self.n if self.seconds is not None and self.n else None

    def keys(self) -> list[str]:
        """Return the keys of its line, so that ``dict(row)`` is what the line says."""
        return list(self.as_dict())

    def __iter__(self) -> Iterator[str]:
        return iter(self.as_dict())

    def __getitem__(self, key: str) -> Any:
        """Return what its line says of a key."""
        return self.as_dict()[key]

    def as_dict(self) -> dict[str, Any]:
        """Return the row as its line of a file has it: every key of `KEYS`, and what else there is."""
        old = {"versions": self.versions} if self.versions is not None else {}
        return {key: getattr(self, key) for key in KEYS} | old | dict(self.more)


_BIAS = re.compile(r"upward bias at this n about (-?[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?)(?!\.?[0-9])")

KINDS = {each.name: str(each.type).partition(" ")[0] for each in fields(Row) if each.name != "more"}
"""Field -> ``str``, ``float``, ``int`` or ``bool``, in the order of a CSV's columns."""

_FIRST = ("task", "model", "checkpoint_sha256")
KEYS = (*_FIRST, *(name for name in KINDS if name not in (*_FIRST, "versions")))
"""Every line of a file of rows has these keys, in this order."""

NAMES = ("task", "model", "metric")
"""Texts that every row has."""

_SIGNED = ("value", "ci_low", "ci_high", "solver_error", "bias")
"""Numbers that may be negative."""
_LARGEST, _MOST = 1e300, 2**63 - 1
"""Of a number that is computed with, and of a whole number."""
_LONG = 1_000
_LONGEST = {"note": 10_000, "versions": 10_000, "seeds": 10_000, "manifest": 4_000}
"""Letters of a text: names stand in tables, whose columns are as wide as the longest."""


def row_id(row: Row) -> str:
    """Return 12 hexadecimal digits that name a row: SHA-256 of the canonical JSON of all its keys.

    Keys that do not apply (None) are left out, so that a key which a later version adds renames no row.
    """
    known = {key: value for key in KINDS if (value := getattr(row, key)) is not None}
    text = json.dumps(known, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:12]


def row_from(mapping: Mapping[str, Any], *, keep: bool = False) -> Row:
    """Return the row that a JSON object describes.

    A reader (``keep`` False) leaves out keys that it does not know, and takes a number that is not finite for
    a missing one. Whoever writes the row again (``keep`` True) keeps them, and refuses such a number. Raises
    DataError where one of task, model, metric, value is missing, or a value cannot be that of a row.
    """
    for key in (*NAMES, "value"):
        if key not in mapping:
            near = did_you_mean(key, list(mapping)[: len(KINDS)])
            raise DataError(f"the key '{key}' is missing{near.replace('did you mean', 'is it')}")
    values = {key: _checked(key, mapping[key], keep) for key in KINDS if mapping.get(key) is not None}
    for key in NAMES:
        if not values.get(key, "").strip():
            raise DataError(f"'{key}' is empty")
    if not keep and values.get("group", GROUPS[0]) not in GROUPS:
        raise DataError(f"'group' is {brief(values['group'])}, not one of {', '.join(GROUPS)}")
    low, high = values.get("ci_low"), values.get("ci_high")
    if low is not None and high is not None and low > high:
        raise DataError(f"the interval from {low!r} to {high!r} is impossible: its lower end is the upper")
    given = mapping["value"]
    if given is not None and values["value"] is None:
        values["note"] = "; ".join(part for part in (f"not finite ({given})", values.get("note")) if part)
    values.setdefault("value", None)
    more = {key: value for key, value in mapping.items() if key not in KINDS} if keep else {}
    for key, value in more.items():
        if not _writable(value):
            raise DataError(f"'{key[:60]}' is {brief(value)}, which is not finite")
    return Row(**values, more=more)


def _checked(key: str, value: Any, keep: bool) -> Any:
    """Return the value of a key as a row has it. Raises DataError where it is none."""
    if KINDS[key] in ("float", "int"):
        return _number(key, value, keep)
    if KINDS[key] == "bool":
        if not isinstance(value, bool):
            raise DataError(f"'{key}' is {brief(value)}, neither true, false nor null")
        return value
    if keep:
        if not isinstance(value, str):
            raise DataError(f"'{key}' is {brief(value)}, not a text")
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


def _number(key: str, value: Any, keep: bool) -> float | int | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise DataError(f"'{key}' is {brief(value)}, not a number")
    try:
        number = float(value)
    except OverflowError:
        raise DataError(f"'{key}' is too large for a number") from None
    if key not in _SIGNED and number < 0:
        raise DataError(f"'{key}' is {brief(value)}, and cannot be negative")
    if KINDS[key] == "int":
        if not number.is_integer():
            raise DataError(f"'{key}' is {brief(value)}, not a whole number")
        if int(value) > _MOST:
            raise DataError(f"'{key}' is {brief(value)}, beyond 2^63 - 1")
        return int(value)
    if keep:  # what is computed with has sums and differences that are numbers still
        if not abs(number) <= _LARGEST:
            raise DataError(f"'{key}' is {brief(value)}, not a finite number")
        return number
    # NaN and infinities are not measurements: they are shown as missing, with what they were.
    return number if math.isfinite(number) else None


def _writable(value: Any) -> bool:
    """Return whether JSON has words for a value; a reader lets infinities pass."""
    if isinstance(value, Mapping):
        return all(map(_writable, value.values()))
    if isinstance(value, list):
        return all(map(_writable, value))
    return not isinstance(value, float) or math.isfinite(value)


def pareto_front(costs: Sequence[float], losses: Sequence[float]) -> list[int]:
    """Return the numbers of the points that no other equals or beats in both, by rising cost.

    Of equal points the first stands. Losses fall along the front strictly.
    """
    front: list[int] = []
    for k in sorted(range(len(costs)), key=lambda k: (costs[k], losses[k])):
        if not front or losses[k] < losses[front[-1]]:
            front.append(k)
    return front
