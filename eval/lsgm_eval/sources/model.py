"""Ready images as a model: image k is what seed k draws, and what it cost is not known.

Where a task asks for fewer images than there are, seed k draws the k-th of a uniform subset: stored images
have an order that means something, so that the first n of them are a sample of nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.data.subset import subset
from lsgm.errors import DataError
from lsgm.generative import Pixels, Samples

__all__ = ["ImageModel", "ReadyImages"]

SEED = 0
"""Of the subset, one for all sets: two of equally many images, made with the same seeds, stay pairs."""


class ReadyImages(Protocol):
    """A set of images that were made elsewhere, decoded when they are asked for."""

    path: Path
    what: str
    """``a folder``, ``a zip``, ``an npz file`` ..."""
    pixels: Pixels
    """Binary where every image is greyscale and has no value but 0 and 255."""
    sha256: str
    lossy: int
    """How many of the images were compressed with loss."""
    grey_row: int | None
    """The first greyscale image with a value other than 0 and 255, where there is one."""

    def __len__(self) -> int: ...

    def label(self, row: int) -> str:
        """Return the name by which an error calls image ``row``."""
        ...

    def read(self, rows: Sequence[int]) -> Tensor:
        """Return images uint8 [len(rows), C, H, W] in 0..255, of any strides, for at least one row."""
        ...


class ImageModel:
    """What the harness sees of ready images: `lsgm.generative.GenerativeModel`, but for a density."""

    has_prior = False
    costs_known = False
    """Evaluations and seconds are given as 0 and mean nothing."""
    density = None
    """There is none: the harness asks whether it can be called."""

    def __init__(
        self,
        images: ReadyImages,
        name: str,
        pixels: Pixels | None = None,
        numbers: NDArray[np.int64] | None = None,
    ) -> None:
        self.images, self.name = images, name
        self.sha256 = images.sha256
        self.pixels = pixels or images.pixels
        self.numbers = np.arange(len(images)) if numbers is None else numbers
        """Which stored image seed k draws, [number of seeds]."""
        self.parameters: Mapping[str, int] = {}

    @property
    def remark(self) -> str:
        """That the images are ready ones, and how many of them lossy compression changed."""
        lossy, total = self.images.lossy, self.available
        parts = [f"images of {self.images.what}, costs unknown"]
        if len(self) < total:
            parts.append(f"{len(self):,} of its {total:,} images, a uniform subset drawn with seed {SEED}")
        if lossy:
            parts.append(
                f"{lossy:,} of {total:,} files are JPEG or lossy WebP, whose artefacts move distances"
            )
        return "; ".join(parts)

    @property
    def available(self) -> int:
        """How many images there are, of which `len` many can be drawn."""
        return len(self.images)

    def __len__(self) -> int:
        return len(self.numbers)

    def sample(self, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        """Return image ``numbers[k]`` for seed k, whatever the sampler.

        Raises DataError for a seed beyond the last image and for an image that is damaged.
        """
        for seed in seeds:
            if seed < 0:
                raise DataError(f"{self.images.path} has no image number {seed}: seeds begin at 0")
            if seed >= len(self):
                raise self._too_few(seed + 1)
        # Into a new tensor, because networks round differently by how a batch lies in memory.
        images = torch.empty((len(seeds), *self.images.pixels.shape), dtype=torch.uint8)
        if len(seeds):
            images.copy_(self.images.read(self.numbers[list(seeds)].tolist()))
        return Samples(images, torch.zeros(len(seeds), dtype=torch.int64), 0.0)

    def renamed(self, name: str) -> ImageModel:
        """Return the same images under another name."""
        return ImageModel(self.images, name, self.pixels, self.numbers)

    def fitted(self, pixels: Pixels, count: int, first: int = 0) -> ImageModel:
        """Return the images as those of a task: its kind of pixels, once they are seen to be of it.

        Of more than ``count`` images the seeds draw a uniform subset, each once and in ascending order
        (`lsgm.data.subset`). Seeds from ``first`` on draw others than those below it, as seeds of a model do.

        A task's bits per sub-pixel belong to likelihoods, which ready images do not have, and are taken over.
        Raises DataError naming a file for another size, for greyscale where the task has colours and the
        other way round, for grey values where it is black and white, and for fewer than ``count`` images, by
        which is meant one more than the last seed that will be asked for.
        """
        have, example = self.images.pixels, self.images.label(0)
        if have.channels != pixels.channels:
            kinds = {1: "greyscale", 3: "RGB"}
            raise DataError(
                f"{example} is {kinds[have.channels]} and the task's images are "
                f"{kinds.get(pixels.channels, f'of {pixels.channels} channels')}: write all images as the "
                "task has them"
            )
        if have.shape != pixels.shape:
            raise DataError(
                f"{example} is {have.width} x {have.height} pixels and the task's images are "
                f"{pixels.width} x {pixels.height}: resizing is the model's affair, bring them to that size"
            )
        if pixels.kind == "binary" and have.kind != "binary":
            raise DataError(
                f"{self.images.label(self.images.grey_row or 0)} has grey values and the task's images are "
                "black and white: draw pixels of 0 and 255 from the model"
            )
        if count > self.available:
            raise self._too_few(count)
        before, chosen = subset(self.available, first, SEED), subset(self.available, count, SEED)
        rest = np.setdiff1d(chosen, before, assume_unique=True)
        return ImageModel(self.images, self.name, pixels, np.concatenate([before, rest]))

    def _too_few(self, count: int) -> DataError:
        return DataError(
            f"{self.images.path} has {self.available:,} images and {count:,} are asked for: add images or "
            "choose a smaller tier, or say how many by --images; a protocol never shrinks by itself"
        )
