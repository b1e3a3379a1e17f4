"""What may lie in the place of a file that is no file, or another than it seems."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

__all__ = ["PLACES", "put"]


def _socket(path: Path, beside: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made, _Inside(path.parent):
        made.bind(path.name)


class _Inside:
    """A while in another folder, because a socket's whole path may have 100 characters at most."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        self._before = os.getcwd()
        os.chdir(self._folder)

    def __exit__(self, *_: object) -> None:
        os.chdir(self._before)


def _moved_out(path: Path, beside: Path) -> Path:
    """Return a copy outside of what was at ``path``, which a link may lead to."""
    out = beside / f"moved-{path.name}"
    if path.is_file():
        shutil.copyfile(path, out)
    else:
        out.write_bytes(b"")
    return out


def _link_out(path: Path, beside: Path) -> None:
    target = _moved_out(path, beside)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _second_name(path: Path, beside: Path) -> None:
    target = _moved_out(path, beside)
    path.unlink(missing_ok=True)
    path.hardlink_to(target)


def _folder_out(path: Path, beside: Path) -> None:
    """Let the folder that a file lies in be a link that leads out, to a copy of what it held."""
    target = beside / f"folder-{path.parent.name}"
    if "here" in (path.parent.name, path.parent.parent.name):
        # The folder that a command is told to write to may be a link: whoever typed its name chose it.
        _link_out(path, beside)
        return
    shutil.copytree(path.parent, target, dirs_exist_ok=True, symlinks=True)
    shutil.rmtree(path.parent)
    path.parent.symlink_to(target)


def _fresh(make: Callable[[Path], object]) -> Callable[[Path, Path], None]:
    def put(path: Path, beside: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return put


PLACES: dict[str, Callable[[Path, Path], None]] = {
    "pipe": _fresh(os.mkfifo),
    "folder": _fresh(Path.mkdir),
    "full folder": _fresh(lambda path: (path / "a" / "b").mkdir(parents=True)),
    "socket": lambda path, beside: (path.unlink(missing_ok=True), _socket(path, beside))[1],
    "link out": _link_out,
    "second name": _second_name,
    "folder out": _folder_out,
    "link to zeros": _fresh(lambda path: path.symlink_to("/dev/zero")),
    "link to a terminal": _fresh(lambda path: path.symlink_to("/dev/tty")),
    "link to itself": _fresh(lambda path: path.symlink_to(path.name)),
    "link to nothing": _fresh(lambda path: path.symlink_to("../beside/not-there")),
    "link to its folder": _fresh(lambda path: path.symlink_to(".")),
    "nothing": _fresh(lambda path: None),
    "empty": _fresh(Path.touch),
}
"""What is put in the place of a file: a function of it and of the folder outside."""


def put(name: str, path: Path, beside: Path) -> None:
    """Put what ``name`` says in the place of a file; ``beside`` is a folder that nothing may write to."""
    PLACES[name](path, beside)
