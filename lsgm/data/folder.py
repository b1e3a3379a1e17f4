"""Any folder or zip of images: decoded once, cropped and resized, into a memory-mapped file in the cache."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import disk_usage

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL import __version__ as pillow_version
from torch import Tensor

from lsgm.data.images import ImageSet, sha256_of
from lsgm.data.store import atomic_path, cache_dir, exclusive
from lsgm.errors import DataError
from lsgm.progress import bar

__all__ = ["Entry", "decode", "list_images", "memory_mapped", "read_folder", "read_image", "split_names"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_PLAIN = ("1", "L", "P", "RGB", "CMYK", "YCbCr")
"""Pillow's modes of eight bits or fewer per channel and no alpha."""


@dataclass(frozen=True)
class Entry:
    """One image file: its name inside the folder or zip, a fingerprint of its state, and how to read it."""

    name: str
    fingerprint: str
    read: Callable[[], bytes]


def list_images(path: Path) -> list[Entry]:
    """Return the images of a folder (searched recursively) or zip, in order of name.

    Raises:
        DataError: no such path, a damaged zip, or no image in it.
    """
    if path.is_dir():
        found = [p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]
        stats = [(p, p.stat()) for p in found if not p.name.startswith(".")]
        entries = [
            Entry(p.relative_to(path).as_posix(), f"{s.st_size}/{s.st_mtime_ns}", p.read_bytes)
            for p, s in stats
        ]
    elif zipfile.is_zipfile(path):
        entries = _zipped(zipfile.ZipFile(path))
    elif path.exists():
        raise DataError(
            f"{path} is neither a folder nor a readable zip; give one with {', '.join(SUFFIXES)} files"
        )
    else:
        raise DataError(f"{path} does not exist; give the path of a folder or zip of images")
    if not entries:
        raise DataError(f"{path} has no image in it; put {', '.join(SUFFIXES)} files there")
    return sorted(entries, key=lambda entry: entry.name)


def _zipped(archive: zipfile.ZipFile) -> list[Entry]:
    """Return the images of a zip; a folder around everything is no part of their names."""
    infos = [
        info
        for info in archive.infolist()
        if Path(info.filename).suffix.lower() in SUFFIXES
        and not Path(info.filename).name.startswith(".")
        and not info.filename.startswith("__MACOSX/")
    ]
    tops = {info.filename.partition("/")[0] for info in infos}
    skip = len(next(iter(tops))) + 1 if len(tops) == 1 and all("/" in info.filename for info in infos) else 0
    return [
        Entry(info.filename[skip:], f"{info.file_size}/{info.CRC}", partial(archive.read, info))
        for info in infos
    ]


def decode(entry: Entry, where: Path, size: int, channels: int) -> NDArray[np.uint8]:
    """Return an image uint8 ``[C, size, size]``: upright by its EXIF tag, centre-cropped, reduced (Lanczos).

    Raises:
        DataError: unreadable, with alpha, of more than 8 bits per channel, or smaller than ``size``.
    """
    try:
        with Image.open(io.BytesIO(entry.read())) as image:
            _refuse(image, f"{where}: {entry.name}", size)
            upright = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
            side = min(upright.size)
            left, top = (upright.width - side) // 2, (upright.height - side) // 2
            square = upright.crop((left, top, left + side, top + side))
            if side != size:
                square = square.resize((size, size), Image.Resampling.LANCZOS)
            return np.atleast_3d(np.asarray(square)).transpose(2, 0, 1)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, zipfile.BadZipFile) as error:
        raise DataError(f"{where}: {entry.name} cannot be read ({error}); replace or remove it") from error


def _refuse(image: Image.Image, name: str, size: int) -> None:
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        raise DataError(f"{name} has an alpha channel; flatten it onto a background first")
    if image.mode not in _PLAIN:
        raise DataError(
            f"{name} has more than 8 bits per channel (mode {image.mode}); convert it to 8 bits first"
        )
    if min(image.size) < size:
        width, height = image.size
        raise DataError(
            f"{name} is {width} x {height}, smaller than {size}; choose a smaller data.image-size"
        )


