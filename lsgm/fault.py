"""The last sentence: what is said of an error that nothing has foreseen, and where its traceback is."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from lsgm import __version__
from lsgm.errors import UserError
from lsgm.files.cache import cache_dir
from lsgm.files.regular import last_read
from lsgm.files.shown import shown

__all__ = ["told"]


def told(error: BaseException, argv: Sequence[str]) -> str:
    """Return one sentence for an unforeseen error: what it is, the file in hand, where the traceback is kept.

    The traceback, the command line and the versions go to a file of their own in ``logs`` of the cache, or of
    the system's temporary folder where the cache cannot be written.
    """
    what = _words(error)
    name = type(error).__name__ + (f": {what}" if what else "")
    file = last_read()
    hand = f" with {shown(file)} in hand, which may be damaged or not what it seems" if file else ""
    log = _kept(error, argv, file)
    kept = f"; the traceback is in {log}" if log else "; LSGM_CACHE=DIR has its traceback kept there"
    return f"this should not have happened ({name}){hand}; please report it with the file's kind{kept}"


def _kept(error: BaseException, argv: Sequence[str], file: str) -> Path | None:
    text = "\n".join(
        [
            f"lsgm {__version__}, Python {platform.python_version()}, {platform.platform()}",
            f"command: {shown(shlex.join(['lsgm', *argv]))}",
            f"file in hand: {shown(file) or 'none'}",
            "",
            "".join(traceback.format_exception(error)),
        ]
    )
    places: tuple[Callable[[], Path], ...] = (
        lambda: cache_dir() / "logs",
        lambda: Path(tempfile.gettempdir()),
    )
    for place in places:
        # Neither place need exist, or be one that can be told.
        with contextlib.suppress(OSError, UserError):
            folder = place()
            folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(
                dir=folder, prefix=time.strftime("lsgm-%Y%m%d-%H%M%S-"), suffix=".log"
            )
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as log:
                log.write(text)
            return Path(name)
    return None


def _words(error: BaseException) -> str:
    try:
        return shown(" ".join(str(error).split()))[:200]
    except Exception:  # an error that cannot say what it is has a name all the same
        return ""
