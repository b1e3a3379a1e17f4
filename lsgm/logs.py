"""The logger ``lsgm``: what is said beside results, which a command shows and a library leaves to others.

Whoever imports the packages decides with `logging` what becomes of the records. The command ``lsgm`` prints
them on standard error as ``lsgm: SENTENCE``, from the level that ``-q``, ``-v`` or ``LSGM_LOG`` asks for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence

from lsgm.errors import ConfigError, did_you_mean
from lsgm.files.names import shown

VARIABLE = "LSGM_LOG"
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
WORDS = {"-q": "warning", "-v": "debug"}
"""Words of any command line, and the levels they stand for."""

log = logging.getLogger("lsgm")
log.addHandler(logging.NullHandler())


class _Sentences(logging.Handler):
    """Prints a record as a line of standard error, whichever stream that is by then.

    What goes wrong there is not swallowed, as other handlers do: it ends a command like any other error.
    """

    def __init__(self) -> None:
        super().__init__()
        self.began = time.time()

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record; details of ``-v`` begin with the seconds since the command was begun."""
        when = f"{record.created - self.began:.2f} s: " if record.levelno < logging.INFO else ""
        print(f"lsgm: {when}{shown(record.getMessage())}", file=sys.stderr, flush=True)


def quiet() -> bool:
    """Return whether nothing below warnings is wanted: then neither bars nor tables of progress are drawn."""
    return log.level > logging.INFO


@contextlib.contextmanager
def speaking() -> Iterator[None]:
    """Print what is logged within the block, from the level of ``LSGM_LOG``, else from ``info``.

    A command that another one runs speaks as that one does. Afterwards everything is as it was, the variable
    too. A value that is no level is for `heed` to refuse.
    """
    already = any(isinstance(handler, _Sentences) for handler in log.handlers)
    handler = _Sentences()
    before, level, propagates = os.environ.get(VARIABLE), log.level, log.propagate
    log.setLevel(LEVELS.get((before or "info").lower(), logging.INFO))
    if not already:
        log.addHandler(handler)
        log.propagate = False  # or a handler that some library gave to the root would print it once more
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagates
        log.setLevel(level)
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


def heed(argv: Sequence[str]) -> list[str]:
    """Return a command line without the words for how much is said, up to ``--``, and obey them.

    Processes that the command starts learn of it by ``LSGM_LOG``. Raises ConfigError where the words, or what
    is in that variable, make no sense.
    """
    end = argv.index("--") if "--" in argv else len(argv)
    wanted = {WORDS[word] for word in argv[:end] if word in WORDS}
    if len(wanted) > 1:
        raise ConfigError("-q and -v contradict each other; give one of them")
    given = os.environ.get(VARIABLE, "")
    if given and given.lower() not in LEVELS:
        hint = did_you_mean(given.lower(), LEVELS) or f"; give {', '.join(LEVELS)}"
        raise ConfigError(f"{VARIABLE} is '{given}', which is no level{hint}")
    if wanted:
        os.environ[VARIABLE] = wanted.pop()
        log.setLevel(LEVELS[os.environ[VARIABLE]])
    return [word for word in argv[:end] if word not in WORDS] + list(argv[end:])
