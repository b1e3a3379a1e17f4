"""What is derived from data files, kept in the cache: made once, found again by content, verified when read.

Decoded images lie in a memory-mapped file for each content, so that no set gets another's; whole sets with
their labels in safetensors; what was found of files, in notes that hold while the files are left alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from shutil import disk_usage
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import __version__ as pillow_version
from torch import Tensor

from lsgm.config import require
from lsgm.data.images import ImageSet, PixelKind, sha256_of
from lsgm.errors import DataError
from lsgm.files.arrays import map_array
from lsgm.files.names import file_name
from lsgm.files.regular import refuse_special
from lsgm.files.text import parse_json, read_record, record_of
from lsgm.files.write import atomic_path, cache_dir, exclusive
from lsgm.progress import bar
from lsgm.structure import to_dict

T = TypeVar("T")
Size = tuple[int, int]
"""(height, width)."""
_SETTLED = 2_000_000_000
"""Nanoseconds for which a file must have been left alone before its dates stand for its content."""


@dataclass(frozen=True)
class _Seen:
    """What is remembered of files: the key of their images, and how many test images train as well."""

    key: str
    shared: int = 0

    def __post_init__(self) -> None:
        require(re.fullmatch("[0-9a-f]{24}", self.key) is not None, f"key is '{self.key}'")


@dataclass(frozen=True)
class PixelNote:
    """What lies beside decoded images, or is remembered of an array: the sha256 of the pixels."""

    sha256: str
    source: str = ""

    def __post_init__(self) -> None:
        require(re.fullmatch("[0-9a-f]{64}", self.sha256) is not None, f"sha256 is '{self.sha256}'")


class Rows(Protocol):
    """Images in an order, checked, decoded when they are asked for."""

    channels: int
    how: str
    """The words of ``--convert`` by which their pixels are what they are, none where they need none."""

    def __len__(self) -> int: ...

    def size(self, row: int) -> Size:
        """Return (height, width) of image ``row``."""
        ...

    def label(self, row: int) -> str:
        """Return the name by which an error calls image ``row``."""
        ...

    def content(self, row: int) -> str:
        """Return a text that two images share only where their pixels are the same."""
        ...

    def each(self, rows: Iterable[int], size: Size | None = None) -> Iterator[NDArray[np.uint8]]:
        """Yield images ``rows`` uint8 [C, H, W], brought to ``size`` where one is given (`fitted`)."""
        ...


def size_words(size: Size) -> str:
    """Return ``64px`` for a square and ``64x96px`` (height first) for a rectangle."""
    height, width = size
    return f"{height}px" if height == width else f"{height}x{width}px"


def decoded(
    path: Path,
    parts: Mapping[str, Sequence[int]],
    size: Size | None,
    settings: str,
    stamps: Sequence[tuple[str, tuple[int, ...]]],
    look: Callable[[], tuple[Rows, int]],
) -> tuple[dict[str, Tensor], str, int]:
    """Return the images of each split uint8 ``[N, C, H, W]``, the pixels' sha256, and a count of ``look``.

    Images are brought to ``size`` (`fitted`), or keep the one size that all have. Decoding happens once, on
    all cores; the cached file is found again by the content of the images in their order, never by names or
    dates. Sets larger than memory work: nothing is held in it. ``look`` checks the files and counts the test
    images that train as well; it is spared where ``settings`` and ``stamps`` are known (`remembered`).

    Raises DataError for images of different or too small sizes, for a disk that is too small, and for a
    cached file that is truncated or corrupted.
    """
    counts = {split: len(rows) for split, rows in parts.items()}

    def compute() -> _Seen:
        rows, shared = look()
        return _Seen(_decode(path, rows, parts, size), shared)

    found = remembered(_Seen, f"{settings} {counts} {pillow_version}", stamps, compute)
    if not all(place.exists() for place in _places(found.key)):  # deleted from the cache since
        found = compute()
    return *_opened(found.key, counts), found.shared


def _decode(path: Path, rows: Rows, splits: Mapping[str, Sequence[int]], size: Size | None) -> str:
    """Decode images into a file, unless it is there, and return the key that opens it."""
    size = agreed(path, rows, size)
    counts = [len(part) for part in splits.values()]
    order = [row for part in splits.values() for row in part]
    about = f"2 {size} {rows.channels} {counts} {pillow_version} {rows.how}"
    digest = hashlib.sha256(about.encode())
    for row in order:
        digest.update(f"\n{rows.content(row)}".encode())
    key = digest.hexdigest()[:24]
    pixels, note = _places(key)
    if not note.exists():
        with exclusive(note):
            if not note.exists():
                sha256 = _decode_all(path, rows, order, counts, size, pixels)
                with atomic_path(note) as temporary:
                    temporary.write_text(json.dumps(asdict(PixelNote(sha256, repr(str(path))))))
    return key


def _opened(key: str, counts: Mapping[str, int]) -> tuple[dict[str, Tensor], str]:
    pixels, note = _places(key)
    damaged = DataError(f"the cached {pixels} is truncated or corrupted; delete it and {note.name}")
    try:
        rows, about = map_array(pixels), read_record(PixelNote, note)
    except DataError as error:
        if isinstance(error.__cause__, PermissionError):
            raise
        raise damaged from error
    if rows.dtype != np.uint8 or rows.ndim != 4 or len(rows) != sum(counts.values()):
        raise damaged
    parts = torch.split(torch.from_numpy(rows), list(counts.values()))
    return dict(zip(counts, parts, strict=True)), about.sha256


def _places(key: str) -> tuple[Path, Path]:
    base = cache_dir() / "derived"
    return base / f"images-{key}.npy", base / f"images-{key}.json"


def agreed(path: Path, rows: Rows, size: Size | None) -> Size:
    """Return the size of all images; refuse those that have none in common or are smaller than asked."""
    first = rows.size(0) if size is None else size
    for row in range(len(rows)):
        have = rows.size(row)
        if size is None and have != first:
            raise DataError(
                f"{rows.label(row)} is {_width_first(have)} and other images are {_width_first(first)}: give "
                "a data.image-size to which all are cropped and reduced"
            )
        if have[0] < first[0] or have[1] < first[1]:
            wanted = str(first[0]) if first[0] == first[1] else _width_first(first)
            raise DataError(
                f"{rows.label(row)} is {_width_first(have)}, smaller than {wanted}; choose a smaller "
                "data.image-size"
            )
    return first


def _width_first(size: Size) -> str:
    return f"{size[1]} x {size[0]}"


def _decode_all(
    path: Path, rows: Rows, order: Sequence[int], counts: list[int], size: Size, pixels: Path
) -> str:
    shape = (len(order), rows.channels, *size)
    pixels.parent.mkdir(parents=True, exist_ok=True)
    need, free = int(np.prod(shape)), disk_usage(pixels.parent).free
    if need > free:
        raise DataError(
            f"{path} needs {need / 1e9:.1f} GB decoded, {pixels.parent} has {free / 1e9:.1f} GB left; "
            "set LSGM_CACHE to a larger disk"
        )
    # In the order in which they lie: rows of a compressed array come quickly in that order only.
    walk = sorted((row, place) for place, row in enumerate(order))
    with atomic_path(pixels) as temporary:
        out = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        # The room is taken now: a disk that fills up under mapped memory ends the process.
        if hasattr(os, "posix_fallocate"):
            with temporary.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, max(1, temporary.stat().st_size))

        with bar(total=len(walk), desc="decoding images") as progress:
            for (_, place), image in zip(walk, rows.each((row for row, _ in walk), size), strict=True):
                out[place] = image
                progress.update()
        out.flush()
        return sha256_of(torch.split(torch.from_numpy(out), counts))


def file_stamp(path: Path) -> tuple[int, ...]:
    """Return a file's dates of change, device, inode and size."""
    about = path.stat()
    return about.st_mtime_ns, about.st_ctime_ns, about.st_dev, about.st_ino, about.st_size


