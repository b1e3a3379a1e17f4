"""What people do to a checkpoint before they pass it on: wrappers, precisions, devices, formats."""

from __future__ import annotations

import io
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["cast", "on_cuda", "prefixed", "with_tensors"]


def with_tensors(content: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return the same containers with every tensor changed."""
    if isinstance(content, Tensor):
        return change(content)
    if isinstance(content, dict):
        return type(content)((key, with_tensors(value, change)) for key, value in content.items())
    if isinstance(content, (list, tuple)):
        return type(content)(with_tensors(value, change) for value in content)
    return content


def cast(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Return what gives floating-point tensors another precision."""
    return lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor


def prefixed(state: dict[str, Any], prefix: str) -> OrderedDict[str, Any]:
    """Return a state dict as a wrapper of the model has it."""
    return OrderedDict((prefix + name, value) for name, value in state.items())


def on_cuda(path: Path) -> Path:
    """Let every tensor of a file say that it lay on the first GPU, as those of the authors' machines do."""
    content = path.read_bytes()
    if not zipfile.is_zipfile(path):
        path.write_bytes(_tagged(content))
        return path
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            inner = old.read(name)
            new.writestr(name, _tagged(inner) if name.endswith("data.pkl") else inner)
    path.write_bytes(out.getvalue())
    return path


def _tagged(pickled: bytes) -> bytes:
    # A string of three letters, and one of six.
    assert b"X\x03\x00\x00\x00cpu" in pickled
    return pickled.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
