"""The set of images a model is trained and measured on, its name in a result row, and its pixels' levels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lsgm.data.splits import drawn_order
from lsgm.errors import ConfigError, DataError
from lsgm.rng import StepNoise, derive_seed

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

        Raises DataError where there is no such split.
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


# From stored grey values to the levels a likelihood scores: {0, 1}, or 0 .. 2^bits - 1


@dataclass(frozen=True)
class PixelPipeline:
    """What happens to a training batch between memory and model, on the device, all rows at once."""

    kind: Literal["binary", "discrete"]
    bits: int = 8
    flip: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise ConfigError(f"data.bits is {self.bits}; give 1 to 8 bits")

    @classmethod
    def of(cls, images: ImageSet, *, bits: int | None = None, flip: bool = False) -> PixelPipeline:
        """Return the pipeline that suits an image set; ``bits`` overrides the set's own."""
        kind: Literal["binary", "discrete"] = "binary" if images.pixels == "binary" else "discrete"
        return cls(kind, images.bits if bits is None else bits, flip)

    def levels(self, raw: Tensor, noise: StepNoise | Tensor | None = None) -> Tensor:
        """Return uint8 levels ``[B, C, H, W]`` of raw grey values uint8 ``[B, C, H, W]``.

        Binary pixels are drawn as 1 with probability raw / 255: ``u < raw / 255`` (dynamic binarisation,
        arXiv:2106.05931 section 5). Discrete ones keep their upper ``bits`` bits. With ``flip``, each image
        is mirrored with probability 1/2.

        Args:
            raw: Stored values.
            noise: Where uniforms come from: a step's noise, or for binary pixels a tensor of raw's shape.
                Not needed by discrete pixels without ``flip``.
        """
        if self.flip:
            if not isinstance(noise, StepNoise):
                raise ConfigError("mirroring at random needs a step's noise, not a tensor")
            mirrored = noise.uniform() < 0.5
            raw = torch.where(mirrored[:, None, None, None], raw.flip(-1), raw)
        if self.kind == "binary":
            if noise is None:
                raise ConfigError("dynamic binarisation needs noise")
            u = noise.uniform(*raw.shape[1:]) if isinstance(noise, StepNoise) else noise
            levels = (u * 255 < raw).to(torch.uint8)
        else:
            levels = raw >> (8 - self.bits)
        return levels


def binarise_rows(raw: Tensor, seed: int, *, first_row: int = 0) -> Tensor:
    """Return {0, 1} draws of raw / 255 where row i depends on (seed, first_row + i) and its values alone.

    Each row owns a fixed stretch of one Philox stream (a counter-based generator whose raw output NumPy
    guarantees), so a prefix or any slice of the split gets the very bits it has in the whole. The comparison
    r * 255 < raw * 2^32 is in integers: 0 is never drawn as 1, 255 always.
    """
    rows, dim = raw.shape[0], raw[0].numel() if raw.shape[0] else 0
    words = (dim + 7) // 8 * 4  # two pixels per 64-bit word, whole counters of four words per row
    key = derive_seed("binarise", seed)
    out = np.empty((rows, dim), dtype=np.uint8)
    grey = raw.reshape(rows, -1).cpu().numpy() if rows else out
    for start in range(0, rows, 4096):
        stop = min(start + 4096, rows)
        stream = np.random.Philox(key=key).advance((first_row + start) * words // 4)
        bits = np.asarray(stream.random_raw((stop - start) * words), dtype="<u8").view("<u4")
        r = bits.reshape(stop - start, -1)[:, :dim].astype(np.uint64)
        out[start:stop] = r * 255 < grey[start:stop].astype(np.uint64) << np.uint64(32)
    return torch.from_numpy(out).reshape(raw.shape)


def test_levels(
    images: ImageSet,
    split: str,
    seed: int,
    *,
    bits: int | None = None,  # noqa: PT028 - not a test function, whatever its name
    limit: int | None = None,  # noqa: PT028
) -> Tensor:
    """Return the levels uint8 ``[N, C, H, W]`` on which a likelihood of ``split`` is measured.

    Binary sets are binarised once, row i by (seed, i) alone, so that a row is the same whatever ``limit``;
    others are reduced to ``bits`` (default: the set's own). No padding, no mirroring. Of more rows than
    ``limit`` a uniform subset is taken, in one drawn order, so that fewer are the first of more: the first
    stored ones may be of one class.
    """
    raw = images.split(split)
    rows = None if limit is None or limit >= len(raw) else torch.from_numpy(drawn_order(len(raw))[:limit])
    if images.pixels == "binary":
        levels = binarise_rows(raw, seed)
        return levels if rows is None else levels[rows]
    chosen = raw if rows is None else raw[rows]
    return chosen >> (8 - (images.bits if bits is None else bits))


# Not a test, whatever pytest makes of the name.
test_levels.__test__ = False  # type: ignore[attr-defined]
