"""Everything that a sweep needs before its first point: models that fit, images, feature spaces at hand."""

from __future__ import annotations

import glob
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from lsgm.config import SamplerConfig, require
from lsgm.distributed import World
from lsgm.errors import ConfigError, UserError, did_you_mean
from lsgm.files.names import file_name, shown
from lsgm.generative import GenerativeModel
from lsgm.structure import to_dict
from lsgm_eval.cost_curve.derive import derived_rows
from lsgm_eval.cost_curve.points import check_fit, curve_point, expected_nfe
from lsgm_eval.live.board import Step
from lsgm_eval.live.journal import Journal
from lsgm_eval.measure.quality import Drawing, describe_sampler
from lsgm_eval.measure.space import Space
from lsgm_eval.rows import Context, merge_rows, read_rows, write_rows
from lsgm_eval.run.evaluation import Evaluation
from lsgm_eval.run.runner import open_task, unlike_names
from lsgm_eval.spaces import FAMILIES, GIVES, family_of
from lsgm_eval.task import Task

__all__ = ["Sweep", "check_different", "check_metric", "forget", "one_statistic", "prepare", "sweep"]


def prepare(
    models: Sequence[GenerativeModel],
    task: Task,
    tier: str,
    ask: Sweep,
    out: Path,
    *,
    batch_size: int,
    world: World,
    insist: bool = False,
    references: Mapping[str, Path] | None = None,
    manifest: str | None = None,
) -> tuple[list[GenerativeModel], Evaluation]:
    """Return the models, ready images among them fitted to the task, and what they are measured with.

    Whatever is wrong is said before a feature is computed or an image drawn. Raises UserError for two models
    of one name or of other images than the task's, ConfigError for one model twice and for a sampler that the
    SDE of one does not fit, DataError where the weights of no feature space are at hand.
    """
    unlike_names(models)
    check_different(models)
    for model in models:
        if model.has_prior:
            check_fit(model, ask.points)
    if not task.spaces:
        raise UserError(f"task {task.name} has no feature space: name one with --extractor")
    require(ask.n >= 40, f"n is {ask.n}; a distance needs at least 40 images")
    limits = task.tier(tier)
    seeds = range(limits.first_seed, limits.first_seed + ask.n)
    opened = open_task(
        models, task, limits, seeds=lambda _: seeds, scores=0, draws=True, alone=True,
        world=world, references=references, insist=insist,
    )  # fmt: skip
    return opened.models, Evaluation(
        task, tier, limits, opened.data, opened.spaces, opened.closed,
        out, batch_size, False, world, "", manifest,
    )  # fmt: skip


# Measure the points of a sweep, each a resumable cell, and derive what they say together

Row = dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """What is asked of a sweep beside its models."""

    points: Sequence[SamplerConfig]
    n: int
    """Images of every point, of the same seeds for all points and models."""
    targets: Sequence[float] = ()
    time_budget: float | None = None
    """Seconds after which no further point is begun."""


def check_metric(name: str) -> str:
    """Return the family of a metric given by family (frechet) or in full (fid). Raises ConfigError."""
    family = name if name in FAMILIES else family_of(name)
    usable = [known for known in FAMILIES if known != "memorised"]
    if family is None or family not in usable:
        hint = did_you_mean(name, usable) or f"; give one of {', '.join(usable)}"
        raise ConfigError(f"there is no metric '{name}' to sweep{hint}")
    return family


def one_statistic(space: Space, family: str) -> Space:
    """Return the space with the one statistic that gives a family: all that a point of the sweep measures."""
    (statistic,) = [name for name, families in GIVES.items() if family in families]
    return replace(space, spec=replace(space.spec, statistics=(statistic,)), floor="")


def sweep(
    models: Sequence[GenerativeModel],
    bench: Evaluation,
    ask: Sweep,
    family: str,
    *,
    journal: Journal | None = None,
) -> list[Row]:
    """Return the rows of all points and of what follows from them, which ``results.jsonl`` holds too.

    The cheapest points of all models come first, so that an interrupted sweep is a coarse one of all models;
    each is written as soon as it is measured, and told of by ``journal``. Points of earlier calls are taken
    from their cells. Where the time budget is spent the points measured so far are derived from, and the
    same call goes on later. All processes of ``bench.world`` take part.
    """
    few = None if ask.n == bench.tier.curve_samples else ask.n
    task = bench.task.identity(bench.tier_name, limit=few)
    points = _Points(bench, ask, family, {m.name: replace(bench.context(m), task=task) for m in models})
    work = [(model, point) for point in ask.points for model in models if model.has_prior]
    levels = [(model, SamplerConfig()) for model in models if not model.has_prior]
    journal = journal or Journal()
    rows = journal.run(
        f"lsgm nfe {task}",
        [points.step(model, point) for model, point in levels + work],
        points.keep,
        seconds=ask.time_budget,
        agree=bench.world.on_main,
    )
    contexts = [points.contexts[model.name] for model in models]
    derived = bench.world.on_main(lambda: derived_rows(contexts, points.wanted(rows), ask.targets))
    points.keep(rows + derived)
    if bench.world.main and journal.board is not None and journal.board.left:
        left = len(journal.board.left)
        _say(f"time is up: {left} points are left, the same command goes on with them")
    return rows + derived


