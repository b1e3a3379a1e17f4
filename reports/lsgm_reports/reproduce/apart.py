"""Which code of others a measuring command would run, told without running any of it."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path, PurePath

import lsgm
import lsgm_reports
from lsgm.discovery import offers, only
from lsgm.errors import DataError, UserError
from lsgm.files.names import shown
from lsgm.files.text import read_toml
from lsgm_reports.reproduce.allowed import DATASETS, OPTIONS, CommandLine, kind_of

__all__ = [
    "ELSEWHERE",
    "Copied",
    "Foreign",
    "copied",
    "foreign_code",
    "no_option",
    "place_word",
    "run_apart",
    "shell_line",
    "task_file",
]


@dataclass(frozen=True)
class Foreign:
    """Code of others that a command would run."""

    word: str
    """By which the command names it, without NAME= (`lsgm.discovery`)."""
    text: str
    """What it is and where it lies."""


def foreign_code(line: CommandLine, directory: Path, here: Path) -> list[Foreign]:
    """Return what a line runs of others when it is typed in ``directory``: each once.

    That is factories of models and networks of feature spaces, also those that the file of a task names.
    Modules are looked for in ``here``. Raises DataError for a file of a task that cannot be read.
    """
    found: list[Foreign] = []
    for kind, value in _valued(line):
        if kind in ("model", "side"):
            word = _factory(value, directory)
            if word is not None and not (kind == "side" and _is_split(value)):
                found.append(Foreign(word, _factory_text(word, here)))
        elif kind == "space":
            found += _network(value, directory)
    file = task_file(line, directory)
    if file is not None and os.path.isfile(file):
        for value in _spaces_of(file):
            found += _network(value, directory)
    return list(dict.fromkeys(found))


def task_file(line: CommandLine, directory: Path) -> Path | None:
    """Return the file of the task where it is one of somebody's own, None where it comes with the package."""
    for kind, value in _valued(line):
        if kind == "task" and value.endswith(".toml"):
            return directory / value
    return None


def _valued(line: CommandLine) -> Iterator[tuple[str, str]]:
    """Yield what every word and option of a line is, and what it says."""
    for index, word in enumerate(line.words):
        yield kind_of(line.command, index) or "", word
    for name, value in line.options:
        if value is not None:
            yield OPTIONS.get(line.command, {}).get(name, ""), value


def _factory(word: str, directory: Path) -> str | None:
    """Return MODULE:FACTORY of a word, as `lsgm_eval.models` reads it; None of a place."""
    while True:
        if os.path.exists(directory / os.path.expanduser(word)):
            return None
        name, equals, rest = word.partition("=")
        if not equals or "/" in name:
            return word if ":" in word and "/" not in word else None
        word = rest


def _is_split(word: str) -> bool:
    name, _, split = word.partition(":")
    return name in DATASETS and split.replace("+", "").isalnum()


def _factory_text(word: str, here: Path) -> str:
    module, _, name = word.partition(":")
    return f"{word} calls {name or 'it'}() of the module {module}, {_module_place(module, here)}"


def _module_place(module: str, here: Path) -> str:
    """Return where a module would be imported from; its top package is looked for, which runs nothing."""
    top = module.partition(".")[0]
    spec = PathFinder.find_spec(top, [str(here), *sys.path]) if top.isidentifier() else None
    if spec is None:
        return "which is part of Python or is not here"
    where = spec.origin or next(iter(spec.submodule_search_locations or ()), "")
    return f"from {where}"


def _network(spec: str, directory: Path) -> list[Foreign]:
    """Return the code of a feature space: none of the networks that this project has itself."""
    kind, colon, file = spec.partition(":")
    if not colon:
        return []
    place = directory / os.path.expanduser(file)
    if kind == "dinov2":
        folder = (
            place if os.path.isdir(place) else directory / os.path.expanduser(file.rpartition(":")[0] or file)
        )
        return [Foreign(spec, f"{spec} runs {folder / 'hubconf.py'}")]
    if kind in ("torchscript", "inception-clean"):
        return [Foreign(spec, f"{spec} runs the TorchScript {place}")]
    if kind == "export":
        return [Foreign(spec, f"{spec} runs the graph {place}")]
    if kind not in ("glyphs", "inception") and kind in offers("lsgm.extractors"):
        return [Foreign(spec, f"{spec} gives {place} to an installed package's extractor {kind}")]
    return []


def _spaces_of(file: Path) -> list[str]:
    """Return the feature spaces that the file of a task names; what is of no known form it cannot open."""
    spaces = read_toml(file).get("spaces")
    tables = [table for table in spaces if isinstance(table, dict)] if isinstance(spaces, list) else []
    return [name for table in tables if isinstance(name := table.get("extractor"), str)]


# Recorded commands as they are shown to be copied: those that measure and run no code of others

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


# Running a line of `lsgm` where it was typed, apart from what lies there

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
