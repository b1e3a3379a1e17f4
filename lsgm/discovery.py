"""What the installed packages offer, found without importing any; and which code of others runs."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from lsgm.errors import UserError, did_you_mean


def offers(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name, in alphabetical order."""
    return dict(_installed(group, tuple(sys.path)))


@lru_cache
def _installed(group: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Return what the packages on a path offer: they are looked through once, not at each of twenty calls."""
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda p: p.name)}


_surveys: list[dict[str, str]] = []


@contextmanager
def surveying() -> Iterator[dict[str, str]]:
    """Give the words, and what they are, of whatever `choose` explains within the block."""
    _surveys.append({})
    try:
        yield _surveys[-1]
    finally:
        _surveys.pop()


def choose(
    argv: Sequence[str], known: Mapping[str, EntryPoint | str], *, page: str, what: str, otherwise: str = ""
) -> tuple[str, list[str]]:
    """Return the first word, which names one of ``known``, and the words after it.

    Without a word, and for one that asks for help, ``page`` is printed, with a line for each of ``known`` in
    the place of ``{list}``, what is said here or the ``HELP`` of its module; the word returned is then empty.
    Raises UserError for a word that is no ``what``: with a "did you mean", else with what ``otherwise`` says
    or a list.
    """
    if not argv or argv[0] in ("-h", "--help", "help"):
        width = max(map(len, known), default=0)
        helps = {name: at if isinstance(at, str) else help_line(at.value) for name, at in known.items()}
        for survey in _surveys:
            survey.update(helps)
        lines = (f"  {name:<{width}}  {line}".rstrip() for name, line in helps.items())
        print(page.format(list="\n".join(lines)))
        return "", []
    name, *rest = argv
    if name not in known:
        hint = did_you_mean(name, known) or otherwise or f"; there is {', '.join(known)}"
        raise UserError(f"there is no {what} '{name}'{hint}")
    return name, rest


def help_line(dotted: str) -> str:
    """Return the constant ``HELP`` of a module, read from its source; empty where there is none."""
    file = source_file(dotted)
    for node in ast.parse(file.read_text(encoding="utf-8")).body if file else ():
        match node:
            case ast.Assign(targets=[ast.Name("HELP")], value=ast.Constant(line)):
                return str(line)
            case ast.AnnAssign(target=ast.Name("HELP"), value=ast.Constant(line)):
                return str(line)
    return ""


def _located(dotted: str) -> Path | None:
    """Return where ``dotted`` would lie, without suffix, or None where its top package is not installed.

    Only the top-level name is looked up: ``find_spec`` of a dotted name would import every parent.
    """
    top, *rest = dotted.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))).joinpath(*rest)


def package_folder(dotted: str) -> Path | None:
    """Return the folder of a package such as ``lsgm.recipes``, or None where there is none."""
    folder = _located(dotted)
    return folder if folder is not None and folder.is_dir() else None


def source_file(dotted: str) -> Path | None:
    """Return the source file of a module or package, or None where there is none."""
    place = _located(dotted)
    if place is None:
        return None
    for candidate in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@dataclass(frozen=True)
class _Limit:
    """Which code of others may run while this process does what a received file says."""

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


def import_matplotlib() -> Any:
    """Return matplotlib. Its first import reads no ``matplotlibrc`` of the working directory.

    In a folder that somebody sent such a file could have TeX run over the words of a figure, or keep the
    package from being imported; the user's own settings, elsewhere, hold.
    """
    if "matplotlib" in sys.modules or not os.path.lexists("matplotlibrc"):
        return importlib.import_module("matplotlib")
    with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
        return importlib.import_module("matplotlib")
