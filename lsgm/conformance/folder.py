"""A golden folder: a model, the numbers that its own code computes of it, and how far ours lie from them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lsgm.config import require
from lsgm.errors import DataError
from lsgm.files.limits import GOLDEN
from lsgm.files.names import shown
from lsgm.files.text import read_record
from lsgm.generative import Pixels
from lsgm.interop.nvlabs.convert import convert
from lsgm.interop.nvlabs.read import read_checkpoint
from lsgm.interop.taken import Native, brief, read_safetensors
from lsgm.model.lsgm import LSGM, build_lsgm
from lsgm.recipes.recipe import LSGMRecipe
from lsgm.score import ScoreModel
from lsgm.vae.base import Noise, Shape
from lsgm.vae.hierarchical import HierarchicalVAE

CHECKPOINT, META, VALUES = "checkpoint.pt", "meta.json", "io.safetensors"

EXPECTED = "expected.safetensors"
"""The values beside a file that the original code wrote."""

MOST_IMAGES = 1024
"""Images in a folder: the model is run on all of them at once, and differentiated."""
AGAIN = "write the folder again"


@dataclass(frozen=True)
class Averages:
    """meta.json's `step`: averages of one training step, and where in training it stands."""

    recon: float | None = None
    kl: float | None = None
    kl_per_group: tuple[float, ...] | None = None
    nelbo: float | None = None
    loss: float | None = None
    global_step: int | None = None
    num_total_iter: int | None = None

    def __post_init__(self) -> None:
        for name in ("global_step", "num_total_iter"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"{name} is {value}; it cannot be negative")


@dataclass(frozen=True)
class GoldenMeta:
    """What meta.json says."""

    args: dict[str, Any]
    """The model's arguments."""
    step: Averages = field(default_factory=Averages)


AVERAGES = tuple(each.name for each in fields(Averages) if each.name not in ("global_step", "num_total_iter"))
"""Entries of meta.json's `step` that are results; its other entries say where in training it stands."""


@dataclass(frozen=True)
class GoldenFolder:
    """What a folder holds, tensors by name; the averages of the training step are among them as step/*."""

    path: Path
    args: Mapping[str, Any]
    step: Averages
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
                f"{shown(str(self.path / self.values))} holds {shown(result)} but not {name}, from which it "
                "follows; write the folder again with both"
            )
        return self.tensors[name]

    def take_shaped(self, name: str, result: str, shape: tuple[int, ...]) -> Tensor:
        """Return an input of a given shape per image; raises DataError where it has another."""
        value = self.take(name, result)
        if value.ndim == 0 or tuple(value.shape[1:]) != shape:
            raise DataError(
                f"{shown(str(self.path / self.values))}: {name} has the shape {list(value.shape)}, and the "
                f"model of {CHECKPOINT} takes {['N', *shape]}; the two do not belong together"
            )
        return value


def numbered(prefix: str, index: int) -> str:
    """Return the name of a latent group's tensor: group 0 is the first, of the lowest resolution."""
    return f"{prefix}/{index:02d}"


def read_folder(path: Path) -> GoldenFolder:
    """Read a golden folder; raises DataError, in one sentence, where it is incomplete or damaged."""
    where = shown(str(path))
    if not os.path.isdir(path):
        raise DataError(f"{where} is no folder; give one that holds {CHECKPOINT}, {META} and {VALUES}")
    if os.path.lexists(path / EXPECTED) and os.path.lexists(path / CHECKPOINT):
        return GoldenFolder(path, {}, Averages(), _with_images(path / EXPECTED), EXPECTED)
    for name in (CHECKPOINT, META, VALUES):
        if not os.path.lexists(path / name):
            raise DataError(
                f"{where} has no {name}; a golden folder holds {CHECKPOINT}, {META} and {VALUES}, and the "
                f"one of a file that the original code wrote {CHECKPOINT} and {EXPECTED}"
            )
    meta = read_record(GoldenMeta, path / META, DataError, AGAIN)
    tensors = _with_images(path / VALUES)
    found = {name: getattr(meta.step, name) for name in AVERAGES}
    tensors |= {
        f"step/{name}": torch.tensor(value, dtype=torch.float64)
        for name, value in found.items()
        if value is not None
    }
    return GoldenFolder(path, meta.args, meta.step, tensors)


