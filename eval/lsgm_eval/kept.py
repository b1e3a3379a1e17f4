"""Arrays that an earlier call has left behind: read back where they are whole and fit, else made again.

What is left is a convenience: whatever is wrong with it is said on standard error and ends nothing.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lsgm.errors import DataError, UserError
from lsgm.files.arrays import Arrays, read_arrays
from lsgm.files.limits import ARRAYS, Limit
from lsgm.files.shown import shown
from lsgm.files.write import atomic_path, claim, refuse_links

__all__ = ["claim_results", "make_way", "read_kept", "reason_of", "room_for", "write_kept"]

T = TypeVar("T")

FOLDERS = ("cells", "images", "manifests", "neighbours", "passes", "per-image", "samples", "scores")
"""What measuring calls make below a folder of results."""
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
) -> T | None:
    """Return what ``use`` makes of the arrays in a file, or of those of ``names``.

    None where there is no file, or one of no use.
    Whatever is wrong with the file, or said of its arrays by a UserError of ``use`` (`Arrays.refused`), is
    printed as ``damaged``, with the file for ``{path}`` and the reason for ``{why}``, unless that is empty.
    """
    if not os.path.lexists(path):
        return None
    try:
        return use(read_arrays(path, names, limit=limit))
    except UserError as error:
        # Another process may remove a file in the meantime, and a link may lead nowhere.
        if damaged and not isinstance(error.__cause__, FileNotFoundError):
            said = damaged.format(path=shown(str(path)), why=reason_of(error, path))
            print(f"lsgm: {said}", file=sys.stderr)
        return None


def write_kept(path: Path, arrays: Mapping[str, NDArray[Any]], *, packed: bool = False) -> None:
    """Replace a file by arrays: by all of them or, after a crash, not at all. Raises DataError, OSError."""
    make_way(path)
    whole: dict[str, Any] = dict(arrays)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        (np.savez_compressed if packed else np.savez)(file, **whole)


def make_way(path: Path) -> None:
    """Give a folder that lies where a file is to be another name, under which nothing in it is lost."""
    if path.is_dir() and not path.is_symlink():
        refuse_links(path)
        aside = path.with_name(f"{path.name}.aside-{uuid.uuid4().hex[:8]}")
        os.rename(path, aside)
        print(f"lsgm: {shown(str(path))} is a folder and is called {shown(aside.name)} now", file=sys.stderr)


def reason_of(error: UserError, path: Path) -> str:
    """Return what an error says of a file, without its name and without what to do about it."""
    said = str(error).removeprefix(shown(str(path))).removeprefix(":").strip()
    for advice in ADVICE:
        said = said.removesuffix(advice)
    return said


def room_for(size: int) -> Limit:
    """Return the limit of a file whose arrays take ``size`` bytes in the memory of an honest call."""
    return Limit(ARRAYS.variable, max(ARRAYS.default, size), ARRAYS.unit)
