"""Images made elsewhere as models for the harness: a folder, a zip, an npz or npy of ready images."""

from __future__ import annotations

from pathlib import Path

from lsgm.errors import DataError
from lsgm.generative import GenerativeModel, Pixels
from lsgm_eval.sources.archive import read_archive
from lsgm_eval.sources.folder import has_images, read_folder
from lsgm_eval.sources.model import ImageModel, ReadyImages
from lsgm_eval.sources.npz import read_array

__all__ = ["ImageModel", "ReadyImages", "fit", "is_run", "is_source", "open_source"]

ARRAYS, ARCHIVES = (".npz", ".npy"), (".zip",)
_RUN = ("checkpoints", "config.toml", "state.json")
"""What a run directory or a checkpoint has; the pictures in it are not its samples for the harness."""


def is_source(path: Path) -> bool:
    """Return whether a path is one of ready images: a file by its suffix, a folder by what is in it.

    A folder is one where it holds an image file at any depth and is neither a run nor a checkpoint.
    """
    if path.is_dir():
        return not is_run(path) and has_images(path)
    return path.suffix.lower() in ARRAYS + ARCHIVES


def is_run(path: Path) -> bool:
    """Return whether a folder is one of a training run or of a checkpoint, complete or not."""
    return any((path / name).exists() for name in _RUN)


def open_source(path: Path, name: str | None = None) -> ImageModel:
    """Return ready images as a model, called ``name`` or after the folder or file.

    Every file is checked at once and decoded when its turn comes. Raises DataError naming the file that is
    missing, damaged, or no 8-bit greyscale or RGB image of the size of the others.
    """
    images: ReadyImages
    if path.is_dir():
        images = read_folder(path)
    elif not path.is_file():
        raise DataError(f"{path} does not exist: give a folder, zip, npz or npy of images")
    elif path.suffix.lower() in ARRAYS:
        images = read_array(path)
    elif path.suffix.lower() in ARCHIVES:
        images = read_archive(path)
    else:
        raise DataError(f"{path} is no folder, zip, npz or npy: give one of these with images in it")
    return ImageModel(images, name or (path.resolve().name if path.is_dir() else path.stem))


def fit(model: GenerativeModel, pixels: Pixels, count: int, first: int = 0) -> GenerativeModel:
    """Return ready images as images of a task with ``pixels``, for seeds ``first`` to ``count - 1``.

    Other models are returned as they are; of more images than ``count`` a uniform subset is drawn. Raises
    DataError naming the file where they are not such images, and where there are fewer than ``count``.
    """
    if not isinstance(model, ImageModel):
        return model
    return model.fitted(pixels, count, first)