def _with_images(path: Path) -> dict[str, Tensor]:
    tensors, where = read_values(path), shown(str(path))
    if "x_uint8" not in tensors:
        raise DataError(f"{where} has no x_uint8, the images that everything follows from; write it again")
    images = tensors["x_uint8"]
    if images.ndim != 4 or not len(images):
        raise DataError(f"{where}: x_uint8 has the shape {list(images.shape)}; it must be [N, C, H, W]")
    levels = images.double()
    if images.is_complex() or not bool(((levels >= 0) & (levels <= 255) & (levels == levels.round())).all()):
        raise DataError(
            f"{where}: x_uint8 holds other numbers than the whole ones from 0 to 255; write it again"
        )
    for name, value in tensors.items():
        if value.ndim and len(value) > MOST_IMAGES and not name.startswith("step/grad/"):
            raise DataError(
                f"{where}: {shown(name)[:200]} has {len(value):,} rows, and at most {MOST_IMAGES:,} images "
                "are compared at once; write a folder of fewer"
            )
    return tensors


def read_values(path: Path) -> dict[str, Tensor]:
    """Read tensors by name, float64 but for images and masks; raises DataError, in one sentence."""
    tensors = read_safetensors(path, DataError, GOLDEN)
    for name, value in tensors.items():
        if name not in ("x_uint8", "prior/is_active") and value.dtype != torch.float64:
            raise DataError(
                f"{shown(str(path))}: {shown(name)[:200]} is {value.dtype}; golden values are float64, "
                "write it again"
            )
    return tensors


# How far a tensor lies from its reference: one measure that decides, two numbers that explain it


class Deviation(NamedTuple):
    """The distance of a tensor from its reference; NaN where either is not finite."""

    error: float
    """max |ours - golden| / max(1, max |golden|): what is compared with the tolerance."""
    absolute: float
    """max |ours - golden|."""
    relative: float
    """max |ours - golden| / max(|ours|, |golden|) by entry; large next to zeros, where it says little."""

    @property
    def finite(self) -> bool:
        """Whether both tensors were finite."""
        return math.isfinite(self.error)

    def within(self, tolerance: float) -> bool:
        """Return whether the error is at most the tolerance; never so for what is not finite."""
        return self.finite and self.error <= tolerance


def deviation(ours: Tensor, golden: Tensor) -> Deviation:
    """Compare two tensors of one shape, in float64."""
    assert ours.shape == golden.shape, "shapes are compared before values are"
    a, b = ours.detach().double().flatten(), golden.double().flatten()
    if a.numel() == 0:
        return Deviation(0.0, 0.0, 0.0)
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        return Deviation(math.nan, math.nan, math.nan)
    gap = (a - b).abs()
    size = torch.maximum(a.abs(), b.abs())
    relative = torch.where(gap > 0, gap / size, 0.0)
    absolute = float(gap.max())
    return Deviation(absolute / max(1.0, float(b.abs().max())), absolute, float(relative.max()))


def worst(deviations: dict[str, Deviation]) -> tuple[str, Deviation]:
    """Return the name of the largest error, and every measure's maximum; what is not finite comes first."""
    name = max(deviations, key=lambda key: (not deviations[key].finite, deviations[key].error))
    if not deviations[name].finite:
        return name, deviations[name]
    return name, Deviation(*(max(values) for values in zip(*deviations.values(), strict=True)))


# The model of a golden folder in float64, and what its inputs are in this package's terms


