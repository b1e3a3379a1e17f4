"""What the installed packages offer through entry points, found without importing any of them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from lsgm.errors import UserError

__all__ = ["ask", "modules_folder", "offers", "only", "package_folder", "source_file"]


def offers(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name, in alphabetical order."""
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda p: p.name)}


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


# Code of others, and whether it may run while this process does what a received file says


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
