"""The datasets by name, and `load`: one of them, or the images of a path."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from lsgm.data import celeba, cifar, glyphs, mnist, omniglot
from lsgm.data.arrays import ARRAYS
from lsgm.data.dataset import Dataset
from lsgm.data.folder import read_folder, read_image
from lsgm.data.imagefile import reading
from lsgm.data.images import ImageSet
from lsgm.data.listing import SUFFIXES
from lsgm.data.places import find_mirror, places_of, roots
from lsgm.discovery import offers
from lsgm.errors import ConfigError, DataError, did_you_mean
from lsgm.files.names import shown
from lsgm.logs import log

_OWN = (
    glyphs.GLYPHS,
    mnist.MNIST,
    mnist.MNIST_FIXED,
    omniglot.OMNIGLOT,
    omniglot.OMNIGLOT_LAKE28,
    cifar.CIFAR10,
    celeba.CELEBAHQ,
)


class _Datasets(Mapping[str, Dataset]):
    """Ours, then those of other packages, which are imported when they are asked for by name."""

    def __init__(self, own: Iterable[Dataset]) -> None:
        self.known = {dataset.name: dataset for dataset in own}

    def __getitem__(self, name: str) -> Dataset:
        if name in self.known:
            return self.known[name]
        dataset = offers("lsgm.datasets")[name].load()
        if not isinstance(dataset, Dataset) or dataset.name != name:
            raise ConfigError(
                f"the entry point '{name}' of the group lsgm.datasets leads to no Dataset of that name; see "
                "lsgm/data/dataset.py, or uninstall its package"
            )
        self.known[name] = dataset
        return dataset

    def __iter__(self) -> Iterator[str]:
        return iter({**self.known, **offers("lsgm.datasets")})

    def __len__(self) -> int:
        return sum(1 for _ in self)


DATASETS = _Datasets(_OWN)
"""By name."""


def dataset_names() -> tuple[str, ...]:
    """Return the names that `load` knows."""
    return tuple(DATASETS)


def find_dataset(name: str, search: list[Path]) -> Path | None:
    """Return the folder or file from which a dataset would be read, None where it is absent or bundled."""
    dataset = DATASETS[name]
    broken: DataError | None = None
    for root in search:
        found = [places_of(name, item.file, [root]) for item in dataset.files]
        if found and all(found):
            return found[0][0] if len(found) == 1 else found[0][0].parent
        try:
            if (mirror := find_mirror(name, root)) is not None:
                return mirror.folder
        except DataError as error:
            broken = broken or error  # which matters only where nothing else is found
        if dataset.find is not None and (path := dataset.find(root)) is not None:
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

    Raises DataError for no name, an unknown one, and a file that is absent, truncated, corrupted or
    unreadable; ConfigError for an unknown word in ``convert``, or any for a dataset by name.
    """
    began = time.perf_counter()
    images = _loaded(name, root=root, image_size=image_size, convert=convert, few=few)
    counts = ", ".join(f"{len(pixels):,} {split}" for split, pixels in images.splits.items())
    shape = " x ".join(map(str, images.image_shape))
    took = time.perf_counter() - began
    log.debug("dataset %s: %s of %s (%s), in %.2f s", images.name, counts, shape, images.version, took)
    return images


def _loaded(
    name: str,
    *,
    root: str | os.PathLike[str] | None,
    image_size: int | tuple[int, int] | None,
    convert: str,
    few: bool,
) -> ImageSet:
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
    known = f"; give one of {', '.join(DATASETS)}, or the path of a folder, zip, npz or npy"
    raise DataError(f"unknown dataset '{name}'{did_you_mean(name, DATASETS) or known}")
