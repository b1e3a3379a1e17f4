"""What there is in a folder that somebody sent: nothing is passed over because it cannot be looked at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from lsgm.errors import DataError
from lsgm.files.names import shown

__all__ = ["below", "listed", "present"]


def present(path: Path) -> bool:
    """Say whether there is anything of a name, be it a link that leads nowhere.

    Raises DataError where its folder does not let one look.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise _unseen(path, error) from error
    return True


def below(place: Path) -> Iterator[Path]:
    """Yield everything below a folder, but not what links lead to.

    Raises DataError naming a folder that cannot be looked into.
    """
    folders = [place]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    yield Path(entry.path)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
        except OSError as error:
            raise _unseen(folder, error) from error


def listed(folder: Path, pattern: str) -> list[Path]:
    """Return what of a folder fits a pattern, ``*.png`` or ``*/manifest.json``, in order; none without it.

    Raises DataError where the folder, or one in it that the pattern leads through, cannot be looked into.
    """
    head, _, rest = pattern.partition("/")
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in entries if fnmatchcase(entry.name, head)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unseen(folder, error) from error
    if not rest:
        return sorted(found)
    inside = [path / rest for path in sorted(found) if os.path.isdir(path)]
    return [path for path in inside if present(path)]


def _unseen(path: Path, error: OSError | ValueError) -> DataError:
    why = error.strerror if isinstance(error, OSError) else str(error)
    return DataError(f"{shown(str(path))} cannot be looked into ({why}); make it readable, or move it away")
