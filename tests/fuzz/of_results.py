"""Kinds of files that hold numbers, and what lies beside them."""

from __future__ import annotations

from fuzz.kind import Kind
from fuzz.lines import CURVE, EVAL, GATE

__all__ = ["ENTRIES"]

ENTRIES = (
    Kind(
        "rows",
        ("scores",),
        ("scores/results.jsonl",),
        (
            "report scores --out out --format md,csv,tex,html",
            "report scores --skip-malformed --separate --keep-last --out out",
            "compare scores scores",
            "compare scores scores --json --fail-if-worse",
            "reproduce scores:1",
            "reproduce scores:2",
            "reproduce scores --metric nelbo_bpd --run --out out --device cpu",
        ),
    ),
    Kind(
        "rows beside a run",
        ("results", "run", "exported", "task.toml", "images", "means.ts"),
        ("results/results.jsonl",),
        (
            f"{EVAL} run --out results --only nelbo",
            "report results",
            "export --card exported --measured results/results.jsonl",
            "export run out --measured results/results.jsonl --dtype float32",
        ),
        ("results", "exported", "out"),
    ),
    Kind(
        "call manifests",
        ("scores", "run", "plain.toml", "images"),
        ("scores/manifests/*.json",),
        (
            "report scores --out out --format md,html",
            "compare scores scores",
            "reproduce scores:1",
            "reproduce scores:1 --run --out out",
            "reproduce scores:2 --run --out out --device cpu",
        ),
    ),
    Kind(
        "status",
        ("scores", "run", "plain.toml", "images"),
        ("scores/status.json",),
        (
            "report scores --out out --format md,html",
            "nll run --task plain.toml --data images --device cpu --out scores",
        ),
        ("out", "scores"),
    ),
    Kind(
        "finished measurements",
        ("results", "run", "task.toml", "images", "means.ts", "cache"),
        ("results/cells/*.json",),
        (f"{EVAL} run --out results",),
        ("results",),
    ),
    Kind(
        "cells of a sweep",
        ("curve", "run", "task.toml", "images", "means.ts", "cache"),
        ("curve/cells/*.json", "curve/results.jsonl"),
        (
            f"nfe --model run --task task.toml --data images --samplers heun --nfe 2,4 {CURVE} --out curve",
            "report curve --out out --format md,csv,tex",
        ),
        ("curve", "out"),
    ),
    Kind(
        "scores",
        ("scores", "run", "plain.toml", "images"),
        ("scores/scores/*/*.npz",),
        ("nll run --task plain.toml --data images --device cpu --out scores --method nelbo --method ode",),
        ("scores",),
    ),
    Kind(
        "scores of images",
        ("scores",),
        ("scores/per-image/*.npz",),
        ("compare scores scores", "report scores --out out --format md", "compare scores scores --md"),
    ),
    Kind(
        "interrupted passes",
        ("results", "run", "task.toml", "images", "means.ts", "cache"),
        ("results/passes/*.npz",),
        (f"{EVAL} run --out results --only quality",),
        ("results",),
    ),
    Kind(
        "cached features",
        ("run", "task.toml", "images", "means.ts", "cache", "results"),
        ("../cache/features/*.npz",),
        (f"{EVAL} run --out out --only quality", "compare results results"),
    ),
    Kind(
        "cached pixels",
        ("run", "task.toml", "images", "means.ts", "cache"),
        ("../cache/derived/*",),
        (
            "nll run --task task.toml --data images --device cpu --limit 2 --out out",
            f"{EVAL} run --out out --only nelbo",
        ),
    ),
    Kind(
        "golden rows",
        ("golden.json", "run", "task.toml", "images", "means.ts"),
        ("golden.json",),
        (
            GATE.format(model="run"),
            GATE.format(model="run") + " --json --retrained",
            GATE.format(model="run") + " --junit out/junit.xml",
        ),
        dear=True,
    ),
    Kind(
        "ablations",
        ("ablation",),
        ("ablation/ablation.json",),
        ("report ablation --out out --format md,tex",),
    ),
    Kind(
        "statistics",
        ("statistics.npz", "few", "means.ts", "images.npz", "task.toml", "images"),
        ("statistics.npz",),
        (
            "fid statistics.npz few --extractor torchscript:means.ts --out out --device cpu",
            f"{EVAL} images.npz --reference means=statistics.npz --only quality --images all --out out",
        ),
    ),
    Kind(
        "figures",
        ("sheet", "scores"),
        ("sheet/report.md", "sheet/results.csv", "sheet/figures/*"),
        ("report scores --out sheet",),
        ("sheet",),
        dear=True,
    ),
    Kind("CSV given back", ("sheet",), ("sheet/results.csv",), ("call:csv sheet/results.csv",)),
)
