"""Bounds of single images on disk: batch by batch while they are scored, then as a file for others."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsgm.data import dataset_names
from lsgm.files.arrays import Arrays
from lsgm.files.limits import ARRAYS, Limit
from lsgm.files.names import file_name
from lsgm.files.write import refuse_links
from lsgm_eval.cache import SEAL, read_kept, write_kept

METRIC = {"nelbo": "nelbo", "iw": "iw", "ode": "ode_nll"}
"""What the rows of a method are called before their unit."""

Columns = Mapping[str, NDArray[Any]]
"""Numbers of N images by name, each [N]; ``rows`` holds the images' rows in their split."""

BEYOND = 1e60
"""No score of an image: sums of squares of such numbers would be infinite."""
DAMAGED = "the finished scores {path} are damaged ({why}); their images are measured again"
SCORES = Limit(ARRAYS.variable, 2**28)
"""All batches of a store together, half a million images with sixty numbers each."""

PARTS = ("term_", "group_")
"""What the columns begin with whose nats add up to the bound."""
ABOUT = ("task", "estimator", "levels_sha256")
"""Strings that a file says of its numbers."""

SOLVER = ("solver_rows", "solver_error")
"""Of a bound by a flow: images that were solved again, and how far each lies above the finer solve."""


class ScoreStore:
    """A folder with one sealed file for each finished batch; several processes may add to it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, columns: Columns) -> None:
        """Keep a finished batch: all of it or, after a crash, nothing."""
        # Names sort by age and no two processes, on no two machines, choose the same one.
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:12]}.npz"
        write_kept(self.folder / name, columns, sealed=True)

    def finished(self) -> Columns:
        """Return the numbers of all finished images, each once, in the order of their rows.

        Of an image that several batches hold, the latest counts. A damaged file is named on standard error.
        Empty, without any column, where nothing is finished.
        """
        return join_columns(self._parts())

    def compact(self) -> None:
        """Put all batches into one file, in whose place damaged ones are removed too."""
        refuse_links(self.folder)
        paths = self._paths()
        if len(paths) > 1:
            if parts := self._parts(paths):
                self.add(join_columns(parts))
            for path in paths:
                with contextlib.suppress(OSError):  # what cannot be removed is passed over, now and later
                    path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.npz"))

    def _parts(self, paths: Sequence[Path] | None = None) -> list[Columns]:
        """Return the batches that are whole, the oldest first.

        Raises DataError for too many: what is too large is no damage, and never removed.
        """
        found: list[Columns] = []
        paths, size = self._paths() if paths is None else paths, 0
        SCORES.hold(self.folder, sum(os.lstat(path).st_size for path in paths if os.path.lexists(path)))
        for path in paths:
            part = read_kept(path, dict, damaged=DAMAGED, limit=SCORES, sealed=True)
            if part is not None:
                del part[SEAL]
                size += sum(column.nbytes for column in part.values())
                SCORES.hold(self.folder, size)
                found.append(part)
        return found


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


# Every image's bound under a model as measurements leave it for others: ``per-image/<model>-<method>.npz``


def data_tag(source: str, dataset: str) -> str:
    """Return ``@photos-1a2b3c4d`` for images of a path (``source``), nothing for a data set by name.

    Names of files that depend on the images end in it, so that two folders measured into one place keep
    theirs apart. ``dataset`` is name@version@sha256.
    """
    by_path = source not in dataset_names() and bool(source) and Path(source).expanduser().exists()
    return folder_tag(dataset) if by_path else ""


def folder_tag(dataset: str) -> str:
    """Return the tag of images that came by a path, from the dataset column of their rows."""
    name = dataset.partition("@")[0][:40].encode()[:80].decode(errors="ignore")
    return f"@{file_name(name)}-{file_name(dataset.rpartition('@')[2][:8])}"


def scores_file(out: Path, model: str, method: str, variant: str = "") -> Path:
    """Return where every image's bound under a model is kept; ``variant`` names other data or protocols."""
    return out / "per-image" / f"{file_name(model)}-{method}{variant}.npz"


def read_scores(path: Path, *, damaged: str = "") -> Arrays | None:
    """Return every image's bound as a measurement keeps it; None where there is none, or a damaged file.

    Its rows are each there once, and every array of numbers has one for each of them. What is wrong is told
    as `read_kept` does.
    """
    return read_kept(path, _checked, damaged=damaged)


def _checked(arrays: Arrays) -> Arrays:
    _check_images(arrays, "rows", [name for name in arrays if name == "nats" or name.startswith(PARTS)])
    arrays.take("nats", "f", 1)
    for name in (name for name in ABOUT if name in arrays):
        arrays.text(name)
    if set(SOLVER) & set(arrays):
        _check_images(arrays, *SOLVER[:1], SOLVER[1:])
    return arrays


def _check_images(arrays: Arrays, rows: str, columns: Iterable[str]) -> None:
    """Raise DataError unless the images of ``rows`` are each there once, with a number in every column."""
    numbers = arrays.take(rows, "i", 1)
    if len(np.unique(numbers)) < len(numbers):
        raise arrays.refused("scores one image twice")
    for name in columns:
        column = arrays.take(name, "f", 1)
        if len(column) != len(numbers) or not (np.abs(column.astype(float)) < BEYOND).all():
            raise arrays.refused(f"has not a number in '{name}' for every image")
