"""Evaluate models under a task: every measurement is a cell that is computed once and reused afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from lsgm.data import ImageSet, dataset_names, load
from lsgm.distributed import World
from lsgm.errors import ConfigError, DataError, UserError
from lsgm.generative import GenerativeModel
from lsgm.grid import save_grid
from lsgm_eval.evaluation import Evaluation
from lsgm_eval.images import check_pixels, scored_images_of
from lsgm_eval.live.journal import Journal
from lsgm_eval.measure.space import Space
from lsgm_eval.measurements import MEASUREMENTS, METHODS, Measurement, steps_of
from lsgm_eval.open_spaces import export_references, open_spaces
from lsgm_eval.reference import choose, data_images
from lsgm_eval.rows import keep_rows
from lsgm_eval.sources import fit
from lsgm_eval.spaces import Closed
from lsgm_eval.tasks import Task, load_task

__all__ = ["MEASUREMENTS", "Measurement", "evaluate", "task_images", "unlike_names"]

Row = dict[str, Any]


def evaluate(
    models: Sequence[GenerativeModel],
    task: Task | str,
    tier: str,
    out: Path,
    *,
    only: Sequence[Measurement] = MEASUREMENTS,
    batch_size: int = 250,
    world: World | None = None,
    root: Path | None = None,
    allow_failures: bool = False,
    references: Mapping[str, Path] | None = None,
    insist: bool = False,
    save: Literal["", "png", "npz"] = "",
    export_reference: Path | None = None,
    manifest: str | None = None,
    journal: Journal | None = None,
) -> list[Row]:
    """Measure models under one task and return their rows, which ``out/results.jsonl`` holds then.

    A measurement's rows are written as soon as it is finished, and ``journal`` tells of it. Beside the rows
    lie ``samples/*.png``, ``neighbours/*.png``, ``per-image/*.npz``, what was gathered of the images in
    ``passes``, and the finished cells; rows of other models already in the file stay. Interrupted, the same
    call goes on where it was. With ``allow_failures`` images whose likelihood cannot be told are left out,
    which their rows state. ``references`` and ``insist`` are those of `open_spaces`. With ``save`` all images
    of the headline's numbers are kept below ``out/images``; ``export_reference`` is a folder for the
    references' statistics.

    Raises UserError for models that make other images than the task's, for two models of one name, for too
    few images, and for distances alone of a task without a feature space.
    """
    task = load_task(task) if isinstance(task, str) else task
    world = world or World(0, 1, torch.device("cpu"))
    unlike_names(models)
    images = task_images(task, models, root)
    _check_counts(task, tier, images, only)
    scored = scored_images_of(task, images)
    count = task.tier(tier).first_seed + task.tier(tier).n_samples
    models = [fit(model, scored.pixels, count) for model in models]
    for model in models:
        check_pixels(model, scored)
    spaces, closed = _spaces_of(task, tier, images, only, Path(out), world, references, insist)
    bench = Evaluation(
        task, tier, task.tier(tier), images, scored, spaces, closed,
        Path(out), batch_size, allow_failures, world, save, manifest,
    )  # fmt: skip
    if export_reference is not None and world.main:
        export_references(spaces, f"{images.identity} {task.reference_split}", export_reference)
    title = f"lsgm eval {task.identity(tier)}"
    return (journal or Journal()).run(title, steps_of(models, bench, only), lambda rows: _keep(bench, rows))


def unlike_names(models: Sequence[GenerativeModel]) -> None:
    """Raise UserError where two models bear one name."""
    names = [model.name for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two models are called '{twice[0]}': name them apart with --model NAME=PATH")


def task_images(task: Task, models: Sequence[GenerativeModel], root: Path | None = None) -> ImageSet:
    """Return the task's images; those of a folder, a zip or a file at the size of the models'.

    Raises ConfigError for a task without a data set, DataError where the data are not there.
    """
    if not task.dataset:
        raise ConfigError(f"task {task.name} has no data set of its own: name a folder or zip by --data")
    if task.dataset in dataset_names() or not models:
        return load(task.dataset, root=root)
    pixels = models[0].pixels
    return load(task.dataset, root=root, image_size=(pixels.height, pixels.width))


def _keep(bench: Evaluation, rows: list[Row]) -> list[Row]:
    return keep_rows(bench.out / "results.jsonl", rows) if bench.world.main else rows


def _check_counts(task: Task, tier_name: str, images: ImageSet, only: Sequence[Measurement]) -> None:
    """Raise UserError where the split is too small for the tier, or nothing that is asked for is measured."""
    tier = task.tier(tier_name)
    for split, wanted in (
        (task.likelihood_split, max(tier.nelbo_images, tier.floor_images)),
        (task.reference_split, tier.reference_images),
    ):
        total = len(images.split(split)) if wanted else 0
        if total < wanted:
            raise UserError(
                f"task {task.identity(tier_name)} asks for {wanted} images and {task.dataset} has {total} in "
                f"{split}: choose another tier; a protocol never shrinks by itself"
            )
    if not tier.n_samples and not set(only) & set(METHODS):
        raise UserError(
            f"task {task.identity(tier_name)} measures likelihoods only: "
            "ask for nelbo, iw or ode, or write a task file with a feature space"
        )


def _spaces_of(
    task: Task,
    tier_name: str,
    images: ImageSet,
    only: Sequence[Measurement],
    out: Path,
    world: World,
    references: Mapping[str, Path] | None,
    insist: bool,
) -> tuple[Sequence[Space], Sequence[Closed]]:
    """Return the feature spaces where images are drawn, and show data images beside the samples."""
    tier = task.tier(tier_name)
    if not tier.n_samples or not {"quality", "curve"} & set(only):
        return (), ()
    spaces, closed = open_spaces(task, tier, images, world=world, given=references, insist=insist)
    if not spaces and not set(only) & set(METHODS):
        raise DataError(closed[0].why)
    if world.main:
        shown = data_images(images, task.reference_split, task.binarisation_seed)
        save_grid(shown[choose(len(shown), 100, task.binarisation_seed)], out / "samples" / "data.png")
    return spaces, closed
