"""The command ``lsgm``: finds its subcommands through entry points, and says every error in one sentence."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import platform
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from lsgm import __version__, peers
from lsgm.discovery import choose, offers
from lsgm.errors import UserError
from lsgm.files.names import shown
from lsgm.files.regular import last_read
from lsgm.files.write import cache_dir
from lsgm.logs import heed, log, speaking


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


_PAGE = """usage: lsgm COMMAND [OPTIONS]

Train latent score-based generative models and measure them: quality, likelihood, cost.

commands:
{list}

`lsgm COMMAND --help` explains a command with worked examples; `lsgm --version` is the version.
Any command takes -q (warnings and errors alone, no progress) and -v (what is read, from where, when); so
does every process where LSGM_LOG is debug, info, warning or error. `lsgm --print-completion bash`, or zsh or
tcsh, is a script that completes commands and options."""


def _dispatch(argv: list[str]) -> int:
    """Run one command line; UserError is for the caller."""
    argv = heed(argv)
    if argv[:1] in (["-V"], ["--version"]):
        print(f"lsgm {__version__}")
        return 0
    if argv[:1] == ["--print-completion"]:
        from lsgm.completion import script

        print(script(argv[1:]), end="")
        return 0
    commands = offers("lsgm.commands")
    kind = "option" if argv and argv[0].startswith("-") else "command"
    otherwise = "; `lsgm --help` lists the commands"
    name, rest = choose(argv, commands, page=_PAGE, what=kind, otherwise=otherwise)
    return int(commands[name].load().run(rest)) if name else 0


def _hush(stream: TextIO) -> None:
    """Point a stream at nothing, so that closing it cannot fail a second time."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _streams() -> None:
    """Let the streams bear whatever is printed.

    One that was closed is replaced, so that no file that is opened later takes its number; and names of files
    that are no UTF-8 come out as escapes.
    """
    while True:
        handle = os.open(os.devnull, os.O_RDWR)
        if handle > 2:
            os.close(handle)
            break
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _ended(status: int, sentence: str) -> int:
    """Return the status once a sentence is told and what was printed has left, where anybody listens."""
    try:
        log.error(sentence)
    except OSError:
        _hush(sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _hush(sys.stdout)
    return status


LONGEST = 4000
"""Characters of a sentence at most."""

_SURROUNDINGS = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG,
    errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP,
)  # fmt: skip
"""What a disk or a path is to blame for, wherever it shows; another OSError may be a fault of the program."""


def _said(error: OSError) -> str:
    """Return an error of the surroundings in one sentence."""
    where = error.filename or "standard output, or another file,"
    advice = "choose another place, or mend this one"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "make room"
    elif error.errno in (errno.EACCES, errno.EPERM):
        advice = "let this user reach it, or choose another place"
    return f"{shown(str(where))} cannot be used ({error.strerror}); {advice}, then run the same command again"


def _clipped(sentence: str) -> str:
    """Return a sentence that a terminal holds: what it repeats of a file may be of any length."""
    if len(sentence) <= LONGEST:
        return sentence
    return f"{sentence[: LONGEST // 2]} ... {sentence[-LONGEST // 2 :]}"


def _sentence(error: Exception, argv: Sequence[str]) -> str:
    """Return what is said of an error that ended a command."""
    if isinstance(error, UserError):
        return _clipped(shown(" ".join(str(error).split())))
    if isinstance(error, MemoryError):
        why = shown(" ".join(str(error).split())) or "this process has no more memory"
        return f"{why}: ask for fewer images, or for fewer at a time"
    if isinstance(error, OSError) and error.errno in _SURROUNDINGS:
        return _clipped(_said(error))
    return told(error, argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``lsgm`` and return its exit status.

    2: something the user can put right, said in one line on standard error, or a fault of the program, which
    asks for a report. 130: interrupted from the keyboard. 141: the reader of a pipe went away, as ``head``
    does.
    """
    line = list(sys.argv[1:] if argv is None else argv)
    _streams()
    with speaking():
        return _run(line)


def _run(line: list[str]) -> int:
    """Run a command line whose records are shown, and return what `main` does."""
    leaving: SystemExit | None = None
    status = 0
    try:
        try:
            status = _dispatch(line)
        except SystemExit as exit:  # a page of help has been printed, or SIGTERM come
            leaving = exit
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _ended(130, "interrupted")
    except BrokenPipeError:
        _hush(sys.stdout)
        return 141
    except Exception as error:  # what no reader has foreseen, too, is one sentence
        foreseen = isinstance(error, UserError)
        peers.failed(" ".join(str(error).split()) or type(error).__name__, foreseen=foreseen)
        return _ended(2, _sentence(error, line))
    if leaving is not None:
        raise leaving
    return status


if __name__ == "__main__":
    sys.exit(main())
