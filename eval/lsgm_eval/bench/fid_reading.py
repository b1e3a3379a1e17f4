"""What it takes to read folders of PNG files by a loop over Pillow, and by this package with its workers."""

from __future__ import annotations

import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lsgm.bench.measuring import quartiles
from lsgm.bench.targets import towards
from lsgm.data import open_images
from lsgm.data.decoding import set_workers
from lsgm.data.folder import FileImages
from lsgm.progress import bar
from lsgm_eval.bench.fid_ways import pictures

if TYPE_CHECKING:
    from lsgm_eval.bench.options import FidBenchOptions

BATCH = 250
LOOP = "PIL loop"
SMALL, LARGE, SHARE = 32, 256, 100
"""Sides of small and of large images, and how many of the former there are to one of the latter."""


def measure_reading(options: FidBenchOptions) -> list[dict[str, Any]]:
    """Return a row for each size of images and way: seconds by round, and those of the loop over them.

    Raises ValueError where two ways give other pixels.
    """
    rows = []
    for side, count in ((SMALL, options.files), (LARGE, max(2, options.files // SHARE))):
        with tempfile.TemporaryDirectory(prefix="lsgm-bench-") as place:
            write_pngs(Path(place), count, side, options.seed)
            ways: dict[str, Callable[[], int]] = {
                LOOP: partial(by_loop, Path(place)),
                "this package, one worker": partial(by_workers, Path(place), 1),
                "this package, two workers": partial(by_workers, Path(place), 2),
            }
            rows += _timed(ways, side, count, options.repeats)
    return rows


def write_pngs(folder: Path, count: int, side: int, seed: int) -> None:
    """Write images of smooth noise; those beyond the first thousand are turned and mirrored copies."""
    images = pictures(min(count, 1000), side, seed).permute(0, 2, 3, 1).numpy()
    for number in bar(range(count), desc=f"writing {side} x {side}", unit="image"):
        turns, row = divmod(number, len(images))
        image = np.rot90(images[row], turns % 4)
        Image.fromarray(image[:, :: -1 if turns & 4 else 1].copy()).save(folder / f"{number:06d}.png")


def by_loop(folder: Path) -> int:
    """Return the checksum of all images [N, 3, H, W], opened one after the other."""

    def batches() -> Iterable[NDArray[np.uint8]]:
        names = sorted(os.listdir(folder))
        for start in range(0, len(names), BATCH):
            files = (Image.open(folder / name).convert("RGB") for name in names[start : start + BATCH])
            yield np.stack([np.asarray(image).transpose(2, 0, 1) for image in files])

    return _checksum(batches())


def by_workers(folder: Path, count: int) -> int:
    """Return the same of this package with so many workers, from opening the set on."""
    set_workers(count)
    try:
        images = open_images(folder)
        assert isinstance(images, FileImages)
        return _checksum(map(np.asarray, images.pixels_of(range(len(images)))))
    finally:
        set_workers(0)


def _checksum(batches: Iterable[NDArray[np.uint8]]) -> int:
    found = 0
    for images in batches:  # [N, C, H, W], in which colours lie side by side
        found = zlib.adler32(np.ascontiguousarray(images.transpose(0, 2, 3, 1)).data, found)
    return found


def _timed(ways: dict[str, Callable[[], int]], side: int, count: int, repeats: int) -> list[dict[str, Any]]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names, found = list(ways), set()
    for index in bar(range(repeats), desc=f"reading {side} x {side}", unit="round"):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            started = time.perf_counter()
            found.add(ways[name]())
            seconds[name].append(time.perf_counter() - started)
    if len(found) > 1:
        raise ValueError(f"{len(found)} ways of reading {count} files give other pixels")
    rows = []
    for name in names:
        over = [loop / own for loop, own in zip(seconds[LOOP], seconds[name], strict=True)]
        row: dict[str, Any] = {"way": name, "size": side, "files": count, "repeats": repeats}
        row |= quartiles("seconds", seconds[name]) | quartiles("loop_over", over)
        row["rate"] = count / row["seconds"]
        if name == names[-1]:
            row |= towards(
                "reading", row["loop_over"], f"{count:,} files of {side} x {side}, process start included"
            )
        rows.append(row)
    return rows
