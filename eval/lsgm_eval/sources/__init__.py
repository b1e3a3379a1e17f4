"""Images made elsewhere as models for the harness: a folder, a zip, an npz or npy of ready images."""

from __future__ import annotations

from pathlib import Path

from lsgm.data import is_images, open_images
from lsgm.generative import GenerativeModel, Pixels
from lsgm_eval.sources.model import ImageModel, ReadyImages

__all__ = ["ImageModel", "ReadyImages", "fit", "is_run", "is_source", "open_source"]

_RUN = ("checkpoints", "config.toml", "state.json")
"""What a run directory or a checkpoint has; the pictures in it are not its samples for the harness."""


def is_source(path: Path) -> bool:
    """Return whether a path is one of ready images: a file by its suffix, a folder by what is in it.

    A folder is one where it holds an image file at any depth and is neither a run nor a checkpoint.
    """
    return not (path.is_dir() and is_run(path)) and is_images(path)


def is_run(path: Path) -> bool:
    """Return whether a folder is one of a training run or of a checkpoint, complete or not."""
    return any((path / name).exists() for name in _RUN)


def open_source(path: Path, name: str | None = None, convert: str = "") -> ImageModel:
    """Return ready images as a model, called ``name`` or after the folder or file.

    Every file is checked at once and decoded when its turn comes (`lsgm.data.open_images`). Raises DataError
    naming the file that is missing, damaged, or no 8-bit greyscale or RGB image of the size of the others,
    unless ``convert`` has the word by which it becomes one.
    """
    return ImageModel(
        open_images(path, convert), name or (path.resolve().name if path.is_dir() else path.stem)
    )


def fit(model: GenerativeModel, pixels: Pixels, count: int, first: int = 0) -> GenerativeModel:
    """Return ready images as images of a task with ``pixels``, for seeds ``first`` to ``count - 1``.

    Other models are returned as they are; of more images than ``count`` a uniform subset is drawn. Raises
    DataError naming the file where they are not such images, and where there are fewer than ``count``.
    """
    if not isinstance(model, ImageModel):
        return model
    return model.fitted(pixels, count, first)
