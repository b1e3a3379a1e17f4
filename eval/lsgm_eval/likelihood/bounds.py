"""The likelihood of a model on a task's images: scored through the store, kept per image, put into rows."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from lsgm.config import DensityConfig
from lsgm.distributed import World
from lsgm.errors import UserError
from lsgm.generative import GenerativeModel
from lsgm.structure import to_dict
from lsgm_eval.cache import cell_key, code_version
from lsgm_eval.images import ScoredImages, check_pixels
from lsgm_eval.likelihood.rows import estimator_label, likelihood_rows, missing_rows, paired_rows, scores_file
from lsgm_eval.likelihood.scores import SCORED, Scores, save_scores, score_images, solver_shift, solves_flow
from lsgm_eval.likelihood.store import ScoreStore, select_rows
from lsgm_eval.live.board import Step
from lsgm_eval.live.journal import Journal
from lsgm_eval.models.open import packages_of
from lsgm_eval.rows import Context, keep_rows

__all__ = ["Bound", "Plan", "measure_likelihood", "measure_plans", "scored_before", "why_missing"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """One method for all models of a call: under which protocol, and how each model is scored."""

    task: str
    """The task column of the rows, ``mnist@2/full-limit-100``."""
    estimators: tuple[DensityConfig, ...]
    """How each model's likelihood is bounded, all by one method."""
    counts: tuple[int, ...]
    """Images that each model is scored on; 0 where the method is no part of the tier for it."""
    variant: str = ""
    """What sets files of this protocol apart from the tier's own."""