def remembered(
    cls: type[T], settings: str, stamps: Sequence[tuple[str, tuple[int, ...]]], compute: Callable[[], T]
) -> T:
    """Return what ``compute`` found of files before, where it is sure that they are still the same.

    A file that keeps device, inode, size, date of content and date of status (ctime, which no program can
    set) has not been written to, copied over or put in place of another. What is computed is remembered only
    where each file has been left alone for two seconds, because dates have a grain; and never on Windows,
    whose ctime is the date of creation. ``settings`` is whatever else the result depends on, and ``cls`` the
    dataclass of what was found; a note that is none of these is made anew.
    """
    now = time.time_ns()
    settled = os.name != "nt" and all(stamp and max(stamp[:2]) < now - _SETTLED for _, stamp in stamps)
    digest = hashlib.sha256(settings.encode("utf-8", "surrogateescape"))
    for name, stamp in stamps:
        digest.update(f"{name} {stamp}\n".encode("utf-8", "surrogateescape"))
    note = cache_dir() / "derived" / f"seen-{digest.hexdigest()[:24]}.json"
    if settled:
        with contextlib.suppress(DataError):
            return read_record(cls, note)
    found = compute()
    if settled:
        with atomic_path(note) as temporary:
            temporary.write_text(json.dumps(to_dict(found)))
    return found


def cached_set(key: str, build: Callable[[], ImageSet]) -> ImageSet:
    """Return the image set cached under ``key``, building and writing it first where it is not there.

    The key must name everything the pixels depend on. Stored pixels are hashed again at every load. Raises
    DataError for a truncated or corrupted file.
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


_KEPT = tuple(field.name for field in fields(_About) if field.name != "order")
"""Those of an `ImageSet` that it keeps."""


def _write(path: Path, images: ImageSet) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {f"split/{name}": tensor.contiguous() for name, tensor in images.splits.items()}
    for split, labels in images.labels.items():
        tensors |= {f"label/{split}/{name}": tensor.contiguous() for name, tensor in labels.items()}
    about = {name: getattr(images, name) for name in _KEPT} | {"order": list(images.splits)}
    try:
        save_file(tensors, path, metadata={"about": json.dumps(about)})
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
    return ImageSet(splits=splits, labels=labels, **{name: getattr(about, name) for name in _KEPT})
