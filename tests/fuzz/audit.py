"""What a process does besides reading: writes elsewhere, programs, the network, code of an input."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lsgm.files.write import TEMPORARY

__all__ = ["watch"]

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    "os.remove": (0,),
    "os.rename": (0, 1),
    "os.mkdir": (0,),
    "os.rmdir": (0,),
    "os.link": (1,),
    "os.symlink": (1,),
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.truncate": (0,),
    "os.utime": (0,),
    "shutil.rmtree": (0,),
    "shutil.copyfile": (1,),
    "shutil.move": (1,),
}
"""Events of Python's own and which of their arguments are paths that they change."""
_FOLLOWING = ("os.chmod", "os.chown", "os.truncate", "os.utime", "shutil.copyfile")
_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn")
_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")
_ALLOWED = ("git", "nvidia-smi", "ldconfig", "/sbin/ldconfig", "uname", "gcc", "fc-list", "lscpu")
_DEVICES = ("/dev/null", "/dev/shm", "/proc/", "/dev/tty", "/dev/pts")


def watch(allowed: Sequence[Path], base: Path) -> list[str]:
    """Return a list that grows by whatever this process does from now on and should not.

    It may write below ``allowed``. An audit hook cannot be taken out again, so this is for a process that
    ends soon. What is written in C escapes it, and is seen by the folder's snapshot.
    """
    wrong: list[str] = []
    roots = [os.path.realpath(path) for path in allowed]
    inputs = os.path.realpath(base)

    def outside(path: Any, follow: bool = True) -> bool:
        """Return whether a path, or with ``follow`` what it leads to, is none that may be written."""
        if isinstance(path, int) or path is None:
            return False
        name = os.fsdecode(path).rstrip(os.sep)
        parent = os.path.realpath(os.path.dirname(name) or ".")
        real = os.path.realpath(name) if follow else os.path.join(parent, os.path.basename(name))
        if any(
            real == root or real.startswith((root + os.sep, os.path.join(os.path.dirname(root), TEMPORARY)))
            for root in roots
        ):
            return False  # a folder of a temporary name beside its place is renamed to it in the end
        return not real.startswith(_DEVICES)

    def hook(event: str, details: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = details
            writes = (
                any(letter in mode for letter in "wax+")
                if isinstance(mode, str)
                else bool((flags or 0) & _WRITES)
            )
            if writes and outside(path):
                wrong.append(f"opened {path!r} to write")
        elif event in _CHANGES:
            for k in _CHANGES[event]:
                # Renamed and removed are names, not what a link at that name leads to.
                if k < len(details) and isinstance(details[k], str | bytes | os.PathLike):
                    name = os.fsdecode(details[k])
                    there = event == "os.mkdir" and os.path.isdir(name)
                    if not there and outside(name, follow=event in _FOLLOWING):
                        wrong.append(f"{event} of {name!r}")
        elif event in _PROGRAMS:
            program = os.path.basename(str(details[0] if details[0] is not None else details[1][0]))
            if program not in _ALLOWED:
                wrong.append(f"{event} of {details[0]!r} {details[1:2]!r}"[:200])
        elif event in _NETWORK:
            wrong.append(f"{event} {details!r}"[:200])
        elif event == "exec":  # whatever is imported comes by here too
            file = str(getattr(details[0], "co_filename", ""))
            if not file.startswith("<") and os.path.realpath(file).startswith(inputs + os.sep):
                wrong.append(f"RAN {file}")

    sys.addaudithook(hook)
    return wrong
