"""Which distribution goes with which pixels, and the shapes that it takes and gives."""

from __future__ import annotations

import pytest
import torch

from lsgm.errors import ConfigError
from lsgm.generative import Pixels
from lsgm.nets.config import Decoder
from lsgm.pixels import network_input, outputs_for, pixel_distribution, resolve

BINARY, GREY, RGB = Pixels(1, 2, 2, "binary"), Pixels(1, 2, 2, "discrete"), Pixels(3, 2, 2, "discrete", 5)

CASES: list[tuple[Pixels, Decoder, int, int]] = [
    (BINARY, "bernoulli", 1, 1),
    (GREY, "logistic", 2, 1),
    (GREY, "mixture", 30, 2),
    (GREY, "normal", 2, 1),
    (RGB, "logistic", 6, 3),
    (RGB, "mixture", 100, 4),
    (RGB, "normal", 6, 3),
]


@pytest.mark.parametrize(("pixels", "decoder", "outputs", "uniforms"), CASES)
def test_every_distribution_takes_as_many_outputs_and_uniforms_as_it_says(
    pixels: Pixels, decoder: Decoder, outputs: int, uniforms: int
) -> None:
    assert outputs_for(pixels, decoder) == outputs
    distribution = pixel_distribution(torch.randn(5, outputs, 2, 2), pixels, decoder)
    log_p = distribution.log_prob(torch.zeros(5, *pixels.shape, dtype=torch.uint8))
    assert log_p.shape in {(5, *pixels.shape), (5, 1, 2, 2)}
    for image in (distribution.mean(), distribution.sample(torch.rand(5, uniforms, 2, 2))):
        assert image.shape == (5, *pixels.shape)
        assert 0 <= float(image.min()) <= float(image.max()) <= 1


@pytest.mark.parametrize(("pixels", "decoder", "outputs", "uniforms"), CASES)
def test_half_precision_outputs_are_scored_in_float32(
    pixels: Pixels, decoder: Decoder, outputs: int, uniforms: int
) -> None:
    distribution = pixel_distribution(torch.randn(2, outputs, 2, 2).bfloat16(), pixels, decoder)
    levels = torch.zeros(2, *pixels.shape, dtype=torch.uint8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert distribution.log_prob(levels).dtype == torch.float32


@pytest.mark.parametrize("decoder", ["logistic", "mixture"])
@pytest.mark.parametrize("pixels", [GREY, RGB])
def test_draws_are_levels_even_where_uniforms_are_0_or_nearly_1(pixels: Pixels, decoder: Decoder) -> None:
    distribution = pixel_distribution(torch.randn(2, outputs_for(pixels, decoder), 2, 2), pixels, decoder)
    for u in (0.0, 1 - 2**-24):
        uniforms = pixels.channels + (decoder == "mixture")
        index = distribution.sample(torch.full((2, uniforms, 2, 2), u)) * (pixels.levels - 1)
        torch.testing.assert_close(index, index.round(), rtol=0, atol=1e-4)


def test_auto_is_bernoulli_for_binary_pixels_and_the_callers_choice_for_others() -> None:
    assert resolve("auto", BINARY, "mixture") == "bernoulli"
    assert resolve("auto", RGB) == "logistic"
    assert resolve("auto", RGB, "mixture") == "mixture"
    assert resolve("normal", RGB, "mixture") == "normal"


@pytest.mark.parametrize("decoder", ["logistic", "mixture", "normal"])
def test_a_decoder_of_many_levels_is_refused_for_binary_pixels(decoder: Decoder) -> None:
    with pytest.raises(ConfigError, match="not for binary pixels; use bernoulli"):
        outputs_for(BINARY, decoder)


def test_a_binary_decoder_is_refused_for_pixels_of_many_levels() -> None:
    with pytest.raises(ConfigError, match="these have 32 levels; use logistic or mixture"):
        outputs_for(RGB, "bernoulli")


def test_a_mixture_is_refused_for_channels_that_are_neither_grey_nor_colours() -> None:
    with pytest.raises(ConfigError, match="for 1 or 3 channels, and these have 4"):
        outputs_for(Pixels(4, 2, 2, "discrete"), "mixture")


def test_levels_span_the_interval_that_networks_see() -> None:
    for pixels in (Pixels(1, 1, 2, "binary"), Pixels(1, 1, 2, "discrete", 8), Pixels(1, 1, 2, "discrete", 5)):
        levels = torch.tensor([[[[0, pixels.levels - 1]]]], dtype=torch.uint8)
        assert network_input(levels, pixels).flatten().tolist() == [-1.0, 1.0]
    assert Pixels(3, 4, 4, "discrete", 5).levels == 32


def test_levels_given_in_double_precision_keep_it() -> None:
    levels = torch.arange(256, dtype=torch.float64)
    assert torch.equal(network_input(levels, GREY), levels * (2 / 255) - 1)
    assert network_input(levels.to(torch.uint8), GREY).dtype == torch.float32
