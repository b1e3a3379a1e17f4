"""Many image files looked at or decoded side by side, what comes of them in their order.

Pillow decodes and hashlib hashes outside of Python's lock, so that threads serve where a file takes long.
Small files are mostly Python's own work: many of them go to processes, few are done one after the other.
Free of torch, which those processes do without.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import starmap
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lsgm import workers
from lsgm.config import Convert, require
from lsgm.data.imagefile import ImageHeader, decode, fitted, inspect, reading
from lsgm.errors import DataError
from lsgm.files.limits import IMAGE_FILE
from lsgm.files.names import shown
from lsgm.files.regular import read_bytes

LARGE = 2**15
"""Bytes of a file from which on it pays to give it to a thread."""
MANY = 4000
"""Small files from which on it pays to start processes, which takes about as long as 4,000 of them."""
MOST = 16
CHUNK, CHUNK_BYTES = 64, 2**20
"""Files, and bytes that they are as pixels, that are given to a worker at once."""
_COPIES = 16
"""Bytes for each pixel while an image is decoded, several copies of up to four channels."""
_chosen: list[int] = []


def set_workers(count: int) -> None:
    """Have ``count`` files read at once by this process, as many as there are cores where it is 0.

    Raises ConfigError for a negative count.
    """
    require(count >= 0, f"workers is {count}; give how many files are decoded at once, or 0")
    _chosen[:] = [count] if count else []


def worker_count() -> int:
    """Return how many files are read at once."""
    return _chosen[-1] if _chosen else min(MOST, workers.cores())


class Room:
    """A number of bytes that those at work share; one that needs more than there is works alone."""

    def __init__(self, size: int) -> None:
        self.size, self._used, self._changed = size, 0, threading.Condition()

    @contextlib.contextmanager
    def taken(self, count: int) -> Iterator[None]:
        """Hold ``count`` bytes, after those who hold too many have given them back."""
        count = min(count, self.size)
        with self._changed:
            self._changed.wait_for(lambda: self._used + count <= self.size)
            self._used += count
        try:
            yield
        finally:
            with self._changed:
                self._used -= count
                self._changed.notify_all()


_ROOM = Room(2**29)
_NOTHING = contextlib.nullcontext()


def _room(count: int) -> contextlib.AbstractContextManager[None]:
    return _ROOM.taken(count) if count > 2**20 else _NOTHING


class Asked(NamedTuple):
    """A file to look at or, with the digest and the pixels that were found then, to decode."""

    source: str | Callable[[], bytes]
    """Its path, or what returns its bytes."""
    name: str
    """What errors call it, after the name of its set."""
    size: int
    """Its bytes."""
    digest: bytes = b""
    pixels: int = 0


def look(asked: Asked, where: str, convert: Convert) -> tuple[ImageHeader, bytes]:
    """Return what a file's header says, and the sha256 of its bytes. Raises DataError as `inspect` does."""
    label = f"{where}: {shown(asked.name)}"
    with _room(2 * asked.size):
        raw = _bytes(asked, label)
        return inspect(raw, label, convert), hashlib.sha256(raw).digest()


def pixels_of(
    asked: Asked, where: str, convert: Convert, channels: int, size: tuple[int, int] | None
) -> NDArray[np.uint8]:
    """Return a file's image uint8 [C, H, W], brought to a size where one is given (`fitted`).

    Raises DataError for a file that is damaged, or has changed since it was looked at.
    """
    label = f"{where}: {shown(asked.name)}"
    with _room(asked.size + _COPIES * asked.pixels):
        raw = _bytes(asked, label)
        if hashlib.sha256(raw).digest() != asked.digest:
            raise DataError(f"{label} has changed since it was checked: run the command again")
        found = decode(raw, label, convert, channels)
        return found if size is None else fitted(found, size)


def _bytes(asked: Asked, label: str) -> bytes:
    try:
        return read_bytes(asked.source, IMAGE_FILE) if isinstance(asked.source, str) else asked.source()
    except Exception as problem:
        try:
            with reading(label):
                raise
        except DataError as error:
            if str(error).startswith(label):
                raise
            why = str(error).partition(";")[0]
            raise DataError(f"{label} cannot be read ({why}): replace it") from problem


_FUNCTIONS: dict[str, Callable[..., Any]] = {"look": look, "pixels_of": pixels_of}


def some(function: str, chunk: Sequence[Asked], common: Sequence[Any]) -> tuple[Any, Exception | None]:
    """Return what a function of this module makes of files up to the first that fails, and how that failed.

    Images of one shape come as one array [N, H, W, C], in which colours lie side by side as decoders leave
    them: what lies otherwise is packed byte by byte on its way to another process.
    """
    found: list[Any] = []
    failed = None
    for asked in chunk:
        try:
            found.append(_FUNCTIONS[function](asked, *common))
        except Exception as error:
            failed = error
            break
    if function == "pixels_of" and len({each.shape for each in found}) == 1:
        return np.stack([each.transpose(1, 2, 0) for each in found]), failed
    return found, failed


class Team:
    """Those who read the files of a set; `set_workers` says how many.

    Args:
        where: What errors call the set.
        files: How many files it has.
        size: Their bytes in all.
        movable: Whether another process can read them, as files in a folder.
    """

    def __init__(self, where: str, files: int, size: int, *, movable: bool) -> None:
        self.where, self.count = where, worker_count()
        small = size < LARGE * files
        self.kind = "one after the other"
        self._submit: Callable[..., Future[Any]] | None = None
        if self.count > 1 and small and movable and files >= MANY:
            self.kind = "processes"
            team = workers.Workers(f"{__name__}:{some.__name__}", self.count)
            self._submit = team.submit
            weakref.finalize(self, team.close)
        elif self.count > 1 and not small:
            self.kind = "threads"
            pool = ThreadPoolExecutor(self.count, "lsgm-files")
            self._submit = lambda *arguments: pool.submit(some, *arguments)
            weakref.finalize(self, pool.shutdown, wait=False, cancel_futures=True)

    def look(self, files: Iterable[Asked], convert: Convert) -> Iterator[tuple[ImageHeader, bytes]]:
        """Yield what `look` returns of each file, in order; raise where it does."""
        for found in self._chunks("look", files, (self.where, convert)):
            yield from found

    def pixels(
        self, files: Iterable[Asked], convert: Convert, channels: int, size: tuple[int, int] | None
    ) -> Iterator[Any]:
        """Yield what `pixels_of` returns of each file, some at a time in order; raise where it does."""
        for found in self._chunks("pixels_of", files, (self.where, convert, channels, size)):
            yield found.transpose(0, 3, 1, 2) if isinstance(found, np.ndarray) else found

    def _chunks(self, function: str, files: Iterable[Asked], common: tuple[Any, ...]) -> Iterator[Any]:
        submit, lead = self._submit, 2 * self.count
        most = 1 if self.kind == "threads" else CHUNK
        calls = ((function, chunk, common) for chunk in _chunks(files, most))
        # A few chunks ahead, so that a bad file stops the work soon and images do not pile up.
        for found, failed in workers.in_order(submit, calls, lead) if submit else starmap(some, calls):
            yield found
            if failed is not None:
                raise failed


def _chunks(files: Iterable[Asked], most: int) -> Iterator[list[Asked]]:
    chunk: list[Asked] = []
    held = 0
    for asked in files:
        chunk.append(asked)
        held += asked.size + 4 * asked.pixels
        if len(chunk) >= most or held >= CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk
