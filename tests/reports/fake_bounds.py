"""Rows as `lsgm nll` leaves them on binary images: three kinds of bounds, their terms, differences."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["BITS", "NO_FLOW", "bound_rows", "estimate", "fake_bounds", "term_rows"]

SHA = {"lsgm": "1f" * 32, "vae": "3d" * 32}
BITS = "b1" * 32
NO_FLOW = "a VAE with a Normal prior has no probability flow; ask for its nelbo or iw"
DIMS = 784


def _row(model: str, metric: str, value: float | None, half: float | None, **rest: Any) -> dict[str, Any]:
    ends = (None, None) if half is None or value is None else (value - half, value + half)
    return {
        "task": "mnist@1/full",
        "model": model,
        "checkpoint_sha256": SHA.get(model),
        "metric": metric,
        "value": value,
        "ci_low": ends[0],
        "ci_high": ends[1],
        "n": 10000,
        "split": "test",
        "sampler": None,
        "dataset": f"mnist@official@{'ef' * 32}",
        "seeds": "0-9999",
        "git_revision": "9" * 40,
        "run_id": "nll",
        "unit": "nats/image",
        "higher_is_better": False,
        "group": "likelihood",
        "levels_sha256": BITS,
    } | rest


def estimate(
    model: str, bound: str, estimator: str | None, nats: float | None, half: float | None = None, **rest: Any
) -> list[dict[str, Any]]:
    """Return both units of one estimate."""
    scale = 1 / (DIMS * math.log(2))
    bits = (None if nats is None else nats * scale, None if half is None else half * scale)
    about = {"sampler": estimator} | rest
    in_bits = {key: rest[key] * scale for key in ("solver_error", "solver_error_margin") if key in rest}
    return [
        _row(model, f"{bound}_nats", nats, half, **about),
        _row(model, f"{bound}_bpd", *bits, unit="bits/dim", **about | in_bits),
    ]


def term_rows(model: str, bound: str, estimator: str, terms: dict[str, float]) -> list[dict[str, Any]]:
    """Return the terms of one bound, those of a group named ``term/group``."""
    about: dict[str, Any] = {"group": "terms", "higher_is_better": None, "sampler": estimator}
    return [_row(model, f"{bound}_term_{term}_nats", value, 0.1, **about) for term, value in terms.items()]


def bound_rows() -> list[dict[str, Any]]:
    """Return the bounds of an LSGM, by the flow at two tolerances, and of a VAE."""
    loose = "ode(solver=dopri5, rtol=0.001, atol=0.001, probes=1)"
    tight = "ode(solver=dopri5, rtol=1e-05, atol=1e-05, probes=1)"
    few = "iw(samples=10, solver=dopri5, rtol=1e-05, atol=1e-05, probes=4)"
    free = {"nfe_mean": 0.0, "nfe_max": 0.0}
    return [
        *estimate("lsgm", "nelbo", "nelbo(times=16)", 81.52, 0.44, nfe_mean=17.0, nfe_max=17.0, seconds=61.0),
        *estimate("vae", "nelbo", "nelbo(samples=1)", 88.31, 0.48, seconds=2.1, **free),
        *estimate("lsgm", "ode_nll", loose, 81.7, 0.45, nfe_mean=41.3, nfe_max=62.0, seconds=890.0),
        *estimate("lsgm", "ode_nll", tight, 81.44, 0.45, nfe_mean=137.4, nfe_max=218.0, seconds=3120.0),
        *estimate("vae", "ode_nll", None, None, note=NO_FLOW),
        *estimate("lsgm", "iw", few, 80.1, 0.44, nfe_mean=1374.0, nfe_max=2018.0, seconds=31200.0),
        *estimate("vae", "iw", "iw(samples=1000)", 85.02, 0.46, seconds=1912.0, **free),
    ]


def _terms() -> list[dict[str, Any]]:
    by_group = {"negative_entropy/0": -70.0, "negative_entropy/1": -30.5, "cross_entropy/top": 128.0}
    nelbo = {
        "reconstruction": 54.0,
        "negative_entropy": -100.5,
        "cross_entropy": 127.97,
        "terminal": 0.03,
        "tail": 0.02,
    }
    gain = {
        "reconstruction": 58.2,
        "negative_entropy": -95.2,
        "cross_entropy": 125.3,
        "importance_gain": -3.28,
    }
    return [
        *term_rows("lsgm", "nelbo", "nelbo(times=16)", nelbo | by_group),
        *term_rows("vae", "iw", "iw(samples=1000)", gain),
    ]


def fake_bounds(**rest: Any) -> list[dict[str, Any]]:
    """Return the rows of one run; ``rest`` overrides keys of all of them."""
    paired = [
        _row("lsgm − vae", "paired_nelbo_nats", -6.79, 0.16),
        _row("lsgm − vae", "paired_iw_nats", -4.92, 0.14),
    ]
    return [row | rest for row in [*bound_rows(), *_terms(), *paired]]
