"""Images that are scored already: kept batch by batch, so that no interruption costs more than one batch."""

from __future__ import annotations

import sys
import time
import uuid
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsgm.files.write import atomic_path

__all__ = ["Columns", "ScoreStore", "join_columns", "select_rows"]

Columns = Mapping[str, NDArray[Any]]
"""Numbers of N images by name, each [N]; ``rows`` holds the images' rows in their split."""

DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""What NumPy and zipfile answer to a file that is cut short, overwritten or empty."""


class ScoreStore:
    """A folder with one file for each finished batch; several processes may add to it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, columns: Columns) -> None:
        """Keep a finished batch: all of it or, after a crash, nothing."""
        # Names sort by age and no two processes, on no two machines, choose the same one.
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:12]}.npz"
        arrays: dict[str, Any] = dict(columns)
        with atomic_path(self.folder / name) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)

    def finished(self) -> Columns:
        """Return the numbers of all finished images, each once, in the order of their rows.

        Of an image that several batches hold, the latest counts. A damaged file is named on standard error.
        Empty, without any column, where nothing is finished.
        """
        return join_columns([part for path in self._paths() if (part := _read(path)) is not None])

    def compact(self) -> None:
        """Put all batches into one file, in whose place damaged ones are removed too."""
        paths = self._paths()
        if len(paths) > 1:
            parts = [part for path in paths if (part := _read(path)) is not None]
            if parts:
                self.add(join_columns(parts))
            for path in paths:
                path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.npz"))


def _read(path: Path) -> Columns | None:
    """Return one batch, or None for a damaged file and for one that another process has just merged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = {name: file[name] for name in file.files}
        if any(value.shape != columns["rows"].shape for value in columns.values()):
            raise ValueError("its columns differ in length")
    except FileNotFoundError:
        return None
    except DAMAGE as error:
        print(
            f"lsgm: the finished scores {path} are damaged ({error}); their images are measured again",
            file=sys.stderr,
        )
        return None
    return columns


def join_columns(parts: Sequence[Columns]) -> Columns:
    """Return all rows of ``parts`` in ascending order, each once and from the last part that holds it.

    Columns that one of the parts lacks are left out; parts without any column count for nothing.
    """
    parts = [part for part in parts if part]
    if not parts:
        return {}
    names = [name for name in parts[-1] if all(name in part for part in parts)]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in names}
    # np.unique gives the first place of a value, which in reverse is the last one.
    last = len(whole["rows"]) - 1 - np.unique(whole["rows"][::-1], return_index=True)[1]
    return {name: value[last] for name, value in whole.items()}


def select_rows(columns: Columns, rows: NDArray[Any]) -> Columns:
    """Return the numbers of ``rows`` in that order, without those that ``columns`` does not hold."""
    if not columns:
        return {}
    known = rows[np.isin(rows, columns["rows"])]
    order = np.argsort(columns["rows"])
    place = order[np.searchsorted(columns["rows"], known, sorter=order)]
    return {name: value[place] for name, value in columns.items()}
