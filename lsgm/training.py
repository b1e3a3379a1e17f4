"""From a recipe to a trained run: data, networks, stages, engine. What `lsgm train` and the roads call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsgm.data import ImageSet, PixelPipeline, load, test_levels
from lsgm.data.source import make_source
from lsgm.errors import ConfigError
from lsgm.generative import Pixels
from lsgm.kinds import find_kind, recipe_from
from lsgm.models.load import checkpoint_meta, fresh_networks, initialise_from, initialise_vae_from
from lsgm.structure import completed_as_then, to_dict
from lsgm.train import Outcome, Run, StepTimer, train

__all__ = ["VALIDATION_LIMIT", "load_images", "pixels_of", "train_recipe"]

VALIDATION_LIMIT = 2000
"""Held-out images on which a run is validated while it trains."""


def load_images(recipe: Any) -> ImageSet:
    """Return the recipe's dataset; images by path are brought to the recipe's image size."""
    return load(recipe.data.dataset, image_size=recipe.data.size, convert=recipe.data.convert)


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


_ORIGINS = ("init_from", "init_vae_from")


def _as_begun(recipe: Any, run: Run) -> tuple[Any, dict[str, Any] | None]:
    """Return the recipe as the run goes on with it, and the settings that the run has; None for a new one.

    Settings that did not exist when a run was begun are what was the case then, whatever their default has
    become: a run ends as it began.
    """
    if not run.config_path.exists():
        return recipe, None
    saved = run.config()
    tables = {name: value for name, value in saved.items() if name not in _ORIGINS}
    try:
        begun = to_dict(recipe_from(tables, str(run.config_path), saved=True))
    except ConfigError:  # another version's: `Run.start` says which key differs
        return recipe, None
    then = completed_as_then(recipe, tables)
    origins = {name: saved[name] for name in _ORIGINS if name in saved}
    return recipe_from(then, str(run.config_path)), {**begun, **origins}


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
    run = Run(out)
    recipe, begun = _as_begun(recipe, run)
    pixels = pixels_of(images, recipe.data.bits)
    networks = fresh_networks(recipe, pixels)
    # Before the run directory is touched, so that a recipe that cannot be trained leaves none behind.
    stages = find_kind(recipe.kind).stages(recipe, networks)
    dataset = {"name": images.name, "version": images.version, "sha256": images.sha256}
    settings = to_dict(recipe)
    for name, origin, initialise in (
        ("init_from", init_from, initialise_from),
        ("init_vae_from", init_vae_from, initialise_vae_from),
    ):
        if origin is None:
            continue
        settings[name] = str(origin)
        if run.newest() is None:  # a run that goes on needs its origin no more
            initialise(networks, origin)
    run.start(settings, seed=recipe.seed, dataset=dataset, begun=begun)
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
    )
