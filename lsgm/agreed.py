"""Code of others, and whether it may run while this process does what a received file says. Free of torch.

Who types ``--model module:factory`` has chosen that code. A command that came with a folder was chosen by
nobody here: while it runs (`only`), every place that would run code of others asks first (`ask`), and only
what was shown and agreed to is run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lsgm.errors import UserError

__all__ = ["ask", "modules_folder", "only"]


@dataclass(frozen=True)
class _Limit:
    words: frozenset[str]
    modules: Path


# Of the whole process and no context of a thread: what a thread would run is asked for as well.
_limits: list[_Limit] = []


@contextmanager
def only(words: Iterable[str], modules: Path) -> Iterator[None]:
    """Let only the code run that these words name; modules are those installed or in ``modules``.

    The words are those of the command line: ``package.module:factory``, ``torchscript:FILE``.
    """
    _limits.append(_Limit(frozenset(words), modules))
    try:
        yield
    finally:
        _limits.pop()


def ask(word: str) -> None:
    """Raise UserError where a received command runs and nobody agreed to the code that a word names."""
    if any(word not in limit.words for limit in _limits):
        raise UserError(
            f"{word} runs code that came with the results or is named by them; look at it, and add "
            "--trust-code if you trust where it comes from"
        )


def modules_folder() -> str:
    """Return the folder in which a module is looked for that is not installed: where the user is."""
    return str(_limits[-1].modules) if _limits else os.getcwd()
