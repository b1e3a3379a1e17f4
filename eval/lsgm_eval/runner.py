"""Evaluate models under a task: every measurement is a cell that is computed once and reused afterwards."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from lsgm.config import SamplerConfig
from lsgm.data import ImageSet, load
from lsgm.errors import UserError
from lsgm.generative import GenerativeModel
from lsgm.grid import save_grid
from lsgm.structure import to_dict
from lsgm_eval.cells import CellStore, cell_key
from lsgm_eval.code_version import code_version
from lsgm_eval.extractors import load_extractor
from lsgm_eval.extractors.base import Extractor
from lsgm_eval.images import ScoredImages, check_pixels, scored_images_of
from lsgm_eval.likelihoods import measure_likelihood, why_missing
from lsgm_eval.measure.cost import cost_rows
from lsgm_eval.measure.curve import curve_point, headline_point
from lsgm_eval.measure.likelihood_rows import missing_rows
from lsgm_eval.measure.paired import paired_rows
from lsgm_eval.measure.quality import describe_sampler, distances, generate, quality_rows, sampling
from lsgm_eval.model_specs import remark_of
from lsgm_eval.reference import Reference, choose, data_images, reference_features
from lsgm_eval.rows import Context, keep_rows
from lsgm_eval.tasks import Method, Task, Tier, load_task

__all__ = ["MEASUREMENTS", "Measurement", "evaluate"]

Row = dict[str, Any]
Measurement = Literal["quality", "nelbo", "iw", "ode", "curve"]
MEASUREMENTS: tuple[Measurement, ...] = ("quality", "nelbo", "iw", "ode", "curve")
METHODS: tuple[Method, ...] = ("nelbo", "iw", "ode")


@dataclass(frozen=True)
class _Space:
    """What distances are measured in and to, and a remark on how far other real images are."""

    extractor: Extractor
    reference: Reference
    floor: str


@dataclass(frozen=True)
class _Bench:
    """What all models of one evaluation are measured with."""

    task: Task
    tier_name: str
    tier: Tier
    scored: ScoredImages
    space: _Space | None
    """None where no distance is asked for, or the task has no feature space."""
    out: Path
    batch_size: int
    allow_failures: bool

    @property
    def cells(self) -> CellStore:
        return CellStore(self.out / "cells")


def evaluate(
    models: Sequence[GenerativeModel],
    task: Task | str,
    tier: str,
    out: Path,
    *,
    only: Sequence[Measurement] = MEASUREMENTS,
    batch_size: int = 250,
    device: torch.device | str = "cpu",
    root: Path | None = None,
    allow_failures: bool = False,
) -> list[Row]:
    """Measure models under one task and return their result rows, which ``out/results.jsonl`` then holds too.

    Beside the rows lie ``samples/*.png``, ``per-image/*.npz`` and the finished cells; rows of other models
    already in the file stay. Interrupted, the same call goes on where it was. With ``allow_failures`` images
    whose likelihood cannot be told are left out, which their rows state. Raises UserError for models
    that make other images than the task's, for two models of one name, for too few images, and for distances
    alone of a task without a feature space.
    """
    task = load_task(task) if isinstance(task, str) else task
    names = [model.name for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two models are called '{twice[0]}': name them apart with --model NAME=PATH")
    images = load(task.dataset, root=root)
    _check_counts(task, tier, images, only)
    scored = scored_images_of(task, images)
    for model in models:
        check_pixels(model, scored)
    drawn = task.tier(tier).n_samples > 0 and ("quality" in only or "curve" in only)
    space = _space_of(task, tier, images, Path(out), device) if drawn else None
    bench = _Bench(task, tier, task.tier(tier), scored, space, Path(out), batch_size, allow_failures)
    results = bench.out / "results.jsonl"
    rows: list[Row] = []
    for model in models:
        rows += keep_rows(results, _measure(model, bench, only))
    contexts = [_context(model, bench) for model in models]
    return rows + keep_rows(results, paired_rows(contexts, bench.out, task.likelihood_split))


def _check_counts(task: Task, tier_name: str, images: ImageSet, only: Sequence[Measurement]) -> None:
    """Raise UserError where the split is too small for the tier, or nothing that is asked for is measured."""
    tier, total = task.tier(tier_name), len(images.split(task.likelihood_split))
    wanted = max(tier.nelbo_images, tier.floor_images)
    if total < wanted:
        raise UserError(
            f"task {task.identity(tier_name)} asks for {wanted} images and {task.dataset} has {total} in "
            f"{task.likelihood_split}: choose another tier; a protocol never shrinks by itself"
        )
    if not tier.n_samples and not set(only) & set(METHODS):
        raise UserError(
            f"task {task.identity(tier_name)} measures likelihoods only: "
            "ask for nelbo, iw or ode, or write a task file with an extractor"
        )


def _space_of(
    task: Task, tier_name: str, images: ImageSet, out: Path, device: torch.device | str
) -> _Space | None:
    """Return the feature space of a task that has one, and show data images beside the samples."""
    if task.extractor is None:
        return None
    seed = task.binarisation_seed
    extractor = load_extractor(task.extractor, images.image_shape, device=device)
    reference = reference_features(images, task.reference_split, seed, extractor)
    save_grid(
        data_images(images, task.reference_split, seed)[choose(reference.stats.moments.count, 100, seed)],
        out / "samples" / "data.png",
    )
    return _Space(extractor, reference, _floor(task, task.tier(tier_name), images, extractor, reference))


def _floor(task: Task, tier: Tier, images: ImageSet, extractor: Extractor, reference: Reference) -> str:
    """Return a remark on how far as many images of the likelihood split are from the reference."""
    if not tier.floor_images:
        return ""
    split, seed = task.likelihood_split, task.binarisation_seed
    held_out = reference_features(images, split, seed, extractor, rows=tier.floor_images)
    found = distances(held_out.stats, reference.stats)
    return (
        f"{tier.floor_images} {split} images are at Frechet {found.frechet.value:.3g}, "
        f"kernel {found.kernel.value:.2g}"
    )


def _context(model: GenerativeModel, bench: _Bench) -> Context:
    return Context(
        bench.task.identity(bench.tier_name),
        model.name,
        model.sha256,
        bench.scored.dataset,
        uuid.uuid4().hex[:12],
    )


def _measure(model: GenerativeModel, bench: _Bench, only: Sequence[Measurement]) -> list[Row]:
    """Return the rows of one model, measurement by measurement."""
    context, space = _context(model, bench), bench.space
    rows: list[Row] = []
    if "quality" in only and space:
        found = _quality(model, bench, space, context)
        rows += [row for row in found if row["group"] != "curve" or "curve" in only]
    for method in METHODS:
        if method in only:
            rows += _likelihood(model, bench, context, method)
    if "curve" in only and model.has_prior and space:
        for sampler in bench.tier.curve:
            rows += _curve(model, bench, space, context, sampler)
    return rows


def _quality(model: GenerativeModel, bench: _Bench, space: _Space, context: Context) -> list[Row]:
    tier, picture = bench.tier, bench.out / "samples" / f"{model.name}.png"
    seeds = range(tier.first_seed, tier.first_seed + tier.n_samples)

    def measure() -> list[Row]:
        drawn = generate(model, seeds, tier.sampler, space.extractor, batch_size=bench.batch_size)
        save_grid(drawn.preview, picture)
        cost = sampling(model, drawn, tier.sampler, seeds)
        shared = cost | {"split": bench.task.reference_split, "extractor": _named(space.extractor)}
        note = "; ".join(part for part in (space.floor, bench.task.note, remark_of(model)) if part)
        name = bench.task.feature_space
        rows = quality_rows(context, drawn, space.reference, name, shared, note)
        rows += cost_rows(context, model, drawn.nfe, drawn.seconds, drawn.counts, cost)
        if tier.curve and model.has_prior:
            rows += headline_point(context, drawn, space.reference, name, shared, tier.curve_samples)
        return rows

    settings = to_dict(tier.sampler) | {"n": tier.n_samples, "curve": tier.curve_samples}
    return _cell(model, bench, space, "quality", settings, measure, [picture])


def _likelihood(model: GenerativeModel, bench: _Bench, context: Context, method: Method) -> list[Row]:
    """Return the rows of one bound; images that were scored before are not scored again."""
    config = bench.tier.config_for(method, model.has_prior)
    count = bench.tier.images_for(method, model.has_prior)
    if not count:
        return []
    if why := why_missing(model, method):
        return missing_rows(context, config, bench.scored.split, why)
    return measure_likelihood(
        model,
        bench.scored,
        config,
        count,
        bench.out,
        context=context,
        batch_size=bench.batch_size,
        allow_failures=bench.allow_failures,
    )


def _curve(
    model: GenerativeModel, bench: _Bench, space: _Space, context: Context, sampler: SamplerConfig
) -> list[Row]:
    seeds = range(bench.tier.first_seed, bench.tier.first_seed + bench.tier.curve_samples)

    def measure() -> list[Row]:
        return curve_point(
            context,
            model,
            seeds,
            sampler,
            space.extractor,
            space.reference,
            bench.task.feature_space,
            split=bench.task.reference_split,
            batch_size=bench.batch_size,
        )

    settings = to_dict(sampler) | {"n": len(seeds), "shown": describe_sampler(sampler)}
    return _cell(model, bench, space, "curve", settings, measure)


def _named(extractor: Extractor) -> str:
    return f"{extractor.name}@{extractor.sha256}"


def _cell(
    model: GenerativeModel,
    bench: _Bench,
    space: _Space,
    kind: str,
    settings: dict[str, Any],
    measure: Callable[[], list[Row]],
    files: Sequence[Path] = (),
) -> list[Row]:
    """Return the rows of one cell, from the store where nothing that it depends on has changed."""
    package = type(model).__module__.split(".")[0]
    key = cell_key(
        {
            "kind": kind,
            "model": [model.name, model.sha256],
            "task": {**to_dict(bench.task), "tiers": bench.tier_name},
            "settings": settings | {"first_seed": bench.tier.first_seed},
            "dataset": bench.scored.dataset,
            "reference": space.reference.sha256,
            "extractor": space.extractor.sha256,
            "code": code_version("lsgm", "lsgm_eval", package),
        }
    )
    return bench.cells.compute(key, measure, files)
