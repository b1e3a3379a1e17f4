"""What a dataset with a name is: what is said of it, where its files are, how they become images.

Every dataset module ends in its `Dataset`; packages offer more of them through the entry-point group
``lsgm.datasets``, each under its own name.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lsgm.data.images import ImageSet, PixelKind, sha256_of
from lsgm.data.places import file_sha256
from lsgm.data.source import carve_validation
from lsgm.errors import DataError
from lsgm.files.limits import DATASET_FILE
from lsgm.files.regular import open_regular

Labels = Mapping[str, Tensor]
"""Label name -> int64 ``[N]``, of the images of one split."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of an official archive.

    Attributes:
        file: Its name here.
        url: Where it comes from.
        sha256: Its checksum, where one is published or known.
        contents_md5: md5 of the uncompressed contents of a gzip file: the same however it was compressed.
    """

    file: str
    url: str
    sha256: str = ""
    contents_md5: str = ""

    @property
    def check(self) -> str:
        """Return the checksum in words, "" where none is known."""
        if self.sha256:
            return f"sha256 {self.sha256}"
        return f"md5 of the uncompressed contents {self.contents_md5}" if self.contents_md5 else ""

    def problem(self, path: Path) -> str:
        """Return what is wrong with the file at a path, in a sentence without advice, or "" (OSError)."""
        if not self.check:
            with open_regular(path) as file:
                if file.read(512).lstrip().startswith(b"<"):
                    return f"{path} is a web page"
        if self.sha256 and (found := file_sha256(path)) != self.sha256:
            return f"{path} is truncated or corrupted: its sha256 is {found} instead of {self.sha256}"
        if self.contents_md5:
            try:
                found = hashlib.md5(gunzip(path), usedforsecurity=False).hexdigest()
            except DataError as error:
                return str(error)
            if found != self.contents_md5:
                return (
                    f"{path} is not the official file: its contents have md5 {found}, not {self.contents_md5}"
                )
        return ""

    def is_good(self, path: Path) -> bool:
        """Return whether the file at a path can be read and is the one."""
        try:
            return not self.problem(path)
        except (OSError, DataError):
            return False

    def verify(self, path: Path, *, dataset: str) -> None:
        """Raise DataError where the file at a path has another checksum."""
        if problem := self.problem(path):
            raise DataError(f"{problem}; delete it and run `lsgm data fetch {dataset}`")


def gunzip(path: Path) -> bytes:
    """Return the contents of a gzip file.

    Raises DataError for a damaged one, and one that unpacks to more than any file of a dataset.
    """
    with open_regular(path) as packed:
        try:
            with gzip.GzipFile(fileobj=packed) as file:
                contents = file.read(DATASET_FILE.value + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is truncated or corrupted ({error})") from error
    DATASET_FILE.hold(f"{path}, unpacked,", len(contents))
    return contents


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
        hub: Its name on the Hugging Face Hub, where its official images are there.
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
    hub: str = ""


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
