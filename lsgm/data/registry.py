"""The datasets by name: what each is, where it comes from, and how it is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lsgm.data import celeba, cifar, glyphs, mnist, omniglot
from lsgm.data.arrays import ARRAYS
from lsgm.data.download import RemoteFile
from lsgm.data.folder import read_folder, read_image
from lsgm.data.imagefile import reading
from lsgm.data.images import ImageSet, PixelKind
from lsgm.data.listing import SUFFIXES
from lsgm.data.mirror import find_mirror
from lsgm.data.store import cached_set, find_file, roots
from lsgm.errors import ConfigError, DataError, did_you_mean
from lsgm.files.names import shown

__all__ = ["DATASETS", "Dataset", "dataset_names", "find_dataset", "load"]


@dataclass(frozen=True)
class Dataset:
    """A named dataset.

    Attributes:
        name: What `load` and recipes call it.
        summary: One line for a table.
        pixels: How its pixels are modelled.
        image_shape: (channels, height, width).
        read: Reads it from the roots given.
        files: The official files that `lsgm data fetch` gets; none where there is no such place.
        bundled: Whether it needs no file at all.
        how: What to do where nothing can be fetched.
        together: Whether the official files must lie in one place; each may lie in another otherwise.
        carved: Whether ``val`` is a part of what was published as training images.
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


def _read_glyphs(search: list[Path]) -> ImageSet:
    return cached_set(glyphs.cache_key(), glyphs.build)


_LAKE_HOW = (
    f"copy its mirror, the folder {omniglot.LAKE_MIRROR} with its manifest.json, "
    "into a folder named by LSGM_DATA"
)
_ALL = (
    Dataset(
        "glyphs",
        "letters of matplotlib's typefaces, rendered here; no download",
        "binary",
        (1, 28, 28),
        _read_glyphs,
        bundled=True,
        carved=False,
    ),
    Dataset(
        "mnist",
        "MNIST, dynamically binarised",
        "binary",
        (1, 28, 28),
        mnist.read_mnist,
        mnist.MNIST_FILES,
    ),
    Dataset(
        "mnist-fixed",
        "MNIST in Larochelle's fixed binarisation",
        "binary",
        (1, 28, 28),
        mnist.read_mnist_fixed,
        mnist.FIXED_FILES,
        together=True,
        carved=False,
    ),
    Dataset(
        "omniglot",
        "OMNIGLOT as prepared by Burda et al., dynamically binarised",
        "binary",
        (1, 28, 28),
        omniglot.read_omniglot,
        omniglot.OMNIGLOT_FILES,
    ),
    Dataset(
        "omniglot-lake28",
        "OMNIGLOT as collected by Lake et al., area-averaged to 28 x 28",
        "binary",
        (1, 28, 28),
        omniglot.read_lake28,
        how=_LAKE_HOW,
    ),
    Dataset(
        "cifar10",
        "CIFAR-10, 8 bits",
        "uint8",
        (3, 32, 32),
        cifar.read_cifar10,
        cifar.CIFAR_FILES,
    ),
    Dataset(
        "celebahq256",
        "CelebA-HQ at 256 x 256, brought by the user",
        "uint8",
        (3, 256, 256),
        celeba.read_celebahq,
        how=celeba.HOW.replace(" in one of them", " in $LSGM_DATA"),
    ),
)
DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in _ALL}


def dataset_names() -> tuple[str, ...]:
    """Return the names that `load` knows."""
    return tuple(DATASETS)


def find_dataset(name: str, search: list[Path]) -> Path | None:
    """Return the folder or file from which a dataset would be read, None where it is absent or bundled."""
    dataset = DATASETS[name]
    broken: DataError | None = None
    for root in search:
        found = [find_file(name, item.file, [root]) for item in dataset.files]
        if dataset.files and all(found) and found[0] is not None:
            return found[0] if len(found) == 1 else found[0].parent
        try:
            if (mirror := find_mirror(name, root)) is not None:
                return mirror.folder
        except DataError as error:
            broken = broken or error  # which matters only where nothing else is found
        if name == "celebahq256" and (path := celeba.find_celebahq(root)) is not None:
            return path
    if broken is not None:
        raise broken
    return None


def load(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    image_size: int | tuple[int, int] | None = 64,
    convert: str = "",
    few: bool = False,
) -> ImageSet:
    """Return a dataset by name, or the images of a folder, zip, npz or npy by path, without the network.

    Args:
        name: One of `dataset_names`, or a path; a folder named like a dataset is reached as ``./mnist``. A
            single image file is a set whose only split is ``test``.
        root: A folder to look in before ``$LSGM_DATA`` and the cache.
        image_size: Side of a square, or (height, width), to which images by path are cropped and reduced;
            None leaves them as they are.
        convert: What is allowed for images by path that are not plain greyscale or RGB
            (`lsgm.data.imagefile`).
        few: Whether images by path may be too few to be split (`lsgm.data.folder.read_folder`).

    Raises:
        DataError: no name, an unknown one, or a file that is absent, truncated, corrupted or unreadable.
        ConfigError: an unknown word in ``convert``, or any for a dataset by name.
    """
    if name in DATASETS:
        if convert:
            raise ConfigError(f"--convert is for images of your own, and {name} is none: leave it out")
        return DATASETS[name].read(roots(root))
    if not name.strip():  # as a path it would be the working directory
        raise DataError("the name of the dataset is empty; give a dataset's name, or the path of your images")
    path = Path(name).expanduser()
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    with reading(shown(name)):
        one, there = path.is_file(), path.exists()
    if one and path.suffix.lower() in SUFFIXES:
        return read_image(path, size, convert)
    if there or os.sep in name or path.suffix.lower() in (".zip", *ARRAYS, *SUFFIXES):
        return read_folder(path, size, convert, few=few)
    hint = (
        did_you_mean(name, DATASETS)
        or f"; give one of {', '.join(DATASETS)}, or the path of a folder, zip, npz or npy"
    )
    raise DataError(f"unknown dataset '{name}'{hint}")
