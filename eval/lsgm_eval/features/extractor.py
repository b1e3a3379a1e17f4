"""What the harness knows of a feature space: a name, the hash of its weights, and images in, features out."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from lsgm.errors import UserError
from lsgm.files.names import shown

__all__ = [
    "Classifies",
    "Extractor",
    "ImageShape",
    "Spatial",
    "check_features",
    "check_images",
    "label_of",
    "last_line",
    "to_rgb",
]

ImageShape = tuple[int, int | None, int | None]
"""(channels, height, width); None where any height or width will do."""


class Extractor(Protocol):
    """A fixed map from images to features, in which distances between distributions are measured."""

    name: str
    sha256: str
    """Hash of the weights: two feature spaces are the same only where it agrees."""
    dim: int
    resize: str
    """How images get to the size of the network, "" where they are taken as they are. It moves features as
    much as weights do, so whatever is kept under the hash is kept under this as well."""

    @property
    def image_shape(self) -> ImageShape:
        """Return the (channels, height, width) that it takes."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Return features float32 [N, dim] of images uint8 [N, C, H, W] in 0..255, on the CPU.

        Raises UserError for images of another dtype or shape and for features that are not finite.
        """
        ...


@runtime_checkable
class Classifies(Protocol):
    """An extractor whose features a linear layer turns into classes, as the Inception Score needs."""

    def class_logits(self, features: Tensor) -> Tensor:
        """Return logits float32 [N, classes] of features [N, dim] that the extractor gave."""
        ...


@runtime_checkable
class Spatial(Protocol):
    """An extractor with a second space that keeps where things are, as the spatial FID (sFID) needs."""

    spatial_dim: int

    def with_spatial(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return (features [N, dim], spatial features [N, spatial_dim]), float32, of one pass over images."""
        ...


def label_of(extractor: Extractor) -> str:
    """Return ``name@sha256`` of a feature space: the extractor column of a row, the key of what is kept."""
    return f"{extractor.name}@{extractor.sha256}"


def check_images(name: str, images: Tensor, image_shape: ImageShape) -> None:
    """Raise UserError unless ``images`` are uint8 of the shape the extractor ``name`` takes."""
    shape = tuple(images.shape)
    fits = images.ndim == 4 and all(
        want in (None, got) for want, got in zip(image_shape, shape[1:], strict=True)
    )
    if images.dtype != torch.uint8 or not fits:
        want = "x".join("any" if side is None else str(side) for side in image_shape)
        raise UserError(
            f"the extractor {name} takes uint8 images of {want} and was given {images.dtype} of "
            f"{'x'.join(map(str, shape[1:]))}: choose a task whose images are of that shape"
        )


def to_rgb(name: str, images: Tensor) -> Tensor:
    """Return images uint8 [N, 3, H, W] of colour images, or of grey ones [N, 1, H, W] by repetition.

    Raises UserError for any other dtype or number of channels.
    """
    grey = images.ndim == 4 and images.shape[1] == 1
    colour = images.expand(-1, 3, -1, -1) if grey else images
    check_images(name, colour, (3, None, None))
    return colour


def check_features(name: str, features: Tensor) -> Tensor:
    """Return ``features``; raise UserError naming the first image whose features are not finite."""
    bad = (~torch.isfinite(features).all(dim=1)).nonzero()
    if len(bad):
        raise UserError(
            f"the extractor {name} gave features that are not finite for image {int(bad[0])} of a batch: "
            "its weights are damaged or the images are"
        )
    return features


def last_line(error: BaseException, most: int = 300) -> str:
    """Return the last line of what an error of somebody else's code says, or else what kind it is."""
    return shown((str(error).strip() or type(error).__name__).splitlines()[-1])[:most]
