"""Result rows: one measured number each, with its interval and where it comes from, read from JSON lines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from lsgm.errors import DataError, did_you_mean

__all__ = ["Row", "find_results", "read_rows", "row_from"]


@dataclass(frozen=True)
class Row:
    """One number, or the reason why there is none (``value`` None, ``note`` says why)."""

    task: str
    """Name, version and tier: ``glyphs@1/quick``."""
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
        """Half the interval."""
        return None if self.interval is None else (self.interval[1] - self.interval[0]) / 2


_TEXT = {"task", "model", "metric"}
_NUMBERS = {
    *("value", "ci_low", "ci_high", "nfe_mean", "nfe_max", "seconds"),
    *("decoder_seconds", "flops_per_image", "decoder_flops_per_image"),
}
_WHOLE = {"n", "peak_bytes"}
_GROUPS = ("quality", "likelihood", "terms", "cost", "curve", "reach")
_KNOWN = [field.name for field in fields(Row)]


def row_from(mapping: Mapping[str, Any]) -> Row:
    """Return the row that a JSON object describes; keys that are not known are left out.

    Raises DataError where one of task, model, metric, value is missing, or a number is none.
    """
    for key in ("task", "model", "metric", "value"):
        if key not in mapping:
            near = did_you_mean(key, mapping)
            raise DataError(f"the key '{key}' is missing{near.replace('did you mean', 'is it')}")
    values: dict[str, Any] = {}
    for key in _KNOWN:
        value = mapping.get(key)
        if value is None:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if key in _NUMBERS | _WHOLE and not number:
            raise DataError(f"'{key}' is {value!r}, not a number")
        if key in _NUMBERS:
            # NaN and infinities are not measurements: they are shown as missing, with what they were.
            value = float(value) if math.isfinite(value) else None
        elif key in _WHOLE:
            value = int(value)
        elif key != "higher_is_better" and not isinstance(value, str):
            value = json.dumps(value, sort_keys=True)
        values[key] = value
    for key in _TEXT:
        if not values.get(key):
            raise DataError(f"'{key}' is empty")
    if values.get("group", "quality") not in _GROUPS:
        raise DataError(f"'group' is {values['group']!r}, not one of {', '.join(_GROUPS)}")
    if values.get("value") is None:
        given = mapping["value"]
        values.setdefault("note", "not measured" if given is None else f"not finite ({given})")
        values["value"] = None
    return Row(**values)


def find_results(place: Path) -> list[Path]:
    """Return the result files of a file or folder: itself, ``results.jsonl`` in it, or those below it.

    Raises DataError where there are none.
    """
    if place.is_file():
        return [place]
    if not place.exists():
        raise DataError(f"there is no {place}; give a results.jsonl or a folder that holds one")
    here = place / "results.jsonl"
    found = [here] if here.is_file() else sorted(place.rglob("results.jsonl"))
    if not found:
        raise DataError(f"there is no results.jsonl in {place}; run `lsgm eval` or `lsgm nll` first")
    return found


def read_rows(files: Iterable[Path]) -> list[Row]:
    """Return the rows of JSONL files in order; DataError names file and line of whatever is malformed."""
    rows: list[Row] = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {file}: {error}") from None
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                mapping = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{file} line {number} is not JSON ({error.msg}); remove or repair it"
                ) from None
            if not isinstance(mapping, dict):
                raise DataError(f"{file} line {number} is not a JSON object; remove or repair it")
            try:
                rows.append(row_from(mapping))
            except DataError as error:
                raise DataError(f"{file} line {number}: {error}") from None
    return rows