def _is_grey(entry: Entry, where: Path) -> bool:
    try:
        with Image.open(io.BytesIO(entry.read())) as image:
            return image.mode in ("1", "L")
    except (OSError, SyntaxError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{where}: {entry.name} cannot be read ({error}); replace or remove it") from error


def memory_mapped(
    path: Path, splits: Mapping[str, Sequence[Entry]], size: int
) -> tuple[dict[str, Tensor], str]:
    """Return the images of each split, uint8 ``[N, C, size, size]`` backed by a file, and their sha256.

    Decoding happens once, on all cores; the cached file is found again by the names, sizes and dates (in a
    zip: checksums) of the entries in their order. Folders larger than memory work: nothing is held in it.
    A set is grey where its first image is.

    Raises:
        DataError: an image is refused, the disk is too small, or the cached file is truncated.
    """
    entries = [entry for part in splits.values() for entry in part]
    counts = [len(part) for part in splits.values()]
    listing = "\n".join(f"{entry.name} {entry.fingerprint}" for entry in entries)
    key = hashlib.sha256(f"1 {size} {counts} {pillow_version}\n{listing}".encode()).hexdigest()[:24]
    pixels, about = (cache_dir() / "derived" / f"images-{key}{suffix}" for suffix in (".npy", ".json"))
    if not about.exists():
        with exclusive(about):
            if not about.exists():
                sha256 = _decode_all(path, entries, counts, size, pixels)
                with atomic_path(about) as temporary:
                    temporary.write_text(json.dumps({"sha256": sha256, "source": str(path)}))
    try:
        rows = torch.from_numpy(np.load(pixels, mmap_mode="c"))
        sha256 = str(json.loads(about.read_text())["sha256"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"the cached {pixels} is truncated or corrupted; delete it and {about.name}"
        ) from error
    return dict(zip(splits, torch.split(rows, counts), strict=True)), sha256


def _decode_all(path: Path, entries: Sequence[Entry], counts: list[int], size: int, pixels: Path) -> str:
    channels = 1 if _is_grey(entries[0], path) else 3
    shape = (len(entries), channels, size, size)
    pixels.parent.mkdir(parents=True, exist_ok=True)
    need, free = int(np.prod(shape)), disk_usage(pixels.parent).free
    if need > free:
        raise DataError(
            f"{path} needs {need / 1e9:.1f} GB decoded, {pixels.parent} has {free / 1e9:.1f} GB left; "
            "set LSGM_CACHE to a larger disk"
        )
    with atomic_path(pixels) as temporary:
        rows = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)

        def one(index: int) -> None:
            rows[index] = decode(entries[index], path, size, channels)

        with (
            ThreadPoolExecutor(os.cpu_count()) as pool,
            bar(total=len(entries), desc="decoding images") as progress,
        ):
            for start in range(0, len(entries), 1024):  # bounded, so that a bad file stops the work soon
                block = range(start, min(start + 1024, len(entries)))
                list(pool.map(one, block))
                progress.update(len(block))
        rows.flush()
        return sha256_of(torch.split(torch.from_numpy(rows), counts))


def split_names(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Return the entries by split.

    Where the top-level folders train and test exist they decide (val or valid too, or 5 % of train by hash);
    otherwise 5 % each, at least one and at most 5,000, go to test and val: those whose names hash lowest, so
    that the split depends on the names alone.
    """
    by_top: dict[str, list[Entry]] = {}
    for entry in entries:
        by_top.setdefault(entry.name.split("/")[0].lower(), []).append(entry)
    if "train" in by_top and "test" in by_top:
        test, train = by_top["test"], by_top["train"]
        val, count = by_top.get("val") or by_top.get("valid") or [], _share(train)
    else:
        count = _share(entries)
        ranked = sorted(entries, key=_rank)
        test, train, val = ranked[:count], ranked[count:], []
    if not val:
        ranked = sorted(train, key=_rank)
        val, train = ranked[:count], ranked[count:]
    parts = {"train": train, "val": val, "test": test}
    return {split: sorted(part, key=lambda entry: entry.name) for split, part in parts.items()}


def _share(entries: Sequence[Entry]) -> int:
    return min(5000, max(1, len(entries) // 20))


def _rank(entry: Entry) -> bytes:
    return hashlib.sha256(entry.name.encode()).digest()


def read_folder(path: Path, size: int) -> ImageSet:
    """Return the images of a folder or zip at ``size`` x ``size``, split by `split_names`, memory-mapped.

    Raises:
        DataError: fewer than three images, or one is refused.
    """
    entries = list_images(path)
    if len(entries) < 3:
        raise DataError(f"{path} has {len(entries)} images; at least 3 are needed: train, val and test")
    parts = split_names(entries)
    splits, sha256 = memory_mapped(path, parts, size)
    return ImageSet(path.resolve().name, f"{size}px+{sha256[:12]}", sha256, "uint8", splits)


def read_image(path: Path, size: int) -> ImageSet:
    """Return one image file at ``size`` x ``size`` as a set whose only split is ``test``.

    Raises:
        DataError: it is refused.
    """
    entry = Entry(path.name, "", path.read_bytes)
    channels = 1 if _is_grey(entry, path.parent) else 3
    rows = torch.from_numpy(decode(entry, path.parent, size, channels).copy())[None]
    sha256 = sha256_of(rows)
    return ImageSet(path.name, f"{size}px+{sha256[:12]}", sha256, "uint8", {"test": rows})