@dataclass(frozen=True)
class _Points:
    """What the points of one call share."""

    bench: Evaluation
    ask: Sweep
    family: str
    contexts: Mapping[str, Context]

    def wanted(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows of the metric that was asked for: others come with it."""
        names = {space.metric(self.family) for space in self.bench.spaces}
        return [row for row in rows if row["metric"] in names]

    def keep(self, rows: list[Row]) -> None:
        """Write rows; what earlier points said of the same models' costs to reach a quality is gone.

        What points of other data, in another space or by another metric said stays.
        """
        if not self.bench.world.main:
            return
        path = self.bench.out / "results.jsonl"
        old = read_rows(path) if path.exists() else []
        names = [*self.contexts, *(" / ".join(pair) for pair in combinations(self.contexts, 2))]
        about = {
            (context.task, context.dataset, name) for context in self.contexts.values() for name in names
        }
        spaces = {
            (space.metric(self.family), space.label, space.reference.sha256) for space in self.bench.spaces
        }

        def gone(row: Row) -> bool:
            # Rows of earlier versions have fewer keys.
            metric = re.split("[<>]=", row.get("target") or "")[0]
            return (
                row.get("group") == "reach"
                and (row.get("task"), row.get("dataset"), row.get("model")) in about
                and (metric, row.get("extractor"), row.get("reference_sha256")) in spaces
            )

        write_rows(path, merge_rows([row for row in old if not gone(row)], rows))

    def step(self, model: GenerativeModel, point: SamplerConfig) -> Step:
        """Return the measurement of one point: taken from its cell, or measured while there is time."""
        bench, how, shown = self.bench, self._drawing(model, point), describe_sampler(point)
        settings = to_dict(point) | {"n": self.ask.n, "family": self.family, "shown": shown}

        def of_this_call(rows: list[Row]) -> list[Row]:
            return [row | {"run_id": self.contexts[model.name].run_id} for row in rows]

        def finished() -> list[Row] | None:
            rows = bench.finished([model], "sweep", settings)
            return None if rows is None else of_this_call(rows)

        def measure() -> list[Row]:
            rows = bench.cell([model], "sweep", settings, lambda: self._point(model, how))
            bench.world.on_main(lambda: forget(how))
            return of_this_call(rows)

        name = shown if model.has_prior else "without a sampler"
        kind = "points" if model.has_prior else "levels"
        return Step(model.name, name, measure, finished, "points", kind, max(expected_nfe(point), 1.0))

    def _point(self, model: GenerativeModel, how: Drawing) -> list[Row]:
        # What is done once, as compiling and reserving memory, is no part of a point's seconds.
        model.sample([how.seeds[0]], replace(how.sampler, steps=min(how.sampler.steps, 5)))
        spaces = [one_statistic(space, self.family) for space in self.bench.spaces]
        context, split = self.contexts[model.name], self.bench.data.reference_split
        return curve_point(context, model, spaces, how, split)

    def _drawing(self, model: GenerativeModel, point: SamplerConfig) -> Drawing:
        bench, tier = self.bench, self.bench.tier
        name = hashlib.sha256(json.dumps(to_dict(point), sort_keys=True).encode()).hexdigest()[:12]
        state = bench.out / "passes" / f"{file_name(model.name)}-point-{name}.npz"
        seeds = range(tier.first_seed, tier.first_seed + self.ask.n)
        return Drawing(seeds, point, bench.batch_size, bench.world, state, overlap=False)


def forget(how: Drawing) -> None:
    """Remove what a pass has kept to go on from: its numbers are in the cell now."""
    if how.state is not None:
        for file in how.state.parent.glob(f"{glob.escape(how.state.stem)}*.npz"):
            file.unlink(missing_ok=True)


def _say(text: str) -> None:
    print(f"lsgm: {shown(text)}", file=sys.stderr, flush=True)


def check_different(models: Sequence[GenerativeModel]) -> None:
    """Raise ConfigError where two models are one: of the same weights there is nothing to compare."""
    seen: dict[str, str] = {}
    for model in models:
        require(
            model.sha256 not in seen,
            f"{seen.get(model.sha256)} and {model.name} are one model (their weights agree); give it once",
        )
        seen[model.sha256] = model.name
