"""What is measured of a model under a task: sample quality, bounds, the NFE curve; and of two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from lsgm.config import SamplerConfig
from lsgm.errors import UserError
from lsgm.files.names import file_name
from lsgm.generative import GenerativeModel
from lsgm.sampling.keep import save_grid
from lsgm.structure import to_dict
from lsgm_eval.cost_curve.points import curve_point, expected_nfe, headline_point
from lsgm_eval.likelihood.bounds import Bound, measure_likelihood, scored_before, why_missing
from lsgm_eval.likelihood.rows import missing_rows, paired_rows
from lsgm_eval.live.board import Step
from lsgm_eval.measure.quality import (
    closed_rows,
    compare_models,
    cost_rows,
    describe_sampler,
    draw,
    neighbours_picture,
    sampling,
    space_rows,
    timing,
    unlike_counts,
)
from lsgm_eval.models.open import remark_of
from lsgm_eval.rows import Context
from lsgm_eval.run.evaluation import Evaluation
from lsgm_eval.samples.gather import Pass
from lsgm_eval.task import Method

__all__ = ["MEASUREMENTS", "METHODS", "Measurement", "steps_of"]

Row = dict[str, Any]
Measurement = Literal["quality", "nelbo", "iw", "ode", "curve"]
MEASUREMENTS: tuple[Measurement, ...] = ("quality", "nelbo", "iw", "ode", "curve")
METHODS: tuple[Method, ...] = ("nelbo", "iw", "ode")


def steps_of(models: Sequence[GenerativeModel], bench: Evaluation, only: Sequence[Measurement]) -> list[Step]:
    """Return all measurements of the models, one model after the other, then those of pairs of models."""
    contexts = {model.name: bench.context(model) for model in models}
    steps = [step for model in models for step in _model_steps(model, bench, contexts[model.name], only)]
    return steps + [_pair_step(pair, bench, contexts, only) for pair in combinations(models, 2)]


def _model_steps(
    model: GenerativeModel, bench: Evaluation, context: Context, only: Sequence[Measurement]
) -> list[Step]:
    steps: list[Step] = []
    drawn = bench.of_drawn(context)
    if "quality" in only and bench.draws:
        steps.append(_quality(model, bench, drawn, only))
    steps += [
        _likelihood(model, bench, context, method)
        for method in METHODS
        if method in only and bench.tier.images_for(method, model.has_prior)
    ]
    if "curve" in only and model.has_prior and bench.spaces:
        steps += [_curve(model, bench, drawn, sampler) for sampler in bench.tier.curve]
    return steps


def _work(model: GenerativeModel, sampler: SamplerConfig, count: int) -> tuple[str, float]:
    """Return the kind of drawing images, and how much of it that is, in evaluations."""
    if not model.has_prior:
        return "drawing at once", count
    try:
        return "drawing", count * expected_nfe(sampler)
    except UserError:  # a factory's own sampler
        return "drawing", count * sampler.steps


def _quality(
    model: GenerativeModel, bench: Evaluation, context: Context, only: Sequence[Measurement]
) -> Step:
    tier, how = bench.tier, bench.headline(model)
    name = file_name(model.name)
    grid = bench.out / "samples" / f"{name}.png"
    pairs = bench.out / "neighbours" / f"{name}{bench.tag}.png"
    settings = to_dict(tier.sampler) | {"n": len(how.seeds), "curve": tier.curve_samples}
    files = [grid, pairs, *([how.save] if how.save else [])]

    def asked(rows: list[Row]) -> list[Row]:
        return [row for row in rows if row["group"] != "curve" or "curve" in only]

    def gather() -> list[Row]:
        found = draw(model, bench.spaces, how)
        return bench.world.on_main(lambda: _tell(model, bench, context, found, grid, pairs))

    def finished() -> list[Row] | None:
        rows = bench.finished([model], "quality", settings)
        return None if rows is None else asked(rows)

    def measure() -> list[Row]:
        return asked(bench.cell([model], "quality", settings, gather, files))

    kind, work = _work(model, tier.sampler, len(how.seeds))
    return Step(model.name, "quality", measure, finished, "quality", kind, work)


def _tell(
    model: GenerativeModel, bench: Evaluation, context: Context, found: Pass, grid: Path, pairs: Path
) -> list[Row]:
    """Return the rows that one pass gives, and write the pictures that belong to them."""
    tier, how = bench.tier, bench.headline(model)
    save_grid(found.preview, grid)
    cost = sampling(model, found, how)
    shared = cost | {"split": bench.data.reference_split}
    note = "; ".join(part for part in (bench.task.note, remark_of(model)) if part)
    rows: list[Row] = []
    for space in bench.spaces:
        told, near = space_rows(context, found.of(space.extractor), space, shared, note)
        rows += told
        if near is not None:
            neighbours_picture(pairs, model, how, near, bench.training_images())
    rows += closed_rows(context, bench.closed, shared)
    rows += cost_rows(context, model, found.nfe, *timing(model, found, how), cost)
    if tier.curve and model.has_prior:
        rows += headline_point(context, found, bench.spaces, shared, tier.curve_samples)
    return rows


def _likelihood(model: GenerativeModel, bench: Evaluation, context: Context, method: Method) -> Step:
    """Return the measurement of one bound; images that were scored before are not scored again."""
    config = bench.tier.config_for(method, model.has_prior)
    count = bench.tier.images_for(method, model.has_prior)
    why = why_missing(model, method)
    scored = bench.data.scored
    if why or scored is None:
        # Of ready images with a number of their own nothing stands under the tier's name.
        drawn = bench.of_drawn(context)

        def missing() -> list[Row]:
            return missing_rows(drawn, config, bench.task.likelihood_split, why)

        return Step(model.name, method, missing, missing, method)
    bound = Bound(model, scored, config, count)

    def measure() -> list[Row]:
        return measure_likelihood(
            model,
            scored,
            config,
            count,
            bench.out,
            context=context,
            batch_size=bench.batch_size,
            world=bench.world,
            allow_failures=bench.allow_failures,
            variant=bench.tag,
        )

    def finished() -> list[Row] | None:
        return measure() if scored_before(bound, bench.out, bench.world) else None

    return Step(model.name, method, measure, finished, method, bound.kind, bound.work)


def _curve(model: GenerativeModel, bench: Evaluation, context: Context, sampler: SamplerConfig) -> Step:
    how, spaces = bench.point(model, sampler), [space.with_distances() for space in bench.spaces]
    shown = describe_sampler(sampler)
    settings = to_dict(sampler) | {"n": len(how.seeds), "shown": shown}

    def gather() -> list[Row]:
        return curve_point(context, model, spaces, how, bench.data.reference_split)

    return Step(
        model.name,
        f"curve {shown}",
        lambda: bench.cell([model], "curve", settings, gather),
        lambda: bench.finished([model], "curve", settings),
        "curve",
        *_work(model, sampler, len(how.seeds)),
    )


def _pair_step(
    pair: tuple[GenerativeModel, GenerativeModel],
    bench: Evaluation,
    contexts: Mapping[str, Context],
    only: Sequence[Measurement],
) -> Step:
    """Return the differences of two models: of their bounds and of their distances."""
    both = contexts[pair[0].name], contexts[pair[1].name]

    def measure() -> list[Row]:
        split = bench.task.likelihood_split
        rows = bench.world.on_main(lambda: paired_rows(both, bench.out, split, variant=bench.tag))
        if "quality" in only and bench.spaces:
            rows = rows + _difference(pair, bench, (bench.of_drawn(both[0]), bench.of_drawn(both[1])))
        return rows

    return Step(" - ".join(model.name for model in pair), "difference", measure, kind="difference")


def _difference(
    pair: Sequence[GenerativeModel], bench: Evaluation, contexts: tuple[Context, Context]
) -> list[Row]:
    """Return how two models' distances differ, of what was gathered of their images."""
    counts = [len(bench.headline(model).seeds) for model in pair]
    split = bench.data.reference_split
    if counts[0] != counts[1]:
        return unlike_counts(*contexts, (counts[0], counts[1]), bench.spaces, split)

    def measure() -> list[Row]:
        a, b = (draw(model, bench.spaces, bench.headline(model)) for model in pair)
        return bench.world.on_main(lambda: compare_models(*contexts, a, b, bench.spaces, split))

    settings = to_dict(bench.tier.sampler) | {"n": counts[0]}
    return bench.cell(pair, "difference", settings, measure)
