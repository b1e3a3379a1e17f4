"""Checkpoints that are pickles, read without executing anything in them."""

from __future__ import annotations

import argparse
import gc
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lsgm.errors import CheckpointError, UserError
from lsgm.files.limits import INSTRUCTIONS
from lsgm.files.names import shown
from lsgm.pickled.machine import (
    ForeignNameError,
    Made,
    MalformedError,
    Name,
    PickleMachine,
    TooManyError,
)
from lsgm.pickled.torch_file import Filler, Storage, View, open_storages

EXPECTED = re.compile(
    r"argparse\.Namespace|collections\.(OrderedDict|Counter)|_codecs\.encode|builtins\.(bytearray|set|complex)"
    r"|torch\.(\w+\.)*(\w*Storage|\w*Tensor|Size|device)|torch\._utils\._rebuild_\w+|torch\.per_\w+"
    r"|torch\._tensor\._rebuild_from_type_v2|torch\.nn\.parameter\.Parameter"
    r"|torch\.serialization\._get_layout|numpy\.dtype|numpy\.(_core|core)\.multiarray\.scalar"
)
"""The names that tensors, containers, numbers and arguments need, besides torch's types of numbers."""

PLAIN = "torch.storage._load_from_bytes"
"""What every tensor names that pickle wrote without torch; told only where nothing else is."""

PROTOCOL = 2
"""The newest pickle protocol that is read, which is also torch.save's own."""

NUMBERS = {np.dtype(code).str[1:]: np.dtype(code) for code in "?bBhHiIlLqQefd"}
"""The types of NumPy numbers that are read: truth values, whole and floating-point numbers."""


class NewerProtocolError(MalformedError):
    """A pickle of a protocol above `PROTOCOL`."""


class NumPyError(MalformedError):
    """A scalar of NumPy's that is no number of at most 64 bits."""


def read_pickle(path: Path, origin: str, *allowed: type) -> Any:
    """Return what a checkpoint of ``origin`` holds, on the CPU.

    Of classes, `argparse.Namespace` may be ``allowed``. Raises CheckpointError, one sentence, where there is
    no file, it cannot be read, is larger than honest ones are, or names another class; that class is then
    never imported, let alone called.
    """
    name = shown(str(path))
    if not os.path.exists(path) or os.path.isdir(path):
        raise CheckpointError(f"there is no file {name}; give a checkpoint of {origin}")
    collecting = gc.isenabled()
    gc.disable()  # which would walk through millions of young containers again and again
    try:
        return _content(path, allowed)
    except UserError:
        raise
    except Exception as error:  # no list of what damaged bytes raise would be whole
        raise CheckpointError(f"{name} {_refusal(error, allowed)}") from None
    finally:
        if collecting:
            gc.enable()


def _content(path: Path, allowed: Sequence[type]) -> Any:
    storages, found = open_storages(path), dict[str, Storage]()

    def stored(kind: Any, *about: Any) -> Storage:
        """Return the storage of a persistent id: its kind, type, key, place, entries, and maybe a view."""
        storage = Storage.of(kind, *about)
        known = found.setdefault(storage.key, storage)
        if known.size != storage.size:
            raise MalformedError("a storage has two sizes")
        return storage

    def known(name: str) -> bool:
        if name == PLAIN:
            plain.append(name)
        return name == PLAIN or _is_known(name, allowed)

    plain: list[str] = []
    rules: dict[str, Callable[..., Any]] = {**RULES, **{_name(each): each for each in allowed}}
    machine = PickleMachine(
        storages.pickle, rules=rules, stored=stored, known=known, steps=INSTRUCTIONS.value
    )
    try:
        content = storages.read(machine)
    except (UserError, ForeignNameError, TooManyError):
        raise
    except Exception:
        if not plain and machine.protocol <= PROTOCOL:
            raise
    # Only now, because a name that is worse may come behind these.
    if plain:
        raise ForeignNameError(PLAIN)
    if machine.protocol > PROTOCOL:
        raise NewerProtocolError(machine.protocol)
    if damaged := storages.damaged():
        raise CheckpointError(
            f"{shown(str(path))} is damaged: what it holds as '{shown(damaged)}' does not have the checksum "
            "that it was written with; copy it again from where it came"
        )
    storages.locate({key: storage.itemsize for key, storage in found.items()})
    return Filler(storages, shown(str(path))).filled(content)


