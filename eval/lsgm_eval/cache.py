"""Arrays that an earlier call has left behind: read back where they are whole and fit, else made again.

What is left is a convenience: whatever is wrong with it is said on standard error and ends nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lsgm.distributed import ALONE, World
from lsgm.errors import DataError, UserError
from lsgm.files.arrays import Arrays, read_arrays
from lsgm.files.limits import ARRAYS, Limit
from lsgm.files.names import shown
from lsgm.files.text import read_table
from lsgm.files.write import atomic_path, claim, refuse_links
from lsgm.logs import log
from lsgm.results.manifest import digest_of
from lsgm.results.row import Row, row_from

T = TypeVar("T")

FOLDERS = ("cells", "images", "manifests", "neighbours", "passes", "per-image", "samples", "scores")
"""What measuring calls make below a folder of results."""
SEAL = "seal"
ADVICE = ("; remove it, or write it again", "; restore it from a copy")
"""What readers say is to be done about a file; here it is done."""


def claim_results(out: Path) -> Path:
    """Note that this call writes into a folder of results, and nowhere else, and return it.

    A folder that somebody sent may hold links, and files in the place of folders: raises DataError for these
    now, and not when there is something to write there.
    """
    claim(out)
    for place in (out / name for name in FOLDERS):
        refuse_links(place)
        if place.exists() and not place.is_dir():
            raise DataError(f"{shown(str(place))} is not a folder, where one is needed; remove it")
    return out


def read_kept(
    path: Path,
    use: Callable[[Arrays], T],
    *,
    damaged: str = "",
    limit: Limit = ARRAYS,
    names: Collection[str] | None = None,
    sealed: bool = False,
) -> T | None:
    """Return what ``use`` makes of the arrays in a file, or of those of ``names``.

    None where there is no file, or one of no use. Whatever is wrong with the file, or said of its arrays by a
    UserError of ``use`` (`Arrays.refused`), is printed as ``damaged``, with the file for ``{path}`` and the
    reason for ``{why}``, unless that is empty. ``sealed`` says that `write_kept` was asked for a seal: arrays
    of any other origin are refused before they are used.
    """
    if not os.path.lexists(path):
        return None
    try:
        arrays = read_arrays(path, names, limit=limit)
        if sealed and arrays.text(SEAL) != _seal(arrays):
            raise arrays.refused("holds other numbers than were written")
        return use(arrays)
    except UserError as error:
        # Another process may remove a file in the meantime, and a link may lead nowhere.
        if damaged and not isinstance(error.__cause__, FileNotFoundError):
            log.warning(damaged.format(path=shown(str(path)), why=reason_of(error, path)))
        return None


def write_kept(
    path: Path, arrays: Mapping[str, NDArray[Any]], *, packed: bool = False, sealed: bool = False
) -> None:
    """Replace a file by arrays: by all of them or, after a crash, not at all. Raises DataError, OSError."""
    make_way(path)
    whole: dict[str, Any] = dict(arrays)
    if sealed:
        whole[SEAL] = np.array(_seal(arrays))
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        (np.savez_compressed if packed else np.savez)(file, **whole)


def _seal(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the sha256 of all arrays but the seal, with their names, types and shapes."""
    digest = hashlib.sha256()
    for name in sorted(arrays.keys() - {SEAL}):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def make_way(path: Path) -> None:
    """Give a folder that lies where a file is to be another name, under which nothing in it is lost."""
    if path.is_dir() and not path.is_symlink():
        refuse_links(path)
        aside = path.with_name(f"{path.name}.aside-{uuid.uuid4().hex[:8]}")
        os.rename(path, aside)
        log.warning(f"{shown(str(path))} is a folder and is called {shown(aside.name)} now")


def reason_of(error: UserError, path: Path) -> str:
    """Return what an error says of a file, without its name and without what to do about it."""
    said = str(error).removeprefix(shown(str(path))).removeprefix(":").strip()
    for advice in ADVICE:
        said = said.removesuffix(advice)
    return said


def room_for(size: int) -> Limit:
    """Return the limit of a file whose arrays take ``size`` bytes in the memory of an honest call."""
    return Limit(ARRAYS.variable, max(ARRAYS.default, size), ARRAYS.unit)


# A hash of the source code that a result depends on, so that nothing computed by other code is reused


@cache
def code_version(*packages: str) -> str:
    """Return the sha256 of all Python sources of some packages or modules, dotted names.

    Editing any of them is another version: a needless recomputation costs minutes, a stale number a paper.
    A module that has no source file (a notebook's, say) counts by its name alone.
    """
    digest = hashlib.sha256()
    for name in sorted(set(packages)):
        digest.update(name.encode())
        spec = importlib.util.find_spec(name) if name != "__main__" else None
        if spec is None:
            continue
        folders = [Path(place) for place in spec.submodule_search_locations or ()]
        sources = [(str(p.relative_to(f)), p) for f in folders for p in sorted(f.rglob("*.py"))]
        if not folders and spec.origin and Path(spec.origin).is_file():
            sources = [(name, Path(spec.origin))]
        for label, path in sources:
            digest.update(label.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


# Finished measurements, each under the hash of what it depends on: the same command again reuses them


class CellStore:
    """A folder of finished cells, each under the key of all that it depends on.

    One is reused only while the files it wrote beside its rows exist. All processes ask for it together, and
    the first one reads and writes.
    """

    def __init__(self, folder: Path, world: World = ALONE) -> None:
        self.folder, self.world = folder, world

    def get(self, key: Callable[[], str]) -> list[Row] | None:
        """Return the rows of a finished cell, or None; a damaged one is named on standard error.

        ``key`` is asked of the first process alone.
        """
        return self.world.on_main(lambda: self._read(key()))

    def rows(
        self, key: Callable[[], str], measure: Callable[[], list[Row]], files: Sequence[Path] = ()
    ) -> list[Row]:
        """Return the rows of a cell, measured where there is none; all processes take part in ``measure``.

        What it wrote of ``files``, below the store's parent folder, the cell depends on.
        """
        rows = self.get(key)
        if rows is None:
            found = rows = measure()
            self.world.on_main(lambda: self._write(key(), found, [file for file in files if file.exists()]))
        return rows

    def _read(self, key: str) -> list[Row] | None:
        path = self._path(key)
        if not os.path.lexists(path):
            return None
        try:
            cell = read_table(path)
            if cell.pop(SEAL, None) != digest_of(cell):
                raise DataError(f"{path} holds other rows than were written")
            if cell["key"] != key:
                raise DataError(f"{path} is the cell of another measurement")
            rows = [row_from(row, keep=True) for row in cell["rows"]]
        except DataError as error:
            log.warning(
                f"the finished measurement {shown(str(path))} is damaged ({reason_of(error, path)}); "
                "measuring again"
            )
            return None
        there = all(os.path.exists(self.folder.parent / name) for name in cell["files"])
        return rows if there else None

    def _write(self, key: str, rows: Sequence[Row], files: Sequence[Path]) -> None:
        names = [str(file.relative_to(self.folder.parent)) for file in files]
        cell = {"key": key, "rows": [row.as_dict() for row in rows], "files": names}
        text = json.dumps(cell | {SEAL: digest_of(cell)}, indent=1, allow_nan=False)
        make_way(self._path(key))
        with atomic_path(self._path(key)) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _path(self, key: str) -> Path:
        return self.folder / f"{key[:32]}.json"
