"""Sizes of the hierarchical VAE: those of the published models, and by arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lsgm.generative import Pixels
from lsgm.nets.config import NVAEConfig
from lsgm.vae.hierarchical import HierarchicalVAE


def meta_count(config: NVAEConfig, pixels: Pixels, pad: int = 0) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in HierarchicalVAE(config, pixels, pad=pad).parameters())


COLOUR = Pixels(3, 32, 32, "discrete")
PLAIN = NVAEConfig(cells="res_bnswish")
SMALL = NVAEConfig(width=64, latents=20)
CELEBA = replace(SMALL, flows=2, input_skip=True)
FACES = Pixels(3, 256, 256, "discrete", 5)
DIGITS = Pixels(1, 28, 28, "binary")
PUBLISHED = {
    "cifar10-fid": (
        replace(PLAIN, width=128, groups=20, latents=9),
        COLOUR,
        0,
        100.87,
    ),
    "cifar10-nll": (
        replace(
            PLAIN,
            width=256,
            groups=4,
            latents=45,
            pre_cells=3,
            post_cells=3,
            encoder_cells=3,
            decoder_cells=3,
            flows=2,
        ),
        COLOUR,
        0,
        130.62,
    ),
    "mnist": (
        replace(
            SMALL,
            multipliers=(1, 2, 2),
            blocks=2,
            groups=2,
            pre_cells=3,
            post_cells=3,
            encoder_cells=1,
            decoder_cells=1,
        ),
        DIGITS,
        2,
        3.01,
    ),
    "omniglot": (replace(SMALL, groups=3, encoder_cells=3, decoder_cells=3), DIGITS, 2, 5.38),
    "celebahq256-quantitative": (
        replace(CELEBA, multipliers=(1, 1, 2, 4), scales=3, groups=8),
        FACES,
        0,
        51.30,
    ),
    "celebahq256-qualitative": (
        replace(CELEBA, multipliers=(1, 1, 2), scales=2, groups=10),
        FACES,
        0,
        17.79,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_models_have_their_published_sizes(name: str) -> None:
    config, pixels, pad, millions = PUBLISHED[name]
    assert round(meta_count(config, pixels, pad) / 1e6, 2) == millions


def test_the_size_of_a_group_by_arithmetic() -> None:
    """One more group adds its cells, its sampler and latent convolution, and a combiner on either side."""

    def conv(c_in: int, c_out: int, kernel: int) -> int:
        return c_out * (c_in * kernel**2 + 2)  # bias and log-norm

    one = NVAEConfig(width=4, multipliers=(1, 2), groups=2, latents=3, encoder_cells=1, decoder_cells=1)
    more = meta_count(replace(one, groups=3), COLOUR) - meta_count(one, COLOUR)
    c, latents = 8, 3
    gate = 4 * c + 4 + c * 4 + c
    encoder_cell = 2 * (2 * c + conv(c, c, 3)) + gate
    decoder_cell = 2 * 6 * c * c + 25 * 6 * c + 2 * (2 * c + 2 * 6 * c) + gate
    joins = conv(c, c, 1) + conv(c, 2 * latents, 3) + conv(latents, latents, 3) + conv(c + latents, c, 1)
    assert more == encoder_cell + decoder_cell + joins
