"""The set of images a model is trained and measured on, and the name by which a result row knows it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from lsgm.errors import DataError

__all__ = ["ImageSet", "PixelKind", "sha256_of"]

PixelKind = Literal["binary", "uint8"]
"""How pixels are modelled: ``binary`` as Bernoulli draws of grey values, ``uint8`` as up to 256 levels."""


@dataclass(frozen=True)
class ImageSet:
    """Images by split, kept as the grey or colour values they came with: uint8 ``[N, C, H, W]``.

    Attributes:
        name: Name of the dataset, ``glyphs``.
        version: Which edition of it, ``official`` or a mirror's own version.
        sha256: Hash of the pixels of all splits (`sha256_of`).
        pixels: How the pixels are modelled.
        splits: ``train``, ``val`` and ``test``; tensors may be memory-mapped files larger than memory.
        labels: Split -> label name -> int64 ``[N]``.
        classes: Label name -> the names of its values, where it has names.
        mirror: Whether this is another edition than the one published results are measured on.
        bits: Bits per sub-pixel at which likelihoods of this set are reported.
        carved: Splits that the files do not name and that were drawn from the others: with them a split holds
            all images that were given for it.
        remark: How large the splits are and what decided them, where the files did not come split.
    """

    name: str
    version: str
    sha256: str
    pixels: PixelKind
    splits: dict[str, Tensor]
    labels: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    mirror: bool = False
    bits: int = 8
    carved: tuple[str, ...] = ()
    remark: str = ""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return (channels, height, width)."""
        channels, height, width = next(iter(self.splits.values())).shape[1:]
        return int(channels), int(height), int(width)

    @property
    def identity(self) -> str:
        """Return ``name@version@sha256``, the dataset column of a result row."""
        return f"{self.name}@{self.version}@{self.sha256}"

    def split(self, name: str) -> Tensor:
        """Return the images of a split, or of several joined by ``+`` (``train+val``: all but the test).

        Raises:
            DataError: no such split.
        """
        parts = name.split("+")
        for part in parts:
            if part not in self.splits:
                raise DataError(f"{self.name} has no split '{part}'; it has {', '.join(self.splits)}")
        return self.splits[name] if len(parts) == 1 else _joined([self.splits[part] for part in parts])


def _joined(parts: list[Tensor]) -> Tensor:
    """Return tensors one after the other; a view where they lie so in one file, which may exceed the RAM."""
    first = parts[0]
    place, end = first.untyped_storage().data_ptr(), first.storage_offset()
    for part in parts:
        if (
            part.untyped_storage().data_ptr() != place
            or part.storage_offset() != end
            or not part.is_contiguous()
            or (part.dtype, part.shape[1:]) != (first.dtype, first.shape[1:])
        ):
            return torch.cat(parts)
        end += part.numel()
    rows = sum(len(part) for part in parts)
    return first.as_strided((rows, *first.shape[1:]), first.stride(), first.storage_offset())


def sha256_of(*tensors: Tensor | Iterable[Tensor]) -> str:
    """Return the sha256 of tensors: of each one's dtype and shape, then of its bytes in row-major order."""
    digest = hashlib.sha256()
    for item in tensors:
        for tensor in [item] if isinstance(item, Tensor) else item:
            digest.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
            # By blocks of rows, so that a memory-mapped tensor is never copied whole.
            rows = max(1, (1 << 26) // max(1, tensor[:1].numel()))
            for block in tensor.split(rows):
                digest.update(block.contiguous().cpu().numpy().data)
    return digest.hexdigest()
