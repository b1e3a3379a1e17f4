"""Everything that a sweep needs before its first point: models that fit, images, feature spaces at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lsgm.config import require
from lsgm.distributed import World
from lsgm.errors import DataError, UserError
from lsgm.generative import GenerativeModel
from lsgm_eval.evaluation import Evaluation
from lsgm_eval.extractors.weights import require_weights
from lsgm_eval.images import check_pixels, scored_images_of
from lsgm_eval.open_spaces import open_spaces
from lsgm_eval.runner import task_images, unlike_names
from lsgm_eval.sources import fit
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
    require_weights([space.extractor for space in task.spaces])
    require(ask.n >= 40, f"n is {ask.n}; a distance needs at least 40 images")
    images = task_images(task, models)
    scored = scored_images_of(task, images)
    limits = task.tier(tier)
    fitted = [fit(model, scored.pixels, limits.first_seed + ask.n) for model in models]
    for model in fitted:
        check_pixels(model, scored)
    spaces, closed = open_spaces(task, limits, images, world=world, given=references, insist=insist)
    if not spaces:
        raise DataError(closed[0].why)
    return fitted, Evaluation(
        task, tier, limits, images, scored, spaces, closed, out, batch_size, False, world, "", manifest
    )
