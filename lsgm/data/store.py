"""Where data files are looked for, and how derived ones are cached: atomically, once, verified when read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from lsgm.data.images import ImageSet, PixelKind, sha256_of
from lsgm.errors import DataError
from lsgm.files.names import file_name
from lsgm.files.regular import open_regular, refuse_special
from lsgm.files.text import parse_json, record_of
from lsgm.files.write import atomic_path, cache_dir, exclusive

__all__ = [
    "cached_set",
    "file_sha256",
    "find_file",
    "first_good",
    "is_there",
    "missing",
    "places_of",
    "roots",
]

T = TypeVar("T")


def roots(root: str | os.PathLike[str] | None = None) -> list[Path]:
    """Return the folders in which data are looked for: ``root``, those of ``$LSGM_DATA``, then the cache."""
    named = [Path(part).expanduser() for part in os.environ.get("LSGM_DATA", "").split(os.pathsep) if part]
    return ([Path(root)] if root is not None else []) + named + [cache_dir() / "data"]


def places_of(dataset: str, file: str, search: Iterable[Path]) -> list[Path]:
    """Return those of ``root/dataset/file`` and ``root/file`` at which there is something, in order."""
    return [place for root in search for place in (root / dataset / file, root / file) if is_there(place)]


def find_file(dataset: str, file: str, search: list[Path]) -> Path | None:
    """Return the first of ``root/dataset/file`` and ``root/file`` that exists."""
    return next(iter(places_of(dataset, file, search)), None)


def is_there(place: Path) -> bool:
    """Return whether there is something at a place, also something that this process may not look into."""
    try:
        place.stat()
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
    return True


def first_good(ways: Iterable[Callable[[], T]], nothing_in: Sequence[Path]) -> T:
    """Return what the first of several ways to the same thing gives: a bad copy hides no good one behind it.

    What was wrong with the copies before it is said on standard error. Raises DataError where every way
    fails: what is wrong with each copy, and in which places there is none.
    """
    wrong: dict[str, None] = {}
    for way in ways:
        try:
            found = way()
        except DataError as error:
            wrong[str(error)] = None
        except OSError as error:
            wrong[f"{error.filename or 'a file'} cannot be read ({error.strerror or error})"] = None
        else:
            for sentence in wrong:
                print(f"lsgm: another copy is used, because {sentence}", file=sys.stderr)
            return found
    places = ", ".join(dict.fromkeys(map(str, nothing_in)))
    raise DataError("; ".join(wrong) + (f"; there is no other copy in {places}" if places else ""))


def missing(dataset: str, file: str, search: list[Path], *, check: str = "", how: str = "") -> DataError:
    """Return the error for an absent file: its name, every place looked in, its checksum, what to do next."""
    looked = ", ".join(str(root) for root in search) + (" and its" if len(search) == 1 else " and their")
    what_next = how or f"run `lsgm data fetch {dataset}`, or set LSGM_DATA to a folder that holds it"
    known = f" ({check})" if check else ""
    return DataError(f"{dataset}: {file}{known} is not here; looked in {looked} sub-folders; {what_next}")


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file. Raises DataError for what is none, or cannot be read."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached_set(key: str, build: Callable[[], ImageSet]) -> ImageSet:
    """Return the image set cached under ``key``, building and writing it first where it is not there.

    The key must name everything the pixels depend on. Stored pixels are hashed again at every load.

    Raises:
        DataError: the cache file is truncated or corrupted.
    """
    path = cache_dir() / "derived" / f"{file_name(key)}.safetensors"
    if not path.exists():  # so that a cache somebody else filled may be read-only
        with exclusive(path):
            if not path.exists():
                images = build()
                with atomic_path(path) as temporary:
                    _write(temporary, images)
    return _read(path)


@dataclass(frozen=True)
class _About:
    """What a cached set says of itself besides its tensors."""

    name: str
    version: str
    sha256: str
    pixels: PixelKind
    classes: dict[str, tuple[str, ...]]
    mirror: bool
    bits: int
    order: tuple[str, ...]


def _write(path: Path, images: ImageSet) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {f"split/{name}": tensor.contiguous() for name, tensor in images.splits.items()}
    for split, labels in images.labels.items():
        tensors |= {f"label/{split}/{name}": tensor.contiguous() for name, tensor in labels.items()}
    about = _About(
        images.name,
        images.version,
        images.sha256,
        images.pixels,
        images.classes,
        images.mirror,
        images.bits,
        tuple(images.splits),
    )
    try:
        save_file(tensors, path, metadata={"about": json.dumps(asdict(about))})
    except SafetensorError as error:  # the library's word for whatever the system says, a full disk for one
        raise DataError(
            f"cannot write to {path.parent} ({error}); make room, or use another folder (LSGM_CACHE)"
        ) from error


def _read(path: Path) -> ImageSet:
    from safetensors import SafetensorError, safe_open

    refuse_special(path)
    advice = f"the cached file {path} is truncated or corrupted; delete it and run the command again"
    try:
        with safe_open(path, framework="pt") as file:
            content = parse_json((file.metadata() or {})["about"], path)
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not isinstance(content, dict):
            raise DataError(advice)
        about = record_of(_About, content, path)
        splits = {name: tensors.pop(f"split/{name}") for name in about.order}
    except (SafetensorError, DataError, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(advice) from error
    labels: dict[str, dict[str, Tensor]] = {}
    for name, values in tensors.items():
        kind, _, rest = name.partition("/")
        split, _, label = rest.partition("/")
        whole = kind == "label" and split in splits and values.shape == splits[split].shape[:1]
        if not whole or values.dtype != torch.int64:
            raise DataError(advice)
        labels.setdefault(split, {})[label] = values
    images = all(rows.dtype == torch.uint8 and rows.ndim == 4 for rows in splits.values())
    if not splits or not images or sha256_of(splits.values()) != about.sha256:
        raise DataError(advice)
    return ImageSet(
        about.name,
        about.version,
        about.sha256,
        about.pixels,
        splits,
        labels,
        about.classes,
        about.mirror,
        about.bits,
    )
