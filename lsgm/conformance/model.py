"""The model of a golden folder in float64, and what its inputs are in this package's terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lsgm.conformance.folder import CHECKPOINT, GoldenFolder, numbered
from lsgm.errors import DataError
from lsgm.generative import Pixels
from lsgm.interop.taken import brief
from lsgm.recipes.recipe import LSGMRecipe
from lsgm.score import ScoreModel
from lsgm.vae.base import Noise, Shape
from lsgm.vae.hierarchical import HierarchicalVAE

if TYPE_CHECKING:
    from lsgm.interop.taken import Native
    from lsgm.model.lsgm import LSGM

__all__ = ["ReferenceModel", "levels_of", "load", "noise_of"]


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
    from lsgm.interop.nvlabs.convert import convert
    from lsgm.interop.nvlabs.read import read_checkpoint

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
    from lsgm.model.lsgm import build_lsgm

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
