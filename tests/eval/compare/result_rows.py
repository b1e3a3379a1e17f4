"""Result rows and folders of results for tests, as `lsgm eval` leaves them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsgm.results import Row
from lsgm.results.files import write_rows
from lsgm_eval.metrics.intervals import mean_interval
from lsgm_eval.rows import Context

TASK, DATA = "glyphs@1/quick", "glyphs@1@" + "d" * 64


def row(metric: str, value: float | None, model: str = "lsgm", /, **fields: Any) -> Row:
    """Return a complete row; any key may be given another value."""
    made = Context(TASK, model, "a" * 64, DATA, "run").row(metric, value)
    return replace(made, **fields)


def folder(place: Path, *rows: Row) -> Path:
    write_rows(place / "results.jsonl", rows)
    return place


def bound(
    place: Path, nats: NDArray[Any], model: str = "lsgm", rows: NDArray[Any] | None = None, **fields: Any
) -> Row:
    """Keep a bound of every image [N] as `lsgm nll` does and return the row of its mean."""
    file = place / "per-image" / f"{model}-nelbo.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    numbers = np.arange(len(nats)) if rows is None else rows
    np.savez(file, rows=numbers, nats=nats, task=np.array(TASK), levels_sha256=np.array("e" * 64))
    mean = mean_interval(nats)
    known = {"n": len(nats), "split": "test", "levels_sha256": "e" * 64, "sampler": "nelbo(times=1)"}
    ends = {"ci_low": mean.low, "ci_high": mean.high}
    return row("nelbo_nats", mean.value, model, **known, **ends, **fields)


MANIFEST: dict[str, Any] = {
    "started": "",
    "command": ["lsgm", "eval"],
    "directory": "",
    "environment": {},
    "git_revision": None,
    "code_version": "",
    "versions": {},
    "hardware": {},
    "device": "cpu",
    "models": [],
    "task": {"identity": TASK, "sha256": "", "data": "glyphs"},
}
"""One that says nothing but what it must."""


def manifest(place: Path, name: str, **content: Any) -> None:
    path = place / "manifests" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"format": 1, "id": name} | MANIFEST | content))


def measured(path: Path, run_id: str) -> dict[str, Any]:
    """Return what a manifest says of the model of `row`."""
    return {"name": "lsgm", "spec": "x", "sha256": "a" * 64, "path": str(path), "run_id": run_id}
