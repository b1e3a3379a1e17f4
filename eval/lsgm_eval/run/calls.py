"""Calls that measure, each a list of steps for the runner: `lsgm eval`, `lsgm nll` and `lsgm nfe`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Literal

from lsgm.config import SamplerConfig, require, require_seeds
from lsgm.distributed import ALONE, World
from lsgm.errors import UserError
from lsgm.generative import GenerativeModel
from lsgm.logs import log
from lsgm.results import Row
from lsgm.sampling.keep import save_grid
from lsgm_eval.cost_curve.points import check_fit
from lsgm_eval.cost_curve.reach import derived_rows
from lsgm_eval.images import ScoredImages, TaskImages, check_pixels
from lsgm_eval.run.plan import export_references, open_task, unlike_names
from lsgm_eval.run.runner import Runner
from lsgm_eval.run.steps import (
    MEASUREMENTS,
    METHODS,
    Evaluation,
    Measurement,
    Protocol,
    bound_step,
    curve_step,
    drawn_seeds,
    pair_step,
    point_step,
    quality_step,
)
from lsgm_eval.samples.reference import choose, data_images
from lsgm_eval.task import Images, Task, load_task


def evaluate(
    models: Sequence[GenerativeModel],
    task: Task | str,
    tier: str,
    out: Path,
    *,
    only: Sequence[Measurement] = MEASUREMENTS,
    batch_size: int = 250,
    world: World = ALONE,
    allow_failures: bool = False,
    references: Mapping[str, Path] | None = None,
    insist: bool = False,
    save: Literal["", "png", "npz"] = "",
    export_reference: Path | None = None,
    images: Images | None = None,
    first_seed: int | None = None,
    runner: Runner | None = None,
) -> list[Row]:
    """Measure models under one task and return their rows, which ``out/results.jsonl`` holds then.

    A measurement's rows are written as soon as it is finished. Beside them lie ``samples/*.png``,
    ``neighbours/*.png``, ``per-image/*.npz``, what was gathered of the images in ``passes``, and the finished
    cells; rows of other models already in the file stay. Interrupted, the same call goes on where it was.
    With ``allow_failures`` images whose likelihood cannot be told are left out, which their rows state.
    ``references`` and ``insist`` are those of `open_task`. With ``save`` all images of the headline's numbers
    are kept below ``out/images``; ``export_reference`` is a folder for the references' statistics. ``images``
    draws that many in the place of the tier's number, or all of ready images, and ``first_seed`` begins at
    another seed: the task of rows of drawn images says both, and bounds know nothing of either.

    Raises UserError for models that make other images than the task's, for two models of one name, for too
    few images, and for distances alone of a task without a feature space.
    """
    task = load_task(task) if isinstance(task, str) else task
    unlike_names(models)
    seed = task.tier(tier).other_seed(first_seed)
    wanted = task.tier(tier).drawing(images, seed)
    methods = [method for method in METHODS if method in only]
    if not wanted.n_samples and not methods:
        raise UserError(
            f"task {task.identity(tier)} measures likelihoods only: "
            "ask for nelbo, iw or ode, or write a task file with a feature space"
        )
    protocols = [
        Protocol(
            task.identity(tier),
            tuple(wanted.config_for(method, model.has_prior) for model in models),
            tuple(wanted.images_for(method, model.has_prior) for model in models),
            again={"only": (method,)},
        )
        for method in methods
    ]
    asked = [(protocol, k) for protocol in protocols for k in range(len(models))]
    fitted, data, spaces, closed = open_task(
        models, task, wanted,
        seeds=lambda model: drawn_seeds(model, wanted, images),
        scores=max((p.counts[k] for p, k in asked if not p.why_missing(models[k], k)), default=0),
        draws=bool(wanted.n_samples and {"quality", "curve"} & set(only)),
        alone=not methods,
        world=world, references=references, insist=insist,
    )  # fmt: skip
    bench = Evaluation(
        task, tier, wanted, data, spaces, closed, Path(out), batch_size, world,
        allow_failures, save, images, seed,
    )  # fmt: skip
    if world.main:
        if bench.draws and data.images is not None and data.reference_split is not None:
            # Some images of the data, drawn at random, to stand beside the samples.
            found = data_images(data.images, data.reference_split, task.binarisation_seed)
            some = found[choose(len(found), 100, task.binarisation_seed)]
            save_grid(some, bench.out / "samples" / f"data{bench.tag}.png")
        if export_reference is not None:
            export_references(spaces, f"{data.dataset} {data.reference_split}", export_reference)
    steps, contexts = [], [bench.context(model) for model in fitted]
    for k, (model, context) in enumerate(zip(fitted, contexts, strict=True)):
        drawn = bench.of_drawn(context)
        if "quality" in only and bench.draws:
            steps.append(quality_step(model, bench, drawn, curve="curve" in only))
        for protocol in protocols:
            if protocol.counts[k]:
                steps.append(bound_step(model, k, replace(protocol, variant=bench.tag), bench, context))
        if "curve" in only and model.has_prior and bench.spaces:
            steps += [curve_step(model, bench, drawn, sampler) for sampler in wanted.curve]
    for pair, both in zip(combinations(fitted, 2), combinations(contexts, 2), strict=True):
        steps.append(pair_step(pair, bench, both, quality="quality" in only))
    title = f"lsgm eval {task.identity(tier, images=images, seed=seed)}"
    return (runner or Runner(bench.out, world)).run(title, steps)


def score(
    models: Sequence[GenerativeModel],
    images: ScoredImages,
    task: Task,
    tier: str,
    protocols: Sequence[Protocol],
    out: Path,
    *,
    world: World,
    batch_size: int,
    allow_failures: bool = False,
    runner: Runner | None = None,
) -> list[Row]:
    """Score every model by every protocol, then each pair of models; ``out/results.jsonl`` holds the rows.

    A bound that a model does not have is a row without a value that says why. Raises UserError where there is
    nothing to measure at all, for two models of one name, for models of other pixels than the task's, and
    what `lsgm_eval.likelihood.scores.score_images` raises.
    """
    unlike_names(models)
    for model in models:
        check_pixels(model, images)
    reasons = [[protocol.why_missing(model, k) for k, model in enumerate(models)] for protocol in protocols]
    if all(why for line in reasons for why in line):
        raise UserError(reasons[0][0])
    data = TaskImages(images.dataset, images.pixels, None, scored=images)
    bench = Evaluation(task, tier, task.tier(tier), data, (), (), out, batch_size, world, allow_failures)
    steps = []
    for protocol, line in zip(protocols, reasons, strict=True):
        contexts = [bench.context(model, protocol.task) for model in models]
        steps += [
            bound_step(model, k, protocol, bench, context)
            for k, (model, context) in enumerate(zip(models, contexts, strict=True))
        ]
        there = [(models[k], contexts[k]) for k, why in enumerate(line) if not why]
        for (a, first), (b, second) in combinations(there, 2):
            steps.append(pair_step((a, b), bench, (first, second), protocol))
    title = f"lsgm nll {', '.join(dict.fromkeys(protocol.task for protocol in protocols))}"
    return (runner or Runner(out, world)).run(title, steps)


def sweep(
    models: Sequence[GenerativeModel],
    task: Task,
    tier: str,
    points: Sequence[SamplerConfig],
    n: int,
    out: Path,
    *,
    family: str = "frechet",
    targets: Sequence[float] = (),
    batch_size: int = 250,
    world: World = ALONE,
    insist: bool = False,
    references: Mapping[str, Path] | None = None,
    seconds: float | None = None,
    first_seed: int | None = None,
    runner: Runner | None = None,
) -> list[Row]:
    """Measure ``n`` images of every model at every point, by the same seeds, and what follows from them.

    The cheapest points of all models come first, so that an interrupted sweep is a coarse one of all models.
    Points of earlier calls are taken from their cells. After ``seconds`` no further point is begun, what was
    measured so far is derived from, and the same call goes on later. All processes of ``world`` take part.
    ``references`` and ``insist`` are those of `open_task`, ``first_seed`` is that of `evaluate`.

    Whatever is wrong is said before a feature is computed or an image drawn. Raises UserError for two models
    of one name or of other images than the task's, ConfigError for one model twice and for a sampler that the
    SDE of one does not fit, DataError where the weights of no feature space are at hand.
    """
    unlike_names(models)
    seen: dict[str, str] = {}
    for model in models:
        require(
            model.sha256 not in seen,
            f"{seen.get(model.sha256)} and {model.name} are one model (their weights agree); give it once",
        )
        seen[model.sha256] = model.name
        if model.has_prior:
            check_fit(model, points)
    if not task.spaces:
        raise UserError(f"task {task.name} has no feature space: name one with --extractor")
    require(n >= 40, f"n is {n}; a distance needs at least 40 images")
    seed = task.tier(tier).other_seed(first_seed)
    limits = task.tier(tier) if seed is None else replace(task.tier(tier), first_seed=seed)
    require_seeds(limits.first_seed, n, "first-seed")
    seeds = range(limits.first_seed, limits.first_seed + n)
    fitted, data, spaces, closed = open_task(
        models, task, limits, seeds=lambda _: seeds, scores=0, draws=True, alone=True,
        world=world, references=references, insist=insist,
    )  # fmt: skip
    bench = Evaluation(task, tier, limits, data, spaces, closed, out, batch_size, world)
    protocol = task.identity(tier, limit=None if n == limits.curve_samples else n, seed=seed)
    contexts = {model.name: bench.context(model, protocol) for model in fitted}
    names = {*contexts, *(" / ".join(pair) for pair in combinations(contexts, 2))}
    measured = {(space.metric(family), space.label, space.reference.sha256) for space in spaces}

    def gone(row: Row) -> bool:
        # What earlier points of these models gave; what points of other data or spaces said stays.
        about = (re.split("[<>]=", row.target or "")[0], row.extractor, row.reference_sha256)
        ours = row.model in names and (row.task, row.dataset) == (protocol, data.dataset)
        return row.group == "reach" and ours and about in measured

    work = [(model, SamplerConfig()) for model in fitted if not model.has_prior]
    work += [(model, point) for point in points for model in fitted if model.has_prior]
    steps = [point_step(model, bench, contexts[model.name], point, n, family) for model, point in work]
    runner = runner or Runner(out, world)
    rows = runner.run(f"lsgm nfe {protocol}", steps, seconds=seconds, gone=gone)
    metrics = {space.metric(family) for space in spaces}
    wanted = [row for row in rows if row.metric in metrics]  # others come with it
    derived = world.on_main(lambda: derived_rows(list(contexts.values()), wanted, targets))
    derived = runner.signed(derived, list(contexts), lambda row: {})
    runner.keep(rows + derived, gone)
    runner.track(derived)
    if world.main and runner.board is not None and (left := len(runner.board.left)):
        log.warning(f"time is up: {left} points are left, the same command goes on with them")
    return rows + derived
