"""Finished measurements, each under the hash of what it depends on: the same command again reuses them."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsgm.config import require
from lsgm.errors import DataError
from lsgm.files.records import read_record
from lsgm.files.shown import shown
from lsgm.files.write import atomic_path
from lsgm_eval.kept import make_way, reason_of
from lsgm_eval.row_types import row_problem
from lsgm_eval.rows import KEYS

__all__ = ["CellStore", "cell_key"]

Row = dict[str, Any]

TEXTS = ("task", "model", "metric", "dataset", "run_id", "group")
"""Keys that are texts in every row of a measurement."""


@dataclass(frozen=True)
class _Cell:
    """A finished measurement as its file holds it."""

    key: str
    rows: tuple[dict[str, Any], ...]
    files: tuple[str, ...]
    """What the measurement wrote beside its rows, below the folder that the store is in."""

    def __post_init__(self) -> None:
        for row in self.rows:
            require(row.keys() == set(KEYS), "the keys of its rows are not those of result rows")
            for key in TEXTS:
                require(isinstance(row[key], str), f"the '{key}' of its rows is of another type")
            # They go to a file of results, which nothing would read again with one that may not stand there.
            problem = row_problem(row)
            require(not problem, f"of its rows {problem}")


def cell_key(parts: Mapping[str, Any]) -> str:
    """Return the sha256 of what a measurement depends on, as canonical JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class CellStore:
    """A folder of finished cells; one is reused only while the files it wrote beside its rows exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> list[Row] | None:
        """Return the rows of a finished cell, or None; a damaged one is named on standard error."""
        path = self._path(key)
        if not os.path.lexists(path):
            return None
        try:
            cell = read_record(_Cell, path)
            if cell.key != key:
                raise DataError(f"{path} is the cell of another measurement")
        except DataError as error:
            print(
                f"lsgm: the finished measurement {shown(str(path))} is damaged ({reason_of(error, path)}); "
                "measuring again",
                file=sys.stderr,
            )
            return None
        there = all(os.path.exists(self.folder.parent / name) for name in cell.files)
        return list(cell.rows) if there else None

    def put(self, key: str, rows: Sequence[Row], files: Sequence[Path] = ()) -> None:
        """Store the rows of a finished cell, which wrote ``files`` below the store's parent folder."""
        names = [str(file.relative_to(self.folder.parent)) for file in files]
        cell = {"key": key, "rows": list(rows), "files": names}
        text = json.dumps(cell, indent=1, allow_nan=False)
        make_way(self._path(key))
        with atomic_path(self._path(key)) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _path(self, key: str) -> Path:
        return self.folder / f"{key[:32]}.json"
