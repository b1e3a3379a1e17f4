"""Folders of which everybody may change what is in them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lsgm.errors import DataError, UserError
from lsgm.files.shown import shown

__all__ = ["refuse_shared_folder"]


def refuse_shared_folder(path: Path, error: type[UserError] = DataError) -> None:
    """Raise ``error`` where everybody may put another file in the place of the one at ``path``.

    That is so where the file, or the folder that it lies in once links are followed, can be written by others
    than its owner and its group, as the system's folder for temporary files can; and where a folder further
    up can, unless only owners may rename what is in it (the sticky bit). Systems without such rights pass.
    """
    if not hasattr(os, "getuid"):
        return
    place = Path(os.path.realpath(path))
    for part in (place, *place.parents):
        try:
            mode = part.stat().st_mode
        except OSError:
            continue
        kept = mode & stat.S_ISVTX and part not in (place, place.parent)
        if mode & stat.S_IWOTH and not kept:
            raise error(
                f"{shown(str(place))} is not taken, because everybody may write to {shown(str(part))}; copy "
                f"it to a folder of your own, or run `chmod o-w {shown(str(part))}`"
            )
