"""From grey values to levels: Bernoulli draws with the right mean and fixed addresses, and bit reduction."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lsgm.data import ImageSet, PixelKind, PixelPipeline, sha256_of, test_levels
from lsgm.data.images import binarise_rows
from lsgm.data.splits import drawn_order
from lsgm.errors import ConfigError, DataError
from lsgm.rng import StepNoise

RAW = torch.randint(0, 256, (50, 1, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def image_set(rows: Tensor, pixels: PixelKind, bits: int = 8) -> ImageSet:
    return ImageSet("world", "1", sha256_of(rows), pixels, {"test": rows}, bits=bits)


@settings(deadline=None, max_examples=30)
@given(first=st.integers(0, 49), count=st.integers(1, 50), seed=st.integers(0, 2**40))
def test_a_row_s_bits_depend_on_seed_and_row_alone(first: int, count: int, seed: int) -> None:
    whole = binarise_rows(RAW, seed)
    assert torch.equal(
        binarise_rows(RAW[first : first + count], seed, first_row=first), whole[first : first + count]
    )


def test_rows_keep_their_bits_across_the_blocks_in_which_they_are_drawn() -> None:
    raw = torch.full((5000, 1, 3, 3), 128, dtype=torch.uint8)
    whole = binarise_rows(raw, 3)
    assert torch.equal(binarise_rows(raw[:700], 3, first_row=4000), whole[4000:4700])
    assert torch.equal(binarise_rows(raw[:4097], 3), whole[:4097])


def test_other_seeds_and_other_rows_draw_other_bits() -> None:
    raw = torch.full((2, 1, 28, 28), 128, dtype=torch.uint8)
    first, second = binarise_rows(raw, 0)
    assert not torch.equal(first, second)
    assert not torch.equal(binarise_rows(raw, 1)[0], first)


def test_black_is_never_drawn_and_white_always() -> None:
    assert binarise_rows(torch.zeros(2000, 1, 28, 28, dtype=torch.uint8), 0).sum() == 0
    assert binarise_rows(torch.full((2000, 1, 28, 28), 255, dtype=torch.uint8), 0).min() == 1


@pytest.mark.parametrize("grey", [1, 77, 254])
def test_a_pixel_is_one_with_probability_its_grey_value(grey: int) -> None:
    n = 1_000_000
    raw = torch.full((100, 1, 100, 100), grey, dtype=torch.uint8)
    p = grey / 255
    bound = 5 * (p * (1 - p) / n) ** 0.5  # five standard errors of a mean of n Bernoulli draws
    assert abs(binarise_rows(raw, 5).double().mean().item() - p) < bound
    noise = StepNoise(0, 0, global_batch=100)
    assert abs(PixelPipeline("binary").levels(raw, noise).double().mean().item() - p) < bound


def test_the_bits_of_a_seed_are_these() -> None:
    """The stream of a seed is part of every published likelihood: it may never change."""
    raw = torch.arange(0, 256, 8, dtype=torch.uint8).reshape(1, 1, 4, 8)
    drawn = "".join(map(str, binarise_rows(raw, 0).flatten().tolist()))
    assert drawn == "00000100000101100001010111011111"


@pytest.mark.parametrize("kind", ["binary", "uint8"])
def test_levels_of_a_split_with_a_limit_are_a_uniform_subset_with_the_bits_of_the_whole(
    kind: PixelKind,
) -> None:
    images = image_set(RAW, kind)
    whole, rows = test_levels(images, "test", 7), torch.from_numpy(drawn_order(len(RAW))[:10])
    assert torch.equal(test_levels(images, "test", 7, limit=10), whole[rows])
    assert torch.equal(test_levels(images, "test", 7, limit=4), whole[rows[:4]])
    assert torch.equal(test_levels(images, "test", 7, limit=len(RAW)), whole)
    assert rows.max() > len(RAW) / 2  # a set sorted by class is not judged by its first class


@pytest.mark.parametrize("bits", [1, 5, 8])
def test_reducing_to_bits_gives_that_many_levels(bits: int) -> None:
    raw = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    pipeline = PixelPipeline("discrete", bits=bits)
    levels = pipeline.levels(raw)
    assert len(torch.bincount(levels.flatten()).nonzero()) == 2**bits
    assert torch.equal(levels.flatten().long(), torch.arange(256) // 2 ** (8 - bits))
    assert torch.equal(test_levels(image_set(raw, "uint8", bits), "test", 0), levels)


def test_a_fixed_binarisation_is_left_as_it_is() -> None:
    raw = (RAW > 127).to(torch.uint8) * 255
    assert torch.equal(binarise_rows(raw, 3), raw // 255)
    assert torch.equal(PixelPipeline("binary").levels(raw, StepNoise(1, 2, global_batch=50)), raw // 255)


def test_two_processes_draw_the_bits_of_one() -> None:
    pipeline = PixelPipeline("binary", flip=True)
    whole = pipeline.levels(RAW, StepNoise(1, 2, global_batch=50))
    halves = [
        pipeline.levels(RAW[rows], StepNoise(1, 2, global_batch=50, rows=rows))
        for rows in (slice(0, 20), slice(20, 50))
    ]
    assert torch.equal(torch.cat(halves), whole)


def test_about_half_the_images_are_mirrored_whole() -> None:
    raw = torch.zeros(2000, 3, 4, 4, dtype=torch.uint8)
    raw[..., 0] = 9
    levels = PixelPipeline("discrete", flip=True).levels(raw, StepNoise(0, 0, global_batch=2000))
    mirrored = levels[..., -1].flatten(1)
    assert (mirrored.amin(1) == mirrored.amax(1)).all()
    assert abs((mirrored[:, 0] == 9).double().mean().item() - 0.5) < 5 * (0.25 / 2000) ** 0.5


def test_the_pipeline_of_a_set_is_the_one_its_pixels_need() -> None:
    assert PixelPipeline.of(image_set(RAW, "binary")).kind == "binary"
    assert PixelPipeline.of(image_set(RAW, "uint8", 5)) == PixelPipeline("discrete", bits=5)
    assert PixelPipeline.of(image_set(RAW, "uint8"), bits=3).bits == 3


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(ConfigError, match="9; give 1 to 8"):
        PixelPipeline("discrete", bits=9)
    with pytest.raises(ConfigError, match="needs noise"):
        PixelPipeline("binary").levels(RAW)
    with pytest.raises(DataError, match="no split 'dev'; it has test"):
        test_levels(image_set(RAW, "uint8"), "dev", 0)