@dataclass(frozen=True)
class ReferenceModel:
    """Networks in float64 with the weights of a folder's checkpoint, as they stood in training."""

    recipe: LSGMRecipe
    pixels: Pixels
    vae: HierarchicalVAE
    prior: ScoreModel | None
    """With the last weights, as the authors' code evaluates it; None where there is a VAE alone."""
    variants: Mapping[str, ScoreModel]
    """Of a file that the original code wrote, the prior with its last (raw) and averaged (ema) weights, and
    each as it is imported, with the dropped channels masked (raw_masked, ema_masked)."""


def load(golden: GoldenFolder) -> ReferenceModel:
    """Build the model that the folder's checkpoint holds.

    Raises CheckpointError where tensors and arguments of the checkpoint do not fit each other, DataError
    where its arguments are not those of meta.json.
    """
    official = read_checkpoint(golden.checkpoint)
    _same_arguments(golden, official.args)
    # As the authors' code evaluates it: with its weights, and without the mask that no checkpoint keeps.
    plain = convert(official, reference_compat=True)
    networks = _built(plain, plain.raw)
    vae = networks.vae
    assert isinstance(vae, HierarchicalVAE)
    if official.prior is None:
        return ReferenceModel(plain.recipe, plain.pixels, vae, None, {})
    variants: dict[str, ScoreModel] = {}
    if golden.original:
        masked = convert(official)
        variants = {"raw": networks.prior, "ema": _built(plain, plain.ema).prior}
        variants |= {
            "raw_masked": _built(masked, masked.raw).prior,
            "ema_masked": _built(masked, masked.ema).prior,
        }
    return ReferenceModel(plain.recipe, plain.pixels, vae, networks.prior, variants)


def _built(native: Native[Any], state: Mapping[str, Tensor]) -> LSGM:
    networks = build_lsgm(native.recipe, native.pixels).double()
    networks.load_state_dict(dict(state), strict=any(name.startswith("prior.") for name in state))
    return networks.eval()


def _same_arguments(golden: GoldenFolder, args: Mapping[str, Any]) -> None:
    for name in sorted(golden.args.keys() & args.keys()):
        told, held = golden.args[name], args[name]
        if (list(held) if isinstance(held, tuple) else held) != told:
            raise DataError(
                f"{golden.path}: {CHECKPOINT} has {name} = {brief(held)} and meta.json has {brief(told)}; "
                "the two are not of one model"
            )


def levels_of(golden: GoldenFolder, model: ReferenceModel) -> Tensor:
    """Return the images as levels without padding, uint8 [N, C, H, W].

    The folder's are 0..255, padded; b bits keep the upper b, binary pixels are 0 or 255. Raises DataError
    where they are not images of this model.
    """
    pixels, pad = model.pixels, model.recipe.data.pad
    shape = (pixels.channels, pixels.height + 2 * pad, pixels.width + 2 * pad)
    images = golden.take_shaped("x_uint8", "results", shape).to(torch.uint8)
    images = images[:, :, pad : pad + pixels.height, pad : pad + pixels.width]
    if pixels.kind == "discrete":
        return images >> (8 - pixels.bits)
    if not bool(((images == 0) | (images == 255)).all()):
        raise DataError(
            f"{golden.path}: x_uint8 has other values than 0 and 255, and the model is of binary pixels"
        )
    return (images > 0).to(torch.uint8)


def noise_of(golden: GoldenFolder, model: ReferenceModel, prefix: str) -> Noise:
    """Return the noise that draws the latents of all groups, in their order, from ``prefix``/LL."""
    names = [numbered(prefix, index) for index in range(len(model.vae.groups.shapes))]
    shapes: tuple[Shape, ...] = model.vae.groups.shapes
    stored = [golden.take_shaped(n, "what follows from it", s) for n, s in zip(names, shapes, strict=True)]
    left = iter(stored)

    def noise(*shape: int) -> Tensor:
        drawn = next(left)
        assert tuple(drawn.shape[1:]) == shape, "the VAE asks for its groups' shapes in order"
        return drawn

    return noise
