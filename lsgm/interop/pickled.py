"""Checkpoints that are pickles, read without executing anything in them.

torch's restricted reader builds tensors, containers and numbers and nothing else; numbers are NumPy's too,
since training scripts keep scores and rates as they come. Which class made it refuse a file is found by
listing the pickle's instructions: nothing is imported or built for that either.
"""

from __future__ import annotations

import io
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lsgm.errors import CheckpointError

__all__ = ["foreign_class", "read_pickle"]

EXPECTED = re.compile(
    r"argparse\.Namespace|collections\.OrderedDict|_codecs\.encode|torch\.\w+"
    r"|torch\.(_utils|storage|nn\.parameter|serialization)\.\w+"
    r"|numpy\.dtype|numpy\.(_core|core)\.multiarray\.scalar"
)
"""The names that tensors, containers, numbers and arguments need."""

NUMBERS = tuple(np.dtype(code) for code in "?bBhHiIlLqQefd")
"""The types of NumPy numbers that are read: truth values, whole and floating-point numbers."""


def _number(dtype: Any, content: Any = None) -> bool | int | float:
    """Return what a pickled NumPy scalar says, as Python's own number.

    It stands in for NumPy's constructor, which would take objects as well. Raises ValueError for other types.
    """
    if dtype not in NUMBERS or not isinstance(content, bytes) or len(content) != dtype.itemsize:
        raise ValueError("a NumPy scalar is no number")
    value: bool | int | float = np.frombuffer(content, dtype)[0].item()
    return value


NUMPY: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    # Under the name that NumPy 1 wrote, and under that of NumPy 2.
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
    (np.dtype, "numpy.dtype"),
    *{type(dtype) for dtype in NUMBERS},
]


def read_pickle(path: Path, origin: str, *allowed: type) -> Any:
    """Return what a checkpoint of ``origin`` holds, on the CPU; the classes ``allowed`` are read as well.

    Raises CheckpointError, one sentence, where there is no file, it cannot be read, or it names another
    class; that class is then never imported, let alone called.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; give a checkpoint of {origin}")
    try:
        with torch.serialization.safe_globals([*NUMPY, *allowed]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice to programmers about pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch names no common class for what a broken file raises
        if (foreign := foreign_class(path)) is not None:
            read = " and ".join(["tensors", *(f"{each.__module__}.{each.__qualname__}" for each in allowed)])
            raise CheckpointError(
                f"{path} names the class {foreign}, and nothing but {read} is read from such a file; "
                "nothing of it was executed: get the file from its authors again"
            ) from None
        raise CheckpointError(
            f"{path} is truncated or no checkpoint of torch's; copy it again from where it came"
        ) from error


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
