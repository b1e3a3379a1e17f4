"""Everything that a sweep needs before its first point: models that fit, images, feature spaces at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lsgm.config import require
from lsgm.distributed import World
from lsgm.errors import UserError
from lsgm.generative import GenerativeModel
from lsgm_eval.evaluation import Evaluation
from lsgm_eval.runner import open_task, unlike_names
from lsgm_eval.sweep.plan import check_fit
from lsgm_eval.sweep.run import Sweep, check_different
from lsgm_eval.tasks import Task

__all__ = ["prepare"]


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
