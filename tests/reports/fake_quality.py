"""Rows as `lsgm eval cifar10` leaves them: two models in official spaces, in a proxy, and without weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from PIL import Image
from reports.fake_rows import write_rows

from lsgm.results.metrics import families, metric_name
from lsgm_eval.rows import Context

__all__ = ["NO_WEIGHTS", "fake_quality", "fake_run"]

NO_WEIGHTS = "the weights of clean-fid's network, inception-2015-12-05.pt, are not at hand: fetch them once"
SHA = {"lsgm": "1f" * 32, "sgm": "2e" * 32}
N = 5000

VALUES = {
    "lsgm": {
        "frechet": (9.871, 0.121),
        "kernel": (0.00413, 0.00022),
        "inception_score": (8.92, 0.11),
        "precision": (0.671, 0.014),
        "recall": (0.552, 0.015),
        "density": (0.903, 0.031),
        "coverage": (0.811, 0.012),
        "frechet_infinity": (6.02, 0.44),
        "spatial_frechet": (7.7, 0.2),
        "memorised": (0.0008, 0.0041),
    },
    "sgm": {
        "frechet": (14.03, 0.17),
        "kernel": (0.00731, 0.00029),
        "inception_score": (8.31, 0.12),
        "precision": (0.662, 0.014),
        "recall": (0.498, 0.016),
        "density": (0.851, 0.030),
        "coverage": (0.768, 0.013),
        "frechet_infinity": (10.2, 0.5),
        "spatial_frechet": (9.4, 0.3),
        "memorised": (-0.0006, 0.0039),
    },
}
"""Model -> family -> value and half its interval."""


def _context(model: str) -> Context:
    return Context("cifar10@1/quick", model, SHA.get(model), f"cifar10@1@{'ef' * 32}", f"eval-{model}")


def _row(model: str, metric: str, value: float | None, half: float | None, **rest: Any) -> dict[str, Any]:
    ends = {} if value is None or half is None else {"ci_low": value - half, "ci_high": value + half}
    shared = {"n": N, "split": "train", "git_revision": "9" * 40, "seeds": f"0-{N - 1}"}
    return _context(model).row(metric, value, **shared | ends | rest).as_dict()


def _space(model: str, space: str, families: tuple[str, ...], **rest: Any) -> list[dict[str, Any]]:
    """Return the rows of one model in one space; clean-fid's numbers are a little other ones."""
    shift = 1.04 if space == "inception-clean" else 1.0
    pairs = ((family, VALUES[model][family]) for family in families)
    return [
        _row(
            model,
            metric_name(family, space),
            shift * value,
            half,
            extractor=f"{space}@{'ab' * 32}",
            reference_sha256="cd" * 32,
            **rest,
        )
        for family, (value, half) in pairs
    ]


def _cost(model: str, **rest: Any) -> list[dict[str, Any]]:
    nfe, seconds = {"lsgm": (19.0, 88.0), "sgm": (19.0, 402.0)}[model]
    bpd, half = {"lsgm": (4.31, 0.02), "sgm": (3.74, 0.02)}[model]
    nats = 3072 * math.log(2)
    bound: dict[str, Any] = {"split": "test", "sampler": "nelbo(times=16)"}
    return [
        _row(model, "nelbo_nats", nats * bpd, nats * half, **bound),
        _row(model, "nelbo_bpd", bpd, half, **bound),
        _row(model, "nfe", nfe, None, **rest),
        _row(model, "seconds_per_1000", seconds, 0.03 * seconds, **rest),
    ]


def _paired(space: str) -> list[dict[str, Any]]:
    gaps = {"frechet": (-4.16, 0.19), "kernel": (-0.0003, 0.0004)}
    rows = []
    for family, (value, half) in gaps.items():
        row = _row("lsgm - sgm", f"paired_{metric_name(family, space)}", value, half, note="a verdict")
        rows.append(row)
    return rows


def fake_quality(*spaces: str, closed: bool = False) -> list[dict[str, Any]]:
    """Return the rows of two models in spaces; ``closed`` adds clean-fid's space without its weights."""
    rows: list[dict[str, Any]] = []
    for model in VALUES:
        drawn = {"sampler": "heun(steps=10)", "nfe_mean": 19.0, "nfe_max": 19.0, "seconds": 440.0}
        for space in spaces:
            names = tuple(families()) if space != "inception-clean" else ("frechet", "kernel")
            rows += _space(model, space, names, **drawn)
        if closed:
            for family in ("frechet", "kernel"):
                name = metric_name(family, "inception-clean")
                rows.append(_row(model, name, None, None, note=NO_WEIGHTS, **drawn))
        rows += _cost(model, **drawn)
    for space in spaces:
        rows += _paired(space)
    return rows


def fake_run(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows and the pictures that lie beside them, and return the folder."""
    write_rows(folder / "results.jsonl", rows)
    for name in ("samples/sgm", "samples/data", "samples/lsgm", "neighbours/lsgm", "neighbours/sgm"):
        path = folder / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    return folder
