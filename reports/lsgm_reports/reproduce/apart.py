"""Running a line of `lsgm` where it was typed, apart from what lies there."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import lsgm
import lsgm_reports
from lsgm.agreed import only
from lsgm.errors import UserError
from lsgm.files.shown import shown

__all__ = ["run_apart"]

PLACES = ("LSGM_CACHE", "LSGM_DATA", "XDG_CACHE_HOME", "TORCH_HOME", "MPLCONFIGDIR")
"""Variables that hold paths, which mean the folder of the user also after `chdir`."""


def run_apart(
    argv: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    agreed: Collection[str] = (),
    strangers: Collection[Path] = (),
) -> int:
    """Run a line of `lsgm` in this process, in ``directory``, and return its exit status.

    ``agreed`` are the words whose code may run; nothing is imported from ``directory`` nor from the folders
    ``strangers``, and every path that the user's environment names is meant where the user is. Raises
    UserError where the directory cannot be entered.
    """
    from lsgm.cli import main

    here = Path.cwd()
    pinned = {name: _absolute(os.environ[name]) for name in PLACES if os.environ.get(name)}
    foreign = [directory, *strangers] if directory != here else list(strangers)
    with _set(pinned | dict(environment)), _import_path(foreign), only(agreed, here):
        try:
            os.chdir(directory)
        except OSError as error:
            raise UserError(
                f"{shown(str(directory))} cannot be entered ({error.strerror}); make it readable, or remove "
                "the manifest to do without"
            ) from error
        try:
            return main(list(argv[1:]))
        finally:
            os.chdir(here)


def _absolute(value: str) -> str:
    """Return paths between colons, each as it is meant here."""
    return os.pathsep.join(
        os.path.abspath(os.path.expanduser(part)) for part in value.split(os.pathsep) if part
    )


@contextlib.contextmanager
def _import_path(foreign: Collection[Path]) -> Iterator[None]:
    """Look for modules where they were looked for, but in no foreign folder.

    The folders that this code itself comes from stay, also where measuring was begun in one of them.
    """
    own = {os.path.realpath(Path(package.__path__[0]).parent) for package in (lsgm, lsgm_reports)}
    refused = [os.path.realpath(folder) for folder in foreign]
    before = list(sys.path)
    # An empty entry is the working directory, whichever it is by then.
    absolute = [os.path.abspath(entry) for entry in before]
    sys.path[:] = [
        entry
        for entry in absolute
        if os.path.realpath(entry) in own
        or not any(_within(os.path.realpath(entry), folder) for folder in refused)
    ]
    try:
        yield
    finally:
        sys.path[:] = before


def _within(path: str, folder: str) -> bool:
    """Say whether a folder of modules is a foreign folder; what is installed below one stays."""
    inside = Path(path).is_relative_to(folder)
    return inside and not Path(path).is_relative_to(os.path.realpath(sys.prefix))


@contextlib.contextmanager
def _set(environment: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment for a while."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
