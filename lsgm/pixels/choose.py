"""Which distribution a decoder's output parametrises, and how many numbers it takes."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from lsgm.config import require
from lsgm.generative import Pixels
from lsgm.nets.config import Decoder
from lsgm.pixels.base import PixelDistribution
from lsgm.pixels.bernoulli import Bernoulli
from lsgm.pixels.logistic import DiscretizedLogistic
from lsgm.pixels.mixture import LogisticMixture, outputs_of_mixture
from lsgm.pixels.normal import NormalPixels

__all__ = ["outputs_for", "pixel_distribution", "resolve", "uniforms_for"]


def resolve(
    decoder: Decoder, pixels: Pixels, default: Literal["logistic", "mixture", "normal"] = "logistic"
) -> Decoder:
    """Return the decoder that ``auto`` stands for: bernoulli of binary pixels, ``default`` of others.

    Raises ConfigError where the pixels have more levels than the decoder, or fewer.
    """
    if decoder == "auto":
        decoder = "bernoulli" if pixels.kind == "binary" else default
    if pixels.kind == "binary":
        require(decoder == "bernoulli", f"the decoder '{decoder}' is not for binary pixels; use bernoulli")
    else:
        require(
            decoder != "bernoulli",
            f"the decoder 'bernoulli' is for binary pixels, and these have {pixels.levels} levels; "
            "use logistic or mixture",
        )
    require(
        decoder != "mixture" or pixels.channels in (1, 3),
        f"the decoder 'mixture' is for 1 or 3 channels, and these have {pixels.channels}; use logistic",
    )
    return decoder


def outputs_for(pixels: Pixels, decoder: Decoder = "auto") -> int:
    """Return how many channels a decoder must put out for these pixels; raises ConfigError as `resolve`."""
    match resolve(decoder, pixels):
        case "bernoulli":
            return pixels.channels
        case "mixture":
            return outputs_of_mixture(pixels.channels)
        case _:
            return 2 * pixels.channels


def uniforms_for(pixels: Pixels, decoder: Decoder = "auto") -> int:
    """Return how many channels of uniforms `PixelDistribution.sample` takes."""
    return pixels.channels + (resolve(decoder, pixels) == "mixture")


def pixel_distribution(parameters: Tensor, pixels: Pixels, decoder: Decoder = "auto") -> PixelDistribution:
    """Return p(x | z) of these pixels from the decoder's output [B, `outputs_for`, H, W]."""
    match resolve(decoder, pixels):
        case "bernoulli":
            return Bernoulli(parameters)
        case "mixture":
            return LogisticMixture(parameters, pixels.channels, pixels.levels)
        case "normal":
            return NormalPixels(parameters, pixels.levels)
        case _:
            return DiscretizedLogistic(parameters, pixels.levels)
