"""Kinds of files that make and hold models: recipes, tasks, runs, checkpoints, those of other code."""

from __future__ import annotations

from fuzz.kind import Kind
from fuzz.lines import EVAL, NLL, READERS, RUN, seal_checkpoints
from fuzz.specimens import MODEL

__all__ = ["ENTRIES"]

ENTRIES = (
    Kind(
        "recipes",
        ("recipe.toml", "few"),
        ("recipe.toml",),
        (
            "train recipe.toml --data few --out out --device cpu --stage1.steps 1 --stage2.steps 0",
            "train --recipe recipe.toml --help",
            "bench cost recipe.toml",
        ),
    ),
    Kind(
        "tasks",
        ("task.toml", "run", "images", "images.npy", "means.ts"),
        ("task.toml",),
        (
            f"{EVAL} run --out out --only nelbo",
            NLL.format(model="run"),
            f"{EVAL} images.npy --images 40 --only quality --out out",
        ),
    ),
    Kind("costs", ("costs.json",), ("costs.json",), ("call:costs costs.json",)),
    Kind("published numbers", ("published.toml",), ("published.toml",), ("call:published published.toml",)),
    Kind(
        "calibrations", ("calibration.toml",), ("calibration.toml",), ("call:calibrations calibration.toml",)
    ),
    Kind(
        "config of a run",
        ("run", "images", "scores"),
        ("run/config.toml",),
        RUN,
        ("run", "out"),
    ),
    Kind(
        "manifest of a run",
        ("run", "images", "scores"),
        ("run/manifest.json",),
        RUN,
        ("run", "out"),
    ),
    Kind(
        "metrics of a run",
        ("run", "images", "scores"),
        ("run/metrics.jsonl",),
        RUN,
        ("run", "out"),
    ),
    Kind(
        "state",
        ("run", "task.toml", "images", "means.ts"),
        (f"{MODEL}/state.json",),
        (*READERS, *RUN[:1]),
        ("run", "out"),
    ),
    Kind(
        "weights",
        ("run", "task.toml", "images", "means.ts"),
        (f"{MODEL}/ema.safetensors",),
        READERS,
        seal=seal_checkpoints,
    ),
    Kind(
        "optimiser",
        ("half", "images", "recipe.toml"),
        ("half/checkpoints/step-0000003/optimizer.pt",),
        ("train half/config.toml --device cpu --stage2.steps 2",),
        ("half",),
        seal=seal_checkpoints,
    ),
    Kind(
        "raw weights",
        ("half", "images", "recipe.toml"),
        ("half/checkpoints/step-0000003/*.safetensors", "half/checkpoints/*/state.json"),
        (
            "train half/config.toml --device cpu --stage2.steps 2",
            "train recipe.toml --out out --init-from half --device cpu --stage1.steps 0 --stage2.steps 1",
            "train recipe.toml --out out --init-vae-from half --device cpu --stage1.steps 0 --stage2.steps 1",
        ),
        ("half", "out"),
        seal=seal_checkpoints,
    ),
    Kind(
        "exported models",
        ("exported", "results", "task.toml", "images", "means.ts"),
        ("exported/*",),
        (
            "sample exported --n 2 --out out/drawn --device cpu --sampler.name heun --sampler.steps 1",
            "export --card exported --measured results/results.jsonl",
            "recalibrate exported out --moments --images 4 --device cpu",
            "recalibrate exported out --batches 1 --batch-size 2 --device cpu",
            NLL.format(model="exported"),
        ),
        ("exported", "out"),
        seal=seal_checkpoints,
    ),
    Kind(
        "journals of samples",
        ("drawn", "run", "means.ts"),
        (
            "drawn/pictures/.samples.jsonl",
            "drawn/pictures/.pass",
            "drawn/pictures/*.png",
            "drawn/*.json",
            "drawn/*.png",
        ),
        (
            "sample run --n 4 --out drawn/pictures --device cpu --sampler.name heun --sampler.steps 1",
            "fid drawn/pictures drawn/pictures --extractor torchscript:means.ts --device cpu",
        ),
        ("drawn",),
    ),
    Kind(
        "packs of samples",
        ("pack", "run"),
        ("pack/*", "pack/.drawn.npz.samples.jsonl"),
        ("sample run --n 5 --out pack/drawn.npz --device cpu --sampler.name heun --sampler.steps 1",),
        ("pack",),
    ),
    Kind(
        "network of nvlabs",
        ("nvlabs.pt",),
        ("nvlabs.pt",),
        ("import nvlabs nvlabs.pt out", "import nvlabs nvlabs.pt out --help"),
    ),
    Kind(
        "VAE of nvlabs",
        ("nvlabs-vae.pt",),
        ("nvlabs-vae.pt",),
        ("import nvlabs nvlabs-vae.pt out",),
    ),
    Kind(
        "network of score_sde",
        ("score_sde",),
        ("score_sde/*",),
        ("import score-sde score_sde/checkpoint.pth out --config score_sde/config.toml",),
    ),
    Kind(
        "pipeline of diffusers",
        ("ddpm",),
        ("ddpm/*.json", "ddpm/*/*"),
        ("import diffusers ddpm out",),
    ),
    Kind(
        "conformance",
        ("folder",),
        ("folder/*",),
        ("conformance folder", "conformance folder --json"),
    ),
)
