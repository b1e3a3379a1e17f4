"""What a dataset with a name is: what is said of it, where its files are, how they become images.

Every dataset module ends in its `Dataset`; packages offer more of them through the entry-point group
``lsgm.datasets``, each under its own name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lsgm.data.download import RemoteFile
from lsgm.data.images import ImageSet, PixelKind, sha256_of
from lsgm.data.source import carve_validation

__all__ = ["Dataset", "Labels", "carved_set"]

Labels = Mapping[str, Tensor]
"""Label name -> int64 ``[N]``, of the images of one split."""


@dataclass(frozen=True)
class Dataset:
    """A named dataset.

    Attributes:
        name: What `load` and recipes call it.
        summary: One line for a table.
        pixels: How its pixels are modelled.
        image_shape: (channels, height, width).
        read: Reads it from the folders given, as `roots` lists them; DataError where it is absent or damaged.
        files: The official files that `lsgm data fetch` gets; none where there is no such place.
        bundled: Whether it needs no file at all.
        how: What to do where nothing can be fetched.
        together: Whether the official files must lie in one place; each may lie in another otherwise.
        carved: Whether ``val`` is a part of what was published as training images.
        find: Returns where it lies in a folder, for one that is neither official files nor a mirror.
    """

    name: str
    summary: str
    pixels: PixelKind
    image_shape: tuple[int, int, int]
    read: Callable[[list[Path]], ImageSet]
    files: tuple[RemoteFile, ...] = ()
    bundled: bool = False
    how: str = ""
    together: bool = False
    carved: bool = True
    find: Callable[[Path], Path | None] | None = None


def carved_set(
    name: str,
    version: str,
    pixels: PixelKind,
    images: tuple[Tensor, Tensor],
    labels: tuple[Labels, Labels],
    classes: Mapping[str, tuple[str, ...]],
    *,
    mirror: bool = False,
) -> ImageSet:
    """Return the set of training and test images, the validation split carved from the former."""
    rows, val_rows = carve_validation(len(images[0]))
    splits = {"train": images[0][rows], "val": images[0][val_rows], "test": images[1]}
    named = {
        "train": {label: values[rows] for label, values in labels[0].items()},
        "val": {label: values[val_rows] for label, values in labels[0].items()},
        "test": dict(labels[1]),
    }
    return ImageSet(name, version, sha256_of(splits.values()), pixels, splits, named, dict(classes), mirror)
