"""Rows of cost curves as a sweep leaves them: all that is known of each point, and what follows from them."""

from __future__ import annotations

from typing import Any

from reports.fake_rows import fake_rows

__all__ = ["EVALUATION", "fake_curves", "fake_reach"]

EVALUATION = {"lsgm": 2e6, "sgm": 8e7}
"""Operations of one evaluation; the LSGM decodes with another 5e6 and a millisecond."""


def fake_curves() -> list[dict[str, Any]]:
    """Return the points of two models' curves with seconds and operations, and a VAE's as a level."""
    rows = [row for row in fake_rows() if row["group"] == "curve" and row["metric"] == "frechet_glyphs"]
    for row in rows:
        decoder = 5e6 if row["model"] == "lsgm" else 0.0
        row["flops_per_image"] = row["nfe_mean"] * EVALUATION[row["model"]] + decoder
        row["decoder_flops_per_image"] = decoder
        row["decoder_seconds"] = row["n"] * decoder / 5e9
        row["seconds"] = row["n"] * row["flops_per_image"] / 5e9
        row["higher_is_better"] = False
    vae = dict(rows[0]) | {"model": "vae", "sampler": None, "value": 13.0, "ci_low": 12.6, "ci_high": 13.4}
    vae |= {"nfe_mean": 0.0, "nfe_max": 0.0, "flops_per_image": 5e6, "seconds": 1.0, "decoder_seconds": 1.0}
    return [*rows, vae]


def fake_reach() -> list[dict[str, Any]]:
    """Return derived rows of every kind: ahead, behind, undecided, not reached, and without an interval."""
    target = "frechet_glyphs<=12.3"
    cases: list[tuple[str, str, float | None, tuple[float, float] | None, dict[str, Any]]] = [
        ("lsgm", "nfe_to_reach", 6.8, (6.1, 7.4), {"sampler": "heun(steps=3)"}),
        ("sgm", "nfe_to_reach", 61.0, (52.0, 83.0), {"sampler": "heun(steps=20)"}),
        ("lsgm", "seconds_to_reach", 0.0041, (0.0038, 0.0045), {"sampler": "heun(steps=3)"}),
        ("sgm", "seconds_to_reach", 0.97, (0.83, 1.33), {"sampler": "heun(steps=20)"}),
        ("lsgm", "flops_to_reach", 1.9e7, (1.7e7, 2.1e7), {"sampler": "heun(steps=3)"}),
        ("sgm", "flops_to_reach", None, None, {"note": "not reached"}),
        ("lsgm / sgm", "speedup_nfe", 8.97, (7.5, 12.2), {}),
        ("lsgm / sgm", "speedup_seconds", 1.1, (0.8, 1.5), {}),
        ("sgm / lsgm", "speedup_nfe", 0.1, (0.05, 0.2), {}),
        ("lsgm / sgm", "speedup_flops", None, None, {"note": "sgm does not reach it"}),
        ("lsgm", "speedup_vs_reference_nfe", 5.0, None, {}),
    ]
    shared = fake_curves()[0] | {"seconds": None, "nfe_mean": None, "nfe_max": None, "sampler": None}
    shared |= {"group": "reach", "target": target, "note": None, "unit": None, "higher_is_better": None}
    return [
        shared
        | {"model": model, "metric": metric, "value": value}
        | {"ci_low": ends[0] if ends else None, "ci_high": ends[1] if ends else None}
        | rest
        for model, metric, value, ends, rest in cases
    ]
