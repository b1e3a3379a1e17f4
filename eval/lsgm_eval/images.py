"""The images of a task: those that distances are measured to, and those that likelihoods are measured on.

The latter are binarised once, hashed, and taken in a seeded order.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lsgm.data import test_levels
from lsgm.data.images import ImageSet, sha256_of
from lsgm.errors import DataError, UserError
from lsgm.generative import GenerativeModel, Pixels
from lsgm_eval.samples.reference import choose
from lsgm_eval.task import Task


@dataclass(frozen=True)
class ScoredImages:
    """A split as levels, and which rows a smaller measurement takes."""

    dataset: str
    """``name@version@sha256`` of the images before binarisation."""
    split: str
    pixels: Pixels
    levels: Tensor
    """uint8 [N, C, H, W]."""
    levels_sha256: str
    """Of `levels`: two runs with the same hash saw the same bits."""
    order: Tensor
    """All row numbers, int64 [N], in a seeded order: a measurement of n images takes the first n."""
    binarisation_seed: int | None = None
    """Seed by which grey values became bits; None where levels are more than two, or were bits already."""


def scored_images_of(task: Task, images: ImageSet) -> ScoredImages:
    """Return the likelihood split of a task's images (`lsgm_eval.run.runner.task_images`).

    Raises DataError where they give other levels than the task knows of them.
    """
    levels = test_levels(images, task.likelihood_split, task.binarisation_seed, bits=task.bits)
    sha256 = sha256_of(levels)
    known = task.levels.get(images.sha256, sha256)
    if sha256 != known:
        raise DataError(
            f"the {task.likelihood_split} levels of {images.identity} have sha256 {sha256} and task "
            f"{task.name}@{task.version} knows them as {known}: numbers of other bits are not comparable; "
            "update lsgm-bench and numpy, or correct [levels] in a task file of your own"
        )
    raw = images.split(task.likelihood_split)
    binarised = images.pixels == "binary" and bool(((raw > 0) & (raw < 255)).any())
    return ScoredImages(
        dataset=images.identity,
        split=task.likelihood_split,
        pixels=_pixels(task, images),
        levels=levels,
        levels_sha256=sha256,
        order=choose(len(levels), len(levels), task.binarisation_seed),
        binarisation_seed=task.binarisation_seed if binarised else None,
    )


def _pixels(task: Task, images: ImageSet) -> Pixels:
    if images.pixels != "binary":
        return Pixels(*images.image_shape, "discrete", task.bits or images.bits)
    if task.bits is not None:
        raise UserError(f"task {task.name} sets bits, and the pixels of {images.name} are binary: remove it")
    return Pixels(*images.image_shape, "binary", 1)


@dataclass(frozen=True)
class TaskImages:
    """What an evaluation knows of its images; without any of them, what files of statistics are of."""

    dataset: str
    """``name@version@sha256``, the dataset column of its rows."""
    pixels: Pixels
    reference_split: str | None
    """Distances are measured to it; None where a file does not say what its statistics are of."""
    training_split: str | None = None
    """The part of it that likelihoods are not measured on: what a model may have been trained on."""
    images: ImageSet | None = None
    scored: ScoredImages | None = None
    """None where no likelihood is asked for."""


def task_data(task: Task, images: ImageSet, *, scores: bool) -> TaskImages:
    """Return what a task takes of an image set.

    Where the set was split by hash alone, distances are measured to all images that were given for the
    task's reference, a flat folder to all of it: which 90 % of them a hash would choose means nothing. A set
    that could not be split is one, too. With ``scores`` the likelihood split is made ready. Raises as
    `scored_images_of`.
    """
    reference = task.reference_split.split("+")
    if len(images.splits) == 1:  # of a path, with nothing in it to split
        reference = list(images.splits)
    if images.carved and set(reference) <= set(images.splits):
        reference = [name for name in images.splits if name in (*reference, *images.carved)]
    training = [name for name in reference if name != task.likelihood_split]
    return TaskImages(
        images.identity,
        _pixels(task, images),
        "+".join(reference),
        "+".join(training) or None,
        images,
        scored_images_of(task, images) if scores else None,
    )


def check_pixels(model: GenerativeModel, images: ScoredImages | TaskImages) -> None:
    """Raise UserError unless a model gives probabilities to just the images of a task."""
    have, want = model.pixels, images.pixels
    if (have.shape, have.levels) == (want.shape, want.levels) and have.kind == want.kind:
        return
    advice = "choose the task that it was trained for"
    if (have.shape, have.kind) == (want.shape, want.kind):
        advice = f"choose a task of {have.bits} bits, or write one to a TOML file with bits = {have.bits}"
    raise UserError(
        f"{model.name} makes {_described(have)} images and the task needs {_described(want)} ones "
        f"({images.dataset.partition('@')[0]}): {advice}"
    )


def _described(pixels: Pixels) -> str:
    kind = "binary" if pixels.kind == "binary" else f"{pixels.bits}-bit"
    return f"{'x'.join(map(str, pixels.shape))} {kind}"
