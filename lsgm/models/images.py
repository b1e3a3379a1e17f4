"""From p(x | z) to uint8 images, which decoders may bound -log P(x)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lsgm.errors import UserError
from lsgm.generative import Pixels
from lsgm.pixels import PixelDistribution
from lsgm.rng import SeededNoise

__all__ = ["pixels_from", "require_mass"]


def require_mass(is_mass: bool, name: str) -> None:
    """Raise UserError for pixels with a density: nats of it bound no probability and depend on a unit."""
    if not is_mass:
        raise UserError(
            f"{name or 'this model'} has a Normal decoder, a density that gives levels no probability; "
            "ask for its images only, or train it with the decoder logistic or mixture"
        )


def pixels_from(
    distribution: PixelDistribution, pixels: Pixels, seeds: Sequence[int], device: torch.device
) -> Tensor:
    """Return uint8 images: draws where pixels are binary, means otherwise, as the field scores them."""
    if pixels.kind == "binary":
        image = distribution.sample(SeededNoise(seeds, device=device, stream="pixels").uniform(*pixels.shape))
    else:
        image = distribution.mean()
    return (image * 255).round().clamp(0, 255).to(torch.uint8).cpu()
