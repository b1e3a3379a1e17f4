"""Tensors of a safetensors file that somebody else wrote."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from lsgm.errors import UserError
from lsgm.files.limits import HEADER, Limit
from lsgm.files.regular import open_regular
from lsgm.files.shown import shown

__all__ = ["read_safetensors"]


def read_safetensors(path: Path, error: type[UserError], limit: Limit | None = None) -> dict[str, Tensor]:
    """Return a file's tensors by name, mapped into memory.

    The library checks that they lie within the file, side by side. Raises ``error`` where the path is no
    regular file, its list of tensors is larger than `HEADER`, the file than ``limit``, or it is damaged.
    """
    name = shown(str(path))
    with open_regular(path, error) as file:
        listed = int.from_bytes(file.read(8), "little")
        size = file.seek(0, 2)
    # More than the file holds is damage, which the library says.
    HEADER.hold(f"the list of tensors of {name}", listed if listed <= size else 0, error)
    if limit is not None:
        limit.hold(name, size, error)
    try:
        return dict(safetensors.torch.load_file(path))
    # TypeError, KeyError and the like for types of numbers that torch, or this version of it, has not.
    except (
        SafetensorError,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RuntimeError,
    ) as problem:
        why = shown(" ".join(str(problem).split()))[:200]
        raise error(f"{name} is truncated or damaged ({why}); copy it again from where it came") from problem
