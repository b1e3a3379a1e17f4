"""Checkpoints that are pickles, read without executing anything in them."""

from __future__ import annotations

import argparse
import gc
import io
import os
import pickletools
import re
import zipfile
from _compat_pickle import IMPORT_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lsgm.errors import CheckpointError, UserError
from lsgm.files.limits import FOREIGN, INSTRUCTIONS
from lsgm.files.names import shown
from lsgm.files.regular import open_regular
from lsgm.pickled.machine import Made, MalformedError, Name, PickleMachine, TooManyError
from lsgm.pickled.torch_file import Storage, View, open_storages, with_tensors

__all__ = ["NESTING", "below", "foreign_class", "read_pickle", "refuse_unbounded"]

NESTING = 64
"""Containers within one another."""

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
    except TooManyError:
        raise CheckpointError(
            f"the pickle in {name} has more than {INSTRUCTIONS.value:,} instructions, and no more are "
            f"followed; if you know its origin, set {INSTRUCTIONS.variable}={10 * INSTRUCTIONS.value}"
        ) from None
    except Exception as error:  # no list of what damaged bytes raise would be whole
        raise _refusal(path, name, allowed, error) from None
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

    rules: dict[str, Callable[..., Any]] = {**RULES, **{_name(each): each for each in allowed}}
    machine = PickleMachine(
        storages.pickle,
        rules=rules,
        stored=stored,
        known=lambda name: _is_known(name, allowed),
        steps=INSTRUCTIONS.value,
    )
    content = storages.read(machine)
    refuse_unbounded(content, path)
    if damaged := storages.damaged():
        raise CheckpointError(
            f"{shown(str(path))} is damaged: what it holds as '{shown(damaged)}' does not have the checksum "
            "that it was written with; copy it again from where it came"
        )
    storages.locate({key: storage.itemsize for key, storage in found.items()})
    return with_tensors(content, storages)


def _refusal(path: Path, name: str, allowed: Sequence[type], error: Exception) -> CheckpointError:
    """Return the error for a file that could not be read, by what its pickle names."""
    if (foreign := foreign_class(path, *allowed)) is not None:
        read = " and ".join(["tensors", *map(_name, allowed)])
        return CheckpointError(
            f"{name} names the class {shown(foreign)[:200]}, and nothing but {read} is read from such a "
            "file; nothing of it was executed: get the file from its authors again"
        )
    if (protocol := _protocol(path)) > PROTOCOL:
        return CheckpointError(
            f"{name} was saved by pickle's protocol {protocol}, which is not read here; save it again as "
            f"torch.save does unasked, by protocol {PROTOCOL}"
        )
    if isinstance(error, NumPyError):
        return CheckpointError(
            f"{name} has a value of NumPy that is no truth value, whole or floating-point number of at "
            "most 64 bits, and no other is read; save it again with a number of Python's instead"
        )
    return CheckpointError(
        f"{name} is truncated or no checkpoint of torch's; copy it again from where it came"
    )


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


# Whether what was read can be walked through: no list within itself, no tables without end


def below(value: Any) -> Iterable[Any]:
    """Return what lies directly in a container, nothing for anything else; the keys of a table are plain."""
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, argparse.Namespace):
        return vars(value).values()
    return (*value.args, value.state) if isinstance(value, Made) else ()


def refuse_unbounded(content: Any, path: Path) -> None:
    """Walk through containers without recursion, every one once.

    Raises CheckpointError where one lies within itself, where they nest more than `NESTING` deep, and where
    they have more entries than `INSTRUCTIONS`, each counted as often as it can be reached: a hundred lists,
    each of the one before ten times, are 10^100.
    """
    name = shown(str(path))
    sizes: dict[int, int] = {}
    depths: dict[int, int] = {}
    open_ones: set[int] = set()
    walk = [(content, False)]
    while walk:
        value, done = walk.pop()
        inner, key = below(value), id(value)
        if done:
            open_ones.discard(key)
            sizes[key] = 1 + sum(sizes.get(id(item), 1) for item in inner)
            depths[key] = 1 + max((depths.get(id(item), 0) for item in inner), default=0)
            if sizes[key] > INSTRUCTIONS.value:
                INSTRUCTIONS.hold(f"what {name} unfolds into", min(sizes[key], 10**18), CheckpointError)
            if depths[key] > NESTING:
                raise CheckpointError(
                    f"{name} nests more than {NESTING} lists and tables; get the file from its authors again"
                )
        elif key in open_ones:
            raise CheckpointError(
                f"{name} holds a list or table that lies within itself; get the file from its authors again"
            )
        elif key not in sizes and isinstance(value, (Mapping, list, tuple, argparse.Namespace, Made)):
            open_ones.add(key)
            walk.append((value, True))
            walk.extend((item, False) for item in inner)


# Why a file was refused


def foreign_class(path: Path, *allowed: type) -> str | None:
    """Return the first class that a checkpoint names and a reader of tensors has no use for, None if none.

    Used to say why a file was refused. Nothing is imported or built for that: the instructions are listed.
    """
    plain = None
    try:
        for name in _named(_pickle_in(path)):
            if _is_known(name, allowed or (argparse.Namespace,)):
                continue
            if name != PLAIN:
                return name
            plain = name
    except Exception:  # truncated, encrypted, or no pickle: zipfile and pickletools raise many kinds
        return plain
    return plain


def _protocol(path: Path) -> int:
    """Return the highest pickle protocol that a file says, 0 where it says none."""
    try:
        stream = io.BytesIO(_pickle_in(path))
        codes = islice(pickletools.genops(stream), INSTRUCTIONS.value)
        return max(int(arg) for code, arg, _ in codes if code.name == "PROTO" and arg)
    except Exception:  # no pickle at all
        return 0


def _pickle_in(path: Path) -> bytes:
    """Return the pickle inside of torch's zip, or the beginning of the file where it is an older one."""
    try:
        return open_storages(path).pickle
    except UserError:
        raise
    except Exception:
        with open_regular(path, CheckpointError) as file:
            if zipfile.is_zipfile(file):
                raise
            file.seek(0)
            return file.read(FOREIGN.value)


def _named(content: bytes) -> Iterator[str]:
    """Yield ``module.name`` of every class in the pickles that follow upon each other.

    Newer protocols take both from the last two strings. Raises ValueError at the end.
    """
    stream = io.BytesIO(content)
    left = INSTRUCTIONS.value
    while left > 0:
        start = stream.tell()
        yield from _named_by(islice(pickletools.genops(stream), left))
        left -= stream.tell() - start


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
