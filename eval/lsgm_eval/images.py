"""The images that a task's likelihoods are measured on: binarised once, hashed, in a seeded order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lsgm.data import load, test_levels
from lsgm.data.images import ImageSet, sha256_of
from lsgm.generative import Pixels
from lsgm_eval.reference import choose
from lsgm_eval.tasks import Task

__all__ = ["ScoredImages", "scored_images", "scored_images_of"]


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


def scored_images(task: Task, *, root: Path | None = None) -> ScoredImages:
    """Return the likelihood split of a task. Raises DataError where the data are not there."""
    return scored_images_of(task, load(task.dataset, root=root))


def scored_images_of(task: Task, images: ImageSet) -> ScoredImages:
    """Return the likelihood split of an image set that is loaded already."""
    levels = test_levels(images, task.likelihood_split, task.binarisation_seed)
    channels, height, width = images.image_shape
    return ScoredImages(
        dataset=images.identity,
        split=task.likelihood_split,
        pixels=Pixels(
            channels,
            height,
            width,
            "binary" if images.pixels == "binary" else "discrete",
            images.bits,
        ),
        levels=levels,
        levels_sha256=sha256_of(levels),
        order=choose(len(levels), len(levels), task.binarisation_seed),
    )
