"""Which code of others a measuring command would run, told without running it; and running it apart."""

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
from lsgm_reports.reproduce.allowed import DATASETS, CommandLine


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
    spaces = [value for kind, _, value in line.valued() if kind == "space" and value]
    for kind, _, value in line.valued():
        if kind in ("model", "side") and (word := _factory(value or "", directory)):
            name, _, split = word.partition(":")
            if kind == "model" or name not in DATASETS or not split.replace("+", "").isalnum():
                found.append(Foreign(word, _factory_text(word, here)))
    file = _task_file(line, directory)
    if file is not None and os.path.isfile(file):
        tables = read_toml(file).get("spaces")
        # What is of no known form the task cannot open.
        tables = [table for table in tables if isinstance(table, dict)] if isinstance(tables, list) else []
        spaces += [name for table in tables if isinstance(name := table.get("extractor"), str)]
    found += [Foreign(spec, text) for spec in spaces if (text := _network_text(spec, directory))]
    return list(dict.fromkeys(found))


def _task_file(line: CommandLine, directory: Path) -> Path | None:
    """Return the file of the task where it is one of somebody's own, None where it comes with the package."""
    tasks = (value for kind, _, value in line.valued() if kind == "task" and value)
    return next((directory / value for value in tasks if value.endswith(".toml")), None)


def _factory(word: str, directory: Path) -> str | None:
    """Return MODULE:FACTORY of a word, as `lsgm_eval.models` reads it; None of a place."""
    while not os.path.exists(directory / os.path.expanduser(word)):
        name, equals, rest = word.partition("=")
        if not equals or "/" in name:
            return word if ":" in word and "/" not in word else None
        word = rest
    return None


def _factory_text(word: str, here: Path) -> str:
    """Return what a factory is, and from where its module would be imported, which runs nothing."""
    module, _, name = word.partition(":")
    top = module.partition(".")[0]
    spec = PathFinder.find_spec(top, [str(here), *sys.path]) if top.isidentifier() else None
    where = "which is part of Python or is not here"
    if spec is not None:
        where = f"from {spec.origin or next(iter(spec.submodule_search_locations or ()), '')}"
    return f"{word} calls {name or 'it'}() of the module {module}, {where}"


def _network_text(spec: str, directory: Path) -> str:
    """Return what the code of a feature space is, "" of the networks that this project has itself."""
    kind, colon, file = spec.partition(":")
    place = directory / os.path.expanduser(file)
    if not colon:
        return ""
    if kind == "dinov2":
        if not os.path.isdir(place):
            place = directory / os.path.expanduser(file.rpartition(":")[0] or file)
        return f"{spec} runs {place / 'hubconf.py'}"
    if kind in ("torchscript", "inception-clean"):
        return f"{spec} runs the TorchScript {place}"
    if kind == "export":
        return f"{spec} runs the graph {place}"
    if kind not in ("glyphs", "inception") and kind in offers("lsgm.extractors"):
        return f"{spec} gives {place} to an installed package's extractor {kind}"
    return ""


# Recorded commands as they are shown to be copied: those that measure and run no code of others


@dataclass(frozen=True)
class Copied:
    """A recorded command for a shell."""

    line: str
    """Empty where there is a reason not to show it."""
    why: str = ""
    """Why none is shown."""


def copied(command: Sequence[str], directory: str = "", processes: int = 1) -> Copied:
    """Return a recorded command of ``directory`` for a shell, or why it is not one to be copied.

    The file of a task is looked into, because it may name code: where that is not here, nothing is shown. It
    writes below the folder in which it is typed: ``OUT`` stands for a target elsewhere.
    """
    try:
        line = CommandLine.parse(command).checked()
        place = Path(directory) if os.path.isabs(directory) else Path.cwd()
        file = _task_file(line, place)
        if file is not None and not os.path.isfile(file):
            raise DataError(f"its task is the file {file}, which may name code of others and is not here")
        if foreign := foreign_code(line, place, place):
            raise DataError(f"it runs code of others: {'; '.join(each.text for each in foreign)}")
    except UserError as error:
        return Copied("", str(error))
    for kind, name, value in line.valued():
        target = PurePath(value or "")
        elsewhere = target.is_absolute() or ".." in target.parts or str(target).startswith("~")
        if kind == "target" and elsewhere:
            line = line.with_values(name, "OUT")
    return Copied(shell_line(line.argv, processes))


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


# Running a line of `lsgm` where it was typed, apart from what lies there

_PLACES = ("LSGM_CACHE", "LSGM_DATA", "XDG_CACHE_HOME", "TORCH_HOME", "MPLCONFIGDIR")
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
    pinned = {}
    for name in _PLACES:
        if parts := [part for part in os.environ.get(name, "").split(os.pathsep) if part]:
            pinned[name] = os.pathsep.join(os.path.abspath(os.path.expanduser(part)) for part in parts)
    foreign = [directory, *strangers] if directory != here else list(strangers)
    with _surroundings(pinned | dict(environment), foreign), only(agreed, here):
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


@contextlib.contextmanager
def _surroundings(environment: Mapping[str, str], foreign: Collection[Path]) -> Iterator[None]:
    """Set variables, and look for modules where they were looked for, but in no foreign folder.

    The folders that this code itself comes from stay, also where measuring was begun in one of them, and so
    does what is installed below a foreign folder.
    """
    own = {os.path.realpath(Path(package.__path__[0]).parent) for package in (lsgm, lsgm_reports)}
    refused = [os.path.realpath(folder) for folder in foreign]

    def trusted(entry: str) -> bool:
        path = Path(os.path.realpath(entry))
        installed = path.is_relative_to(os.path.realpath(sys.prefix))
        return str(path) in own or installed or not any(path.is_relative_to(folder) for folder in refused)

    modules, variables = list(sys.path), {name: os.environ.get(name) for name in environment}
    # An empty entry is the working directory, whichever it is by then.
    sys.path[:] = filter(trusted, map(os.path.abspath, modules))
    os.environ.update(environment)
    try:
        yield
    finally:
        sys.path[:] = modules
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
