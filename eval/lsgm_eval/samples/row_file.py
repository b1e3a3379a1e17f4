"""Features of many images in a file that is read a block at a time, and never mapped.

A file that is cut short while it is mapped ends the process; one that is read ends in a sentence. It is an
npy file, behind whose numbers their sha256 lies.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from lsgm.errors import DataError, UserError
from lsgm.files.names import shown
from lsgm.files.regular import open_regular
from lsgm.files.write import atomic_path
from lsgm_eval.cache import make_way, reason_of

__all__ = ["RowFile", "open_rows", "write_rows"]

DTYPE = np.dtype("<f4")
BLOCK = 2**24
"""Bytes that are read at once to check them."""
DIGEST = 32


class RowFile:
    """Features float32 [N, D] on disk, of which rows are read by a slice or by their numbers."""

    ndim = 2

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self.path, self.shape = path, shape
        self._file = open_regular(path)
        self._start = _header(self._file, path, shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows [K, D]. Raises DataError where the file has become shorter."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1:
                raise ValueError("rows are read one after the other")
            return self._read(start, max(stop - start, 0))
        found = [self._read(int(row), 1) for row in rows]
        return np.concatenate(found) if found else np.empty((0, self.shape[1]), np.float32)

    def check(self) -> None:
        """Raise DataError unless the numbers are those that were written."""
        digest = hashlib.sha256()
        size = max(1, BLOCK // (DTYPE.itemsize * self.shape[1]))
        for start in range(0, len(self), size):
            digest.update(self[start : start + size].tobytes())
        self._file.seek(-DIGEST, os.SEEK_END)
        if self._file.read(DIGEST) != digest.digest():
            raise DataError(f"{shown(str(self.path))} holds other numbers than were written")

    def _read(self, row: int, count: int) -> NDArray[np.float32]:
        width = self.shape[1]
        self._file.seek(self._start + row * width * DTYPE.itemsize)
        raw = self._file.read(count * width * DTYPE.itemsize)
        if len(raw) < count * width * DTYPE.itemsize:
            raise DataError(
                f"{shown(str(self.path))} was cut short while it was read: run the same command again"
            )
        return np.frombuffer(raw, DTYPE).reshape(count, width)


def open_rows(path: Path, shape: tuple[int, int]) -> RowFile | None:
    """Return the rows in a file, None where there is none, or one that is damaged, which is said."""
    if not os.path.lexists(path):
        return None
    try:
        rows = RowFile(path, shape)
        rows.check()
    except UserError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            why = reason_of(error, path)
            print(
                f"lsgm: the cached features {shown(str(path))} are damaged ({why}); computing them again",
                file=sys.stderr,
            )
        return None
    return rows


@contextmanager
def write_rows(path: Path, shape: tuple[int, int]) -> Iterator[Callable[[NDArray[np.float32]], None]]:
    """Yield a function that takes N rows, some at a time; the file is there once the block has ended well."""
    make_way(path)
    digest, written = hashlib.sha256(), 0
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        npy.write_array_header_1_0(file, {"descr": DTYPE.str, "fortran_order": False, "shape": shape})

        def keep(rows: NDArray[np.float32]) -> None:
            nonlocal written
            raw = np.ascontiguousarray(rows, DTYPE).tobytes()
            digest.update(raw)
            file.write(raw)
            written += len(rows)

        yield keep
        if written != shape[0]:
            raise ValueError(f"{written} rows were kept of {shape[0]}")
        file.write(digest.digest())


def _header(file: IO[bytes], path: Path, shape: tuple[int, int]) -> int:
    """Return where the numbers begin. Raises DataError unless the file is of this shape and its length."""
    size = os.fstat(file.fileno()).st_size
    try:
        version = npy.read_magic(file)
        found, fortran, dtype = npy.read_array_header_1_0(file) if version == (1, 0) else ((), True, None)
    except Exception as error:  # whatever a header of other bytes makes NumPy's parser raise
        raise DataError(f"{shown(str(path))} is no npy file") from error
    start = file.tell()
    if (found, fortran, dtype) != (shape, False, DTYPE):
        raise DataError(f"{shown(str(path))} is of {list(found)} features in {dtype}, not of {list(shape)}")
    if size != start + shape[0] * shape[1] * DTYPE.itemsize + DIGEST:
        raise DataError(f"{shown(str(path))} has {size:,} bytes, which are not those of its rows")
    return start
