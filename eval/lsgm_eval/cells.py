"""Finished measurements, each under the hash of what it depends on: the same command again reuses them."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lsgm.files.write import atomic_path

__all__ = ["CellStore", "cell_key"]

Row = dict[str, Any]


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
        if not path.exists():
            return None
        try:
            cell = json.loads(path.read_text(encoding="utf-8"))
            rows, made = list(cell["rows"]), list(cell["files"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(
                f"lsgm: the finished measurement {path} is damaged ({error}); measuring again",
                file=sys.stderr,
            )
            return None
        return rows if all((self.folder.parent / name).exists() for name in made) else None

    def put(self, key: str, rows: Sequence[Row], files: Sequence[Path] = ()) -> None:
        """Store the rows of a finished cell, which wrote ``files`` below the store's parent folder."""
        names = [str(file.relative_to(self.folder.parent)) for file in files]
        text = json.dumps({"rows": list(rows), "files": names}, indent=1, allow_nan=False)
        with atomic_path(self._path(key)) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _path(self, key: str) -> Path:
        return self.folder / f"{key[:32]}.json"
