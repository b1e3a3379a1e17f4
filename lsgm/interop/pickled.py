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
import zlib
from _compat_pickle import IMPORT_MAPPING
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsgm.errors import CheckpointError

__all__ = ["count_of", "foreign_class", "read_pickle", "without_wrappers"]

EXPECTED = re.compile(
    r"argparse\.Namespace|collections\.OrderedDict|_codecs\.encode|torch\.(\w*Storage|Tensor|Size|device)"
    r"|torch\._utils\._rebuild_\w+|torch\.storage\.\w+Storage|torch\.nn\.parameter\.Parameter"
    r"|torch\.serialization\._get_layout|numpy\.dtype|numpy\.(_core|core)\.multiarray\.scalar"
)
"""The names that tensors, containers, numbers and arguments need, besides torch's types of numbers."""

WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel, DistributedDataParallel and torch.compile put before every name."""

PLAIN = "torch.storage._load_from_bytes"
"""What every tensor names that pickle wrote without torch; told only where nothing else is."""

PROTOCOL = 2
"""The newest pickle protocol that torch's restricted reader knows, which is also torch.save's own."""

BLOCK = 1 << 20
"""Bytes read at a time where checksums are taken."""

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
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch names no common class for what a broken file raises
        if (foreign := foreign_class(path)) is not None:
            read = " and ".join(["tensors", *(f"{each.__module__}.{each.__qualname__}" for each in allowed)])
            raise CheckpointError(
                f"{path} names the class {foreign}, and nothing but {read} is read from such a file; "
                "nothing of it was executed: get the file from its authors again"
            ) from None
        if (protocol := _protocol(path)) > PROTOCOL:
            raise CheckpointError(
                f"{path} was saved by pickle's protocol {protocol}, which cannot be read without executing "
                f"it; save it again as torch.save does unasked, by protocol {PROTOCOL}"
            ) from None
        if "NumPy scalar" in str(error) or "numpy.dtypes." in str(error):
            raise CheckpointError(
                f"{path} has a value of NumPy that is no truth value, whole or floating-point number of at "
                "most 64 bits, and no other is read; save it again with a number of Python's instead"
            ) from None
        raise CheckpointError(
            f"{path} is truncated or no checkpoint of torch's; copy it again from where it came"
        ) from error
    if damaged := _damaged(path):
        raise CheckpointError(
            f"{path} is damaged: what it holds as '{damaged}' does not have the checksum that it was written "
            "with; copy it again from where it came"
        )
    return content


def _damaged(path: Path) -> str | None:
    """Return the first part of torch's zip whose checksum is wrong, which torch itself never looks at.

    Where a checksum is 0 torch was asked to write none (`torch.serialization.set_crc32_options`). The older
    format has none at all.
    """
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            for part in archive.infolist():
                if not part.CRC:
                    continue
                with archive.open(part) as stream:
                    try:
                        while stream.read(BLOCK):
                            pass
                    except zipfile.BadZipFile:
                        return part.filename
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        OSError,
        zlib.error,
    ):  # torch's own reader had no such trouble
        return None
    return None


def without_wrappers(state: Mapping[Any, Tensor]) -> dict[str, Tensor]:
    """Return a state dict without what wrappers of the model have put before every name."""
    out = {str(name): value.detach() for name, value in state.items()}
    while wrapper := next((each for each in WRAPPERS if all(map(_begins(each), out))), None):
        out = {name.removeprefix(wrapper): value for name, value in out.items()}
    return out


def _begins(start: str) -> Callable[[str], bool]:
    return lambda name: name.startswith(start)


def count_of(value: Any) -> int | None:
    """Return a count, which may lie in a tensor of one number; None where it is none."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_floating_point():
        value = value.item()
    return value if isinstance(value, int) and value >= 0 else None


def foreign_class(path: Path) -> str | None:
    """Return the first class that a checkpoint names and a reader of tensors has no use for, None if none.

    Used to say why a file was refused; the refusal itself is torch's restricted reader's.
    """
    plain = None
    try:
        for name in _named(_pickle_in(path)):
            if EXPECTED.fullmatch(name) or _is_dtype(name):
                continue
            if name != PLAIN:
                return name
            plain = name
    except Exception:  # truncated, encrypted, or no pickle: zipfile and pickletools raise many kinds
        return plain
    return plain


def _is_dtype(name: str) -> bool:
    module, _, attribute = name.partition(".")
    return module == "torch" and isinstance(getattr(torch, attribute, None), torch.dtype)


def _protocol(path: Path) -> int:
    """Return the highest pickle protocol that a file says, 0 where it says none."""
    try:
        stream = io.BytesIO(_pickle_in(path))
        return max(int(arg) for code, arg, _ in pickletools.genops(stream) if code.name == "PROTO" and arg)
    except Exception:  # no pickle at all
        return 0


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
                # The first protocols write the names that Python 2 had.
                module, _, name = str(argument).partition(" ")
                yield f"{IMPORT_MAPPING.get(module, module)}.{name}"
            case "STACK_GLOBAL":
                yield ".".join(strings[-2:])
            case "MEMOIZE":
                memo.append(last if isinstance(last, str) else None)
            case "BINGET" | "LONG_BINGET" if isinstance(argument, int) and argument < len(memo):
                strings += [text for text in [memo[argument]] if text is not None]
            case _ if isinstance(argument, str):
                strings.append(argument)
        last = argument
