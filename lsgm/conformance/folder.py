"""A golden folder: a model with the numbers that the code it came from computes of it.

`checkpoint.pt` is laid out as an official checkpoint; `meta.json` repeats its arguments and holds, under
`step`, the averages of one training step; `io.safetensors` holds inputs (images, noises, times) and what
follows from them, float64. A folder may leave out any of the results, and none of their inputs.

A folder of a file that the original code itself wrote has no `meta.json`, and the numbers in
`expected.safetensors`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from lsgm.errors import DataError

__all__ = [
    "AVERAGES",
    "CHECKPOINT",
    "EXPECTED",
    "Golden",
    "numbered",
    "read_folder",
    "read_values",
]

CHECKPOINT, META, VALUES = "checkpoint.pt", "meta.json", "io.safetensors"

EXPECTED = "expected.safetensors"
"""The values beside a file that the original code wrote."""

AVERAGES = ("recon", "kl", "kl_per_group", "nelbo", "loss")
"""Entries of meta.json's `step` that are results; its other entries say where in training it stands."""


@dataclass(frozen=True)
class Golden:
    """What a folder holds, tensors by name; the averages of the training step are among them as step/*."""

    path: Path
    args: Mapping[str, Any]
    step: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    values: str = VALUES
    """Name of the file that the tensors come from."""

    @property
    def checkpoint(self) -> Path:
        """The model."""
        return self.path / CHECKPOINT

    @property
    def original(self) -> bool:
        """Whether the original code wrote the file, with weights that it had trained."""
        return self.values == EXPECTED

    def take(self, name: str, result: str) -> Tensor:
        """Return an input that a result follows from; raises DataError where the folder lacks it."""
        if name not in self.tensors:
            raise DataError(
                f"{self.path / self.values} holds {result} but not {name}, from which it follows; "
                "write the folder again with both"
            )
        return self.tensors[name]

    def take_shaped(self, name: str, result: str, shape: tuple[int, ...]) -> Tensor:
        """Return an input of a given shape per image; raises DataError where it has another."""
        value = self.take(name, result)
        if tuple(value.shape[1:]) != shape:
            raise DataError(
                f"{self.path / self.values}: {name} has the shape {list(value.shape)}, and the model of "
                f"{CHECKPOINT} takes {['N', *shape]}; the two do not belong together"
            )
        return value


def numbered(prefix: str, index: int) -> str:
    """Return the name of a latent group's tensor: group 0 is the first, of the lowest resolution."""
    return f"{prefix}/{index:02d}"


def read_folder(path: Path) -> Golden:
    """Read a golden folder; raises DataError, in one sentence, where it is incomplete or damaged."""
    if not path.is_dir():
        raise DataError(f"{path} is no folder; give one that holds {CHECKPOINT}, {META} and {VALUES}")
    if (path / EXPECTED).is_file() and (path / CHECKPOINT).is_file():
        return Golden(path, {}, {}, _with_images(path / EXPECTED), EXPECTED)
    for name in (CHECKPOINT, META, VALUES):
        if not (path / name).is_file():
            raise DataError(
                f"{path} has no {name}; a golden folder holds {CHECKPOINT}, {META} and {VALUES}, and the one "
                f"of a file that the original code wrote {CHECKPOINT} and {EXPECTED}"
            )
    args, step = _meta(path / META)
    tensors = _with_images(path / VALUES)
    tensors |= {f"step/{name}": _average(path / META, name, step[name]) for name in AVERAGES if name in step}
    return Golden(path, args, step, tensors)


def _meta(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); fetch the folder again") from None
    if not isinstance(meta, dict) or not isinstance(meta.get("args"), dict):
        raise DataError(f"{path} has no object 'args' with the model's arguments; write the folder again")
    step = meta.get("step", {})
    if not isinstance(step, dict):
        raise DataError(f"{path}: 'step' must be an object of averages; write the folder again")
    return meta["args"], step


def _average(path: Path, name: str, value: Any) -> Tensor:
    try:
        return torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise DataError(
            f"{path}: step.{name} is {value!r}, not a number or a list of numbers; write the folder again"
        ) from None


def _with_images(path: Path) -> dict[str, Tensor]:
    tensors = read_values(path)
    if "x_uint8" not in tensors:
        raise DataError(f"{path} has no x_uint8, the images that everything follows from; write it again")
    images = tensors["x_uint8"]
    if images.ndim != 4 or not len(images):
        raise DataError(f"{path}: x_uint8 has the shape {list(images.shape)}; it must be [N, C, H, W]")
    return tensors


def read_values(path: Path) -> dict[str, Tensor]:
    """Read tensors by name, float64 but for images and masks; raises DataError, in one sentence."""
    try:
        tensors = safetensors.torch.load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); fetch the folder again") from None
    for name, value in tensors.items():
        if name not in ("x_uint8", "prior/is_active") and value.dtype != torch.float64:
            raise DataError(f"{path}: {name} is {value.dtype}; golden values are float64, write it again")
    return dict(tensors)
