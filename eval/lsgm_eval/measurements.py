"""What is measured of a model under a task: sample quality, bounds, the NFE curve; and of two models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from lsgm.config import SamplerConfig
from lsgm.generative import GenerativeModel
from lsgm.grid import save_grid
from lsgm.structure import to_dict
from lsgm_eval.evaluation import Evaluation
from lsgm_eval.likelihoods import measure_likelihood, why_missing
from lsgm_eval.measure.compared import compare_models
from lsgm_eval.measure.cost import cost_rows
from lsgm_eval.measure.curve import curve_point, headline_point
from lsgm_eval.measure.likelihood_rows import missing_rows
from lsgm_eval.measure.paired import paired_rows
from lsgm_eval.measure.quality import (
    as_distances,
    closed_rows,
    draw,
    neighbours_picture,
    sampling,
    space_rows,
    timing,
)
from lsgm_eval.measure.sampler_label import describe_sampler
from lsgm_eval.measure.space import Gathered
from lsgm_eval.model_specs import remark_of
from lsgm_eval.passes.run import Pass
from lsgm_eval.rows import Context
from lsgm_eval.tasks import Method

__all__ = ["MEASUREMENTS", "METHODS", "Measurement", "compared", "measure_model"]

Row = dict[str, Any]
Measurement = Literal["quality", "nelbo", "iw", "ode", "curve"]
MEASUREMENTS: tuple[Measurement, ...] = ("quality", "nelbo", "iw", "ode", "curve")
METHODS: tuple[Method, ...] = ("nelbo", "iw", "ode")


def measure_model(model: GenerativeModel, bench: Evaluation, only: Sequence[Measurement]) -> list[Row]:
    """Return the rows of one model, measurement by measurement."""
    context = bench.context(model)
    rows: list[Row] = []
    if "quality" in only and bench.draws:
        found = _quality(model, bench, context)
        rows += [row for row in found if row["group"] != "curve" or "curve" in only]
    for method in METHODS:
        if method in only:
            rows += _likelihood(model, bench, context, method)
    if "curve" in only and model.has_prior and bench.spaces:
        for sampler in bench.tier.curve:
            rows += _curve(model, bench, context, sampler)
    return rows


def _quality(model: GenerativeModel, bench: Evaluation, context: Context) -> list[Row]:
    tier, how = bench.tier, bench.headline(model)
    grid, pairs = (bench.out / folder / f"{model.name}.png" for folder in ("samples", "neighbours"))

    def measure() -> list[Row]:
        found = draw(model, bench.spaces, how)
        return bench.world.on_main(lambda: _tell(model, bench, context, found, grid, pairs))

    settings = to_dict(tier.sampler) | {"n": tier.n_samples, "curve": tier.curve_samples}
    return bench.cell([model], "quality", settings, measure, [grid, pairs, *([how.save] if how.save else [])])


def _tell(
    model: GenerativeModel, bench: Evaluation, context: Context, found: Pass, grid: Path, pairs: Path
) -> list[Row]:
    """Return the rows that one pass gives, and write the pictures that belong to them."""
    tier, how = bench.tier, bench.headline(model)
    save_grid(found.preview, grid)
    cost = sampling(model, found, how)
    shared = cost | {"split": bench.task.reference_split}
    note = "; ".join(part for part in (bench.task.note, remark_of(model)) if part)
    rows: list[Row] = []
    for space in bench.spaces:
        told, near = space_rows(context, Gathered.of(found, space.extractor), space, shared, note)
        rows += told
        if near is not None:
            neighbours_picture(pairs, model, how, near, bench.training_images())
    rows += closed_rows(context, bench.closed, shared)
    rows += cost_rows(context, model, found.nfe, *timing(model, found, how), cost)
    if tier.curve and model.has_prior:
        rows += headline_point(context, found, bench.spaces, shared, tier.curve_samples)
    return rows


def _likelihood(model: GenerativeModel, bench: Evaluation, context: Context, method: Method) -> list[Row]:
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
        world=bench.world,
        allow_failures=bench.allow_failures,
    )


def _curve(model: GenerativeModel, bench: Evaluation, context: Context, sampler: SamplerConfig) -> list[Row]:
    how, spaces = bench.point(model, sampler), [as_distances(space) for space in bench.spaces]

    def measure() -> list[Row]:
        return curve_point(context, model, spaces, how, bench.task.reference_split)

    settings = to_dict(sampler) | {"n": len(how.seeds), "shown": describe_sampler(sampler)}
    return bench.cell([model], "curve", settings, measure)


def compared(models: Sequence[GenerativeModel], bench: Evaluation, only: Sequence[Measurement]) -> list[Row]:
    """Return the differences of all pairs of models: of their bounds and of their distances."""
    contexts = [bench.context(model) for model in models]
    split = bench.task.likelihood_split
    rows = bench.world.on_main(lambda: paired_rows(contexts, bench.out, split))
    if "quality" in only and bench.spaces:
        for first, second in combinations(models, 2):
            rows += _difference(first, second, bench)
    return rows


def _difference(first: GenerativeModel, second: GenerativeModel, bench: Evaluation) -> list[Row]:
    """Return how two models' distances differ, of what was gathered of their images."""

    def measure() -> list[Row]:
        a, b = (draw(model, bench.spaces, bench.headline(model)) for model in (first, second))
        contexts = bench.context(first), bench.context(second)
        return bench.world.on_main(
            lambda: compare_models(*contexts, a, b, bench.spaces, bench.task.reference_split)
        )

    settings = to_dict(bench.tier.sampler) | {"n": bench.tier.n_samples}
    return bench.cell([first, second], "difference", settings, measure)
