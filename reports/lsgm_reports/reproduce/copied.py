"""Recorded commands as they are shown to be copied: those that measure and run no code of others."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from lsgm.errors import DataError, UserError
from lsgm.files.shown import shown
from lsgm_reports.reproduce.allowed import OPTIONS
from lsgm_reports.reproduce.command_line import CommandLine
from lsgm_reports.reproduce.foreign import foreign_code, task_file

__all__ = ["ELSEWHERE", "Copied", "copied", "no_option", "place_word", "shell_line"]

ELSEWHERE = "OUT"
"""Stands for a folder to write into that does not lie below the one where the command is typed."""


@dataclass(frozen=True)
class Copied:
    """A recorded command for a shell."""

    line: str
    """Empty where there is a reason not to show it."""
    why: str = ""
    """Why none is shown."""


def copied(command: Sequence[str], directory: str = "", processes: int = 1) -> Copied:
    """Return a recorded command of ``directory`` for a shell, or why it is not one to be copied.

    The file of a task is looked into, because it may name code: where that is not here, nothing is shown.
    """
    try:
        line = CommandLine.parse(command).checked()
        place = Path(directory) if os.path.isabs(directory) else Path.cwd()
        file = task_file(line, place)
        if file is not None and not os.path.isfile(file):
            raise DataError(f"its task is the file {file}, which may name code of others and is not here")
        if foreign := foreign_code(line, place, place):
            raise DataError(f"it runs code of others: {'; '.join(each.text for each in foreign)}")
    except UserError as error:
        return Copied("", str(error))
    return Copied(shell_line(_with_safe_targets(line).argv, processes))


def shell_line(argv: Sequence[str], processes: int = 1) -> str:
    """Return a command quoted for a shell, started by `torchrun` where it has several processes."""
    if processes == 1:
        return shlex.join(argv)
    return shlex.join(["torchrun", "--nproc-per-node", str(processes), "-m", *argv])


def place_word(place: str) -> str:
    """Return a path as one word that is no option and prints as it is; a shell still needs it quoted."""
    return shown(no_option(place))


def no_option(path: str) -> str:
    """Return a path that no command takes for an option."""
    return f"./{path}" if path.startswith("-") else path


def _with_safe_targets(line: CommandLine) -> CommandLine:
    """Return a line that writes below the folder in which it is typed."""
    for name, value in line.options:
        if OPTIONS[line.command].get(name) == "target" and not _below(value or ""):
            line = line.with_values(name, ELSEWHERE)
    return line


def _below(target: str) -> bool:
    path = PurePath(target)
    return not (path.is_absolute() or ".." in path.parts or target.startswith("~"))
