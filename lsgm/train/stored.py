"""Files of `torch.save` that this project writes itself, read as data: nothing in them is imported or called.

The instructions of the pickle are followed by `lsgm.pickled.machine`, and only names that containers, numbers
and plain tensors need are known here. A tensor is built only when it is asked for, within the bytes it has.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lsgm.errors import CheckpointError, UserError
from lsgm.files.limits import INSTRUCTIONS, PICKLE
from lsgm.files.zips import zip_of
from lsgm.pickled.machine import Machine, MalformedError, TooManyError
from lsgm.pickled.tensors import Storage, View
from lsgm.pickled.torch_file import Zipped

__all__ = ["StoredFile"]

STORAGES = frozenset(f"torch.{kind}Storage" for kind in ("Double", "Float", "Half", "BFloat16", "Long"))


class StoredFile:
    """The bytes of a file, and as ``content`` what it holds: tables, lists, numbers, texts, `View`.

    Raises ValueError, a few words, wherever it is not one that `torch.save` wrote of such; CheckpointError
    beyond a limit.
    """

    def __init__(self, content: bytes, where: str = "it") -> None:
        try:
            self._zipped = _opened(content, where)
            self.content = self._zipped.read(
                Machine(
                    self._zipped.pickle,
                    rules=RULES,
                    stored=Storage.of,
                    known=_known,
                    steps=INSTRUCTIONS.value,
                )
            )
            damaged = self._zipped.damaged()
        except (UserError, _OtherNameError):
            raise
        except TooManyError as error:
            raise ValueError(f"it has more than {INSTRUCTIONS.value:,} instructions") from error
        # The instructions of a damaged pickle do not go together: an empty stack, a list in a number's place.
        # No more do the places and sizes that a damaged zip says of its parts.
        except Exception as error:
            why = f": {error}" if isinstance(error, MalformedError) else ""
            raise ValueError(f"its pickle is damaged{why}") from error
        if damaged:
            raise ValueError(f"its part '{damaged[:80]}' is damaged")

    def tensor(self, stored: View) -> Tensor:
        """Return a tensor of its own memory, strided as it was saved. Raises ValueError where it has none."""
        storage = stored.storage
        try:
            raw = bytearray(self._zipped.take(storage.key, storage.size, storage.itemsize))
            if math.prod(stored.size) > storage.entries:
                raise MalformedError("it has more numbers than there are")
            flat = torch.frombuffer(raw, dtype=storage.dtype) if raw else torch.empty(0, dtype=storage.dtype)
            return stored.tensor(flat)
        except (MalformedError, TypeError) as error:
            raise ValueError(
                f"a tensor {_sides(stored.size)} does not fit into its {storage.size:,} bytes"
            ) from error


def _opened(content: bytes, where: str) -> Zipped:
    try:
        archive = zip_of(content, where, CheckpointError)
    except zipfile.BadZipFile as error:
        raise MalformedError("it is no zip of torch's") from error
    zipped = Zipped(where, memoryview(content), archive, PICKLE)
    if zipped.packed:
        raise MalformedError("it is packed, which torch never does")
    return zipped


class _OtherNameError(ValueError):
    """A name that has no place among optimisers' states."""


def _known(name: str) -> bool:
    if name in RULES or name in STORAGES:
        return True
    raise _OtherNameError(f"it names {name[:80]}, which does not belong there; nothing of it was executed")


def _table(*entries: Any) -> dict[str, Any]:
    if entries:
        raise MalformedError("an ordered table is made of something")
    return {}


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> View:
    plain = type(size) is tuple and type(stride) is tuple and isinstance(storage, Storage)
    if not plain or not all(type(number) is int for number in (offset, *size, *stride)):
        raise MalformedError("a tensor of no shape")
    return View(storage, offset, size, stride)


RULES: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _table,
    "torch._utils._rebuild_tensor_v2": _tensor,
}
"""What is made of the arguments that these are called with."""


def _sides(size: tuple[int, ...]) -> list[int]:
    return list(size[:16])