def measure_plans(
    models: Sequence[GenerativeModel],
    images: ScoredImages,
    plans: Iterable[Plan],
    out: Path,
    *,
    world: World,
    batch_size: int,
    allow_failures: bool = False,
    manifest: str | None = None,
    journal: Journal | None = None,
) -> list[Row]:
    """Score every model by every plan, then each pair of models; rows go to ``out/results.jsonl`` at once.

    ``journal`` tells of what is finished.

    A bound that a model does not have is a row without a value that says why. All processes return the same
    numbers; the first one writes. Raises UserError where there is nothing to measure at all, for two models
    of one name, for models of other pixels than the task's, and what `score_images` raises.
    """
    plans = list(plans)
    names = [model.name for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two models are called '{twice[0]}': name them apart with NAME=PATH")
    reasons = [[_reason(model, plan, k) for k, model in enumerate(models)] for plan in plans]
    for model in models:
        check_pixels(model, images)
    if all(why for line in reasons for why in line):
        raise UserError(reasons[0][0])
    steps: list[Step] = []
    for plan, line in zip(plans, reasons, strict=True):
        asked = _Asked(images, plan, out, world, batch_size, allow_failures)
        contexts = [
            Context(plan.task, model.name, model.sha256, images.dataset, uuid.uuid4().hex[:12], manifest)
            for model in models
        ]
        steps += [asked.step(model, contexts[k], k, line[k]) for k, model in enumerate(models)]
        steps += asked.pairs([context for context, why in zip(contexts, line, strict=True) if not why])
    title = f"lsgm nll {', '.join(dict.fromkeys(plan.task for plan in plans))}"
    return (journal or Journal()).run(title, steps, lambda rows: _keep(rows, out, world))


@dataclass(frozen=True)
class _Asked:
    """What the measurements of one plan share."""

    images: ScoredImages
    plan: Plan
    out: Path
    world: World
    batch_size: int
    allow_failures: bool

    @property
    def method(self) -> str:
        return self.plan.estimators[0].method

    def step(self, model: GenerativeModel, context: Context, index: int, why: str) -> Step:
        """Return the measurement of one model's bound, or of its absence with the reason ``why``."""
        config, count = self.plan.estimators[index], self.plan.counts[index]
        bound = Bound(model, self.images, config, count)

        def measure() -> list[Row]:
            if why:
                return missing_rows(context, config, self.images.split, why)
            return measure_likelihood(
                model,
                self.images,
                config,
                count,
                self.out,
                context=context,
                batch_size=self.batch_size,
                world=self.world,
                allow_failures=self.allow_failures,
                variant=self.plan.variant,
            )

        def finished() -> list[Row] | None:
            return measure() if why or scored_before(bound, self.out, self.world) else None

        return Step(model.name, self.method, measure, finished, self.method, bound.kind, bound.work)

    def pairs(self, contexts: Sequence[Context]) -> list[Step]:
        """Return the differences of all pairs of models that have the bound."""

        def measure(pair: Sequence[Context]) -> list[Row]:
            methods, variant = [self.method], self.plan.variant
            return self.world.on_main(
                lambda: paired_rows(pair, self.out, self.images.split, methods=methods, variant=variant)
            )

        return [
            Step(
                " - ".join(context.model for context in pair), f"paired {self.method}", partial(measure, pair)
            )
            for pair in combinations(contexts, 2)
        ]


def _reason(model: GenerativeModel, plan: Plan, index: int) -> str:
    method = plan.estimators[index].method
    absent = f"{method} of {model.name} is no part of {plan.task}: give --limit N, or another --tier"
    return why_missing(model, method) or (absent if plan.counts[index] == 0 else "")


def _keep(measured: list[Row], out: Path, world: World) -> list[Row]:
    return keep_rows(out / "results.jsonl", measured) if world.main else measured


def why_missing(model: GenerativeModel, method: str) -> str:
    """Return why a model has no such bound, or an empty string where it has one."""
    if not callable(getattr(model, "density", None)):
        return f"{model.name} has no density: it draws images and bounds no likelihood"
    if method == "ode" and not model.has_prior:
        return f"{model.name} has a Normal prior, which has no probability flow: ask for nelbo or iw"
    return ""


@dataclass(frozen=True)
class Bound:
    """One model's bound on some images by one estimator."""

    model: GenerativeModel
    images: ScoredImages
    config: DensityConfig
    count: int

    @property
    def store(self) -> str:
        """The folder of its finished images, named after all that their numbers depend on."""
        return _key(self.model, self.images, self.config)[:16]

    def kept(self, out: Path) -> ScoreStore:
        """Return the store of its finished images below a folder of results."""
        return ScoreStore(out / "scores" / self.store, SCORED)

    @property
    def kind(self) -> str:
        """What its seconds may be compared with: the same estimator, through a flow or not."""
        return f"{self.config.method}{' of a prior' if self.model.has_prior else ''}"

    @property
    def work(self) -> float:
        """How much there is to do: draws, each of which costs the same."""
        times = self.config.draws if self.config.method == "nelbo" else 1
        return float(self.count * self.config.samples * times)


def scored_before(bound: Bound, out: Path, world: World) -> bool:
    """Return whether earlier calls have scored all images of a bound; the same on all processes."""

    def complete() -> bool:
        wanted = bound.images.order[: bound.count].numpy()
        done = select_rows(bound.kept(out).finished(), wanted)
        return bool(done) and len(done["rows"]) == bound.count

    return world.on_main(complete)


def measure_likelihood(
    model: GenerativeModel,
    images: ScoredImages,
    config: DensityConfig,
    count: int,
    out: Path,
    *,
    context: Context,
    batch_size: int,
    world: World | None = None,
    allow_failures: bool = False,
    variant: str = "",
) -> list[Row]:
    """Bound -log P(x) of the first ``count`` images of the seeded order and return the result rows.

    Images that ``out/scores`` holds are not scored again; every image's numbers then lie in
    ``out/per-image/<model>-<method><variant>.npz``. Where a flow was solved, the first few images are solved
    again, more finely: how far the bound moves is its solver error. On several processes all do this
    together, the first one writes, and all return the same numbers. Errors are those of `score_images`.
    """
    world = world or World(0, 1, torch.device("cpu"))

    def score(config: DensityConfig, count: int, title: str, *, spare: bool) -> Scores:
        store = Bound(model, images, config, count).kept(out)
        return score_images(
            model,
            images,
            config,
            count,
            batch_size=batch_size,
            store=store,
            world=world,
            allow_failures=spare,
            title=title,
        )

    scores = score(config, count, "", spare=allow_failures)
    shift = None
    if solves_flow(model, config):
        again = partial(score, title=f"{model.name}: {config.method} again", spare=True)
        shift = solver_shift(config, scores, again)
    if world.main:
        save_scores(
            scores_file(out, model.name, config.method, variant),
            scores,
            task=context.task,
            estimator=estimator_label(config, model),
            levels_sha256=images.levels_sha256,
            shift=shift,
        )
    return likelihood_rows(context, scores, model, images, config, shift)


def _key(model: GenerativeModel, images: ScoredImages, config: DensityConfig) -> str:
    """Return the hash of all that an image's number depends on; how many images are scored is no part."""
    return cell_key(
        {
            "model": model.sha256,
            "settings": {name: value for name, value in to_dict(config).items() if name != "at_once"},
            "dataset": images.dataset,
            "split": images.split,
            "levels": images.levels_sha256,
            "code": code_version("lsgm", "lsgm_eval", *packages_of(model)),
        }
    )