def _refusal(error: Exception, allowed: Sequence[type]) -> str:
    """Return what is to be said of a file that raised an error, and what to do about it."""
    match error:
        case TooManyError():
            return (
                f"has a pickle of more than {INSTRUCTIONS.value:,} instructions, and no more are followed; "
                f"if you know its origin, set {INSTRUCTIONS.variable}={10 * INSTRUCTIONS.value}"
            )
        case ForeignNameError():
            read = " and ".join(["tensors", *map(_name, allowed)])
            return (
                f"names the class {shown(error.name)[:200]}, and nothing but {read} is read from such a "
                "file; nothing of it was executed: get the file from its authors again"
            )
        case NewerProtocolError():
            return (
                f"was saved by pickle's protocol {error}, which is not read here; save it again as "
                f"torch.save does unasked, by protocol {PROTOCOL}"
            )
        case NumPyError():
            return (
                "has a value of NumPy that is no truth value, whole or floating-point number of at most 64 "
                "bits, and no other is read; save it again with a number of Python's instead"
            )
    return "is truncated or no checkpoint of torch's; copy it again from where it came"


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _is_known(name: str, allowed: Iterable[type]) -> bool:
    if name == _name(argparse.Namespace):
        return argparse.Namespace in allowed
    module, _, attribute = name.partition(".")
    dtype = module == "torch" and isinstance(getattr(torch, attribute, None), torch.dtype)
    return dtype or EXPECTED.fullmatch(name) is not None


def _number(dtype: Any, content: Any = None) -> bool | int | float:
    """Return what a pickled NumPy scalar says, as Python's own number."""
    code = dtype.args[0] if isinstance(dtype, Made) and dtype.name == "numpy.dtype" and dtype.args else None
    kind = NUMBERS.get(code) if isinstance(code, str) else None
    if kind is None or not isinstance(content, bytes) or len(content) != kind.itemsize:
        raise NumPyError("a NumPy scalar is no number")
    big = isinstance(dtype.state, tuple) and dtype.state[1:2] == (">",)
    value: bool | int | float = np.frombuffer(content, kind.newbyteorder(">" if big else "<"))[0].item()
    return value


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise MalformedError("bytes are written in another way")
    return text.encode("latin-1")


def _pairs(pairs: Iterable[Sequence[Any]] = ()) -> OrderedDict[Any, Any]:
    if not all(isinstance(key, str) for key, _ in pairs):
        raise MalformedError("an ordered table has keys that are no texts")
    return OrderedDict((key, value) for key, value in pairs)


def _of_type(function: Name, kind: Name, args: tuple[Any, ...], state: Any = None) -> Any:
    """Return a tensor that has attributes, without them; one of another class is only named."""
    plain = kind.name in ("torch.Tensor", "torch.nn.parameter.Parameter")
    rule = RULES.get(function.name) if plain else None
    return Made(kind.name, args) if rule is None else rule(*args)


RULES: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _pairs,
    "_codecs.encode": _encoded,
    "torch.Size": tuple,
    # Under the name that NumPy 1 wrote, and under that of NumPy 2.
    "numpy.core.multiarray.scalar": _number,
    "numpy._core.multiarray.scalar": _number,
    "torch._utils._rebuild_tensor": View,
    "torch._utils._rebuild_tensor_v2": lambda a, b, c, d, *_: View(a, b, c, d),
    "torch._utils._rebuild_tensor_v3": lambda a, b, c, d, grad, hooks, dtype, *_: View(a, b, c, d, dtype),
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch.nn.parameter.Parameter": lambda data, *_: data,
    "torch._tensor._rebuild_from_type_v2": _of_type,
}
"""What is made of the arguments that these are called with: containers, numbers, and views of storages."""
