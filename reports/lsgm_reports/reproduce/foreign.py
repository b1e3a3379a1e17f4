"""Which code of others a measuring command would run, told without running any of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from lsgm.files.text import read_toml
from lsgm_reports.reproduce.allowed import DATASETS, OPTIONS, kind_of
from lsgm_reports.reproduce.command_line import CommandLine

__all__ = ["Foreign", "foreign_code", "task_file"]


@dataclass(frozen=True)
class Foreign:
    """Code of others that a command would run."""

    word: str
    """By which the command names it, without NAME= (`lsgm.agreed`)."""
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
    """Return MODULE:FACTORY of a word, as `lsgm_eval.model_specs` reads it; None of a place."""
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
    return []


def _spaces_of(file: Path) -> list[str]:
    """Return the feature spaces that the file of a task names; what is of no known form it cannot open."""
    spaces = read_toml(file).get("spaces")
    tables = [table for table in spaces if isinstance(table, dict)] if isinstance(spaces, list) else []
    return [name for table in tables if isinstance(name := table.get("extractor"), str)]
