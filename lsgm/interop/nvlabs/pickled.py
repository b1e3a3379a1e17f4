"""Which classes a pickle names, found by listing its instructions: nothing is imported or built."""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["foreign_class"]

EXPECTED = re.compile(
    r"argparse\.Namespace|collections\.OrderedDict|_codecs\.encode|torch\.\w+"
    r"|torch\.(_utils|storage|nn\.parameter|serialization)\.\w+"
)
"""The names that tensors, containers and arguments need."""


def foreign_class(path: Path) -> str | None:
    """Return the first class that a checkpoint names and a reader of tensors has no use for, None if none.

    Used to say why a file was refused; the refusal itself is torch's restricted reader's.
    """
    try:
        for name in _named(_pickle_in(path)):
            if not EXPECTED.fullmatch(name):
                return name
    except (ValueError, IndexError, OSError, zipfile.BadZipFile):  # truncated, or no pickle
        return None
    return None


def _pickle_in(path: Path) -> bytes:
    """Return the pickle inside of torch's zip, or the whole file where it is an older one."""
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        inner = [name for name in archive.namelist() if name.endswith("data.pkl")]
        return archive.read(inner[0])


def _named(content: bytes) -> Iterator[str]:
    """Yield ``module.name`` of every class in the pickles that follow upon each other.

    Newer protocols take both from the last two strings. Raises ValueError at the end.
    """
    stream = io.BytesIO(content)
    while True:
        yield from _named_by(pickletools.genops(stream))


def _named_by(instructions: Iterable[tuple[pickletools.OpcodeInfo, Any, int | None]]) -> Iterator[str]:
    strings: list[str] = [""] * 2
    memo: list[str | None] = []
    last: Any = None
    for instruction, argument, _ in instructions:
        match instruction.name:
            case "GLOBAL" | "INST":
                yield str(argument).replace(" ", ".")
            case "STACK_GLOBAL":
                yield ".".join(strings[-2:])
            case "MEMOIZE":
                memo.append(last if isinstance(last, str) else None)
            case "BINGET" | "LONG_BINGET" if isinstance(argument, int) and argument < len(memo):
                strings += [text for text in [memo[argument]] if text is not None]
            case _ if isinstance(argument, str):
                strings.append(argument)
        last = argument
