"""From a recipe to a trained run: data, networks, stages, engine. What `lsgm train` and the roads call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsgm.data import ImageSet, PixelPipeline, load, test_levels
from lsgm.data.source import make_source
from lsgm.errors import DataError
from lsgm.generative import Pixels
from lsgm.kinds import find_kind
from lsgm.progress import say
from lsgm.runs.directory import Run
from lsgm.runs.load import checkpoint_meta, fresh_networks, initialise_from, initialise_vae_from
from lsgm.structure import to_dict
from lsgm.train.loop import train
from lsgm.train.resume import Begun, Origin, goes_on, is_extended, same_origin, tell
from lsgm.train.signals import StepTimer
from lsgm.train.stage import Outcome

__all__ = ["VALIDATION_LIMIT", "load_images", "pixels_of", "train_recipe"]

VALIDATION_LIMIT = 2000
"""Held-out images on which a run is validated while it trains."""


def load_images(recipe: Any) -> ImageSet:
    """Return the recipe's dataset; images by path are brought to the recipe's image size.

    Raises DataError as `lsgm.data.load` does, and for a single image.
    """
    images = load(recipe.data.dataset, image_size=recipe.data.size, convert=recipe.data.convert)
    if "train" not in images.splits:
        raise DataError(f"{recipe.data.dataset} is a single image: give a folder or zip of at least 3")
    return images


def _splits_of(images: ImageSet) -> str:
    """Return the sizes of the splits of images by path in a sentence, and what decided them."""
    channels, height, width = images.image_shape
    kind = "greyscale" if channels == 1 else "RGB"
    return f"{images.name}: {kind} images {height} high and {width} wide: {images.remark}"


def pixels_of(images: ImageSet, bits: int) -> Pixels:
    """Return what a model of these images scores: Bernoulli pixels, or levels of ``bits`` bits."""
    channels, height, width = images.image_shape
    if images.pixels == "binary":
        return Pixels(channels, height, width, "binary", 1)
    return Pixels(channels, height, width, "discrete", bits)


def validation_levels(images: ImageSet, pixels: Pixels) -> Tensor:
    """Return the held-out levels, carved from the training data: test data are for evaluation only."""
    return test_levels(images, "val", seed=0, bits=pixels.bits, limit=VALIDATION_LIMIT)


def _origin(init_from: Path | None, init_vae_from: Path | None) -> Origin | None:
    """Return whose weights a run is to start from."""
    options = (("init_from", init_from), ("init_vae_from", init_vae_from))
    return next((Origin.of(option, path) for option, path in options if path is not None), None)


def train_recipe(
    recipe: Any,
    out: Path,
    *,
    device: torch.device | str = "cpu",
    max_seconds: float | None = None,
    init_from: Path | None = None,
    init_vae_from: Path | None = None,
    tensorboard: bool = False,
    images: ImageSet | None = None,
    timer: StepTimer | None = None,
    max_steps: int | None = None,
) -> Outcome:
    """Train a recipe in a run directory, going on from its newest checkpoint; return how that ended.

    ``init_from`` gives a fresh run the averaged weights of another checkpoint, with fresh optimisers;
    ``init_vae_from`` those of its VAE alone, so that another prior can be trained on it.
    Raises ConfigError, DataError, CheckpointError and TrainingError, each one sentence.
    """
    images = images if images is not None else load_images(recipe)
    dataset = {"name": images.name, "version": images.version, "sha256": images.sha256}
    run, changes = Run(out), None
    if begun := Begun.of(run):
        recipe = begun.completed(recipe)
    pixels = pixels_of(images, recipe.data.bits)
    networks, kind = fresh_networks(recipe, pixels), find_kind(recipe.kind)
    # Before the run directory is touched, so that a recipe that cannot be trained leaves none behind.
    stages = kind.stages(recipe, networks)
    origin = _origin(init_from, init_vae_from)
    origins = {} if origin is None else {origin.option: str(origin.path)}
    if begun:
        recipe, changes = goes_on(recipe, begun, stages, dataset)
        origins, moved = same_origin(begun, origin)
        changes |= moved
        stages = kind.stages(recipe, networks)
    if run.newest() is not None:
        origin = None  # a run that goes on needs it no more
    if origin:
        initialise = initialise_from if origin.option == "init_from" else initialise_vae_from
        initialise(networks, origin.path)
    about = origin.as_dict() if origin else None
    settings = {**to_dict(recipe), **origins}
    run.start(settings, seed=recipe.seed, dataset=dataset, changes=changes, origin=about)
    for sentence in tell(run, recipe, changes or {}):
        say(sentence)
    return train(
        run,
        stages,
        make_source(images.split("train"), device),
        PixelPipeline.of(images, bits=pixels.bits, flip=recipe.data.flip),
        seed=recipe.seed,
        device=device,
        max_seconds=max_seconds,
        max_steps=max_steps,
        val_levels=validation_levels(images, pixels),
        meta=checkpoint_meta(recipe, pixels, images.identity),
        tensorboard=tensorboard,
        timer=timer,
        remark=_splits_of(images) if images.remark else "",
        extended=is_extended(changes or {}),
    )
