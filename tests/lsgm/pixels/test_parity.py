"""The log-likelihood of images given the same decoder outputs is that of the authors' code."""

from __future__ import annotations

import pytest
import torch
from golden import golden, needs_golden

from lsgm.generative import Pixels
from lsgm.nets.config import Decoder
from lsgm.pixels import pixel_distribution
from lsgm.vae.base import crop, sum_per_sample

PIXELS: dict[str, tuple[Pixels, Decoder, int]] = {
    "omniglot": (Pixels(1, 28, 28, "binary"), "bernoulli", 2),
    "mnist": (Pixels(1, 28, 28, "binary"), "bernoulli", 2),
    "cifar10_fid": (Pixels(3, 32, 32, "discrete", 8), "mixture", 0),
    "cifar10_nll": (Pixels(3, 32, 32, "discrete", 8), "mixture", 0),
}
"""Pixels, decoder and padding of the golden folders that hold whole decoder outputs."""


@needs_golden
@pytest.mark.parametrize("name", PIXELS)
def test_the_reconstruction_term_is_the_authors(name: str) -> None:
    """The padding is not counted; float64 throughout."""
    pixels, decoder, pad = PIXELS[name]
    _, _, io = golden(name)
    levels = crop(io["x_uint8"], pixels, pad)
    levels = levels // 255 if pixels.kind == "binary" else levels
    distribution = pixel_distribution(crop(io["vae_eval/decoder_params"], pixels, pad), pixels, decoder)
    nll, expected = -sum_per_sample(distribution.log_prob(levels)), io["vae_eval/recon_nll"]
    assert nll.dtype == torch.float64
    # Rounding of float64 on a sum of up to 3072 terms.
    assert float((nll - expected).abs().max() / expected.abs().max()) < 1e-12
