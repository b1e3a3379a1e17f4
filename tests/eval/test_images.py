"""Which bits a likelihood is measured on: the same in every run, of the model's own kind, without padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from lsgm.data import ImageSet, sha256_of
from lsgm.data.images import test_levels as levels_of
from lsgm.data.registry import DATASETS
from lsgm.errors import DataError, UserError
from lsgm.generative import Pixels
from lsgm_eval.images import ScoredImages, check_pixels, scored_images_of
from lsgm_eval.task import Task, load_task

Make = Callable[..., Any]
TASK = Task("bars", 1, "bars", "bars", binarisation_seed=3)


@pytest.fixture
def colours() -> ImageSet:
    """Four colour pictures in which every value occurs."""
    generator = torch.Generator().manual_seed(1)
    values = torch.stack([torch.randperm(256, generator=generator) for _ in range(12)])
    images = values.to(torch.uint8).reshape(4, 3, 16, 16)
    return ImageSet("colours", "1", sha256_of(images), "uint8", {"test": images})


def test_two_runs_see_the_same_bits_and_another_seed_sees_others(bars: ImageSet) -> None:
    first, again = scored_images_of(TASK, bars), scored_images_of(TASK, bars)
    assert torch.equal(first.levels, again.levels)
    assert first.levels_sha256 == again.levels_sha256 == sha256_of(levels_of(bars, "test", 3))
    assert scored_images_of(replace(TASK, binarisation_seed=4), bars).levels_sha256 != first.levels_sha256


def test_images_are_taken_in_an_order_that_a_smaller_measurement_opens(bars: ImageSet) -> None:
    order = scored_images_of(TASK, bars).order
    assert torch.equal(order.sort().values, torch.arange(300))
    assert not torch.equal(order, torch.arange(300))
    assert torch.equal(order, scored_images_of(TASK, bars).order)


def test_only_drawn_bits_have_a_seed(bars: ImageSet, colours: ImageSet) -> None:
    drawn = scored_images_of(TASK, bars)
    assert drawn.binarisation_seed == 3
    # As in Larochelle's binarisation: bits are what they are, whatever the seed.
    fixed = replace(bars, splits={"test": drawn.levels * 255})
    assert scored_images_of(replace(TASK, binarisation_seed=9), fixed).levels_sha256 == drawn.levels_sha256
    assert scored_images_of(TASK, fixed).binarisation_seed is None
    assert scored_images_of(TASK, colours).binarisation_seed is None


def test_bits_other_than_those_a_task_knows_are_refused_with_both_hashes(bars: ImageSet) -> None:
    right = scored_images_of(TASK, bars).levels_sha256
    assert scored_images_of(replace(TASK, levels={bars.sha256: right}), bars).levels_sha256 == right
    assert scored_images_of(replace(TASK, levels={"e" * 64: "f" * 64}), bars)  # of another edition
    with pytest.raises(DataError, match=rf"have sha256 {right} and task bars@1 knows them as {'f' * 64}"):
        scored_images_of(replace(TASK, levels={bars.sha256: "f" * 64}), bars)


@pytest.mark.parametrize(("bits", "shift"), [(None, 0), (8, 0), (5, 3), (1, 7)])
def test_a_task_scores_the_upper_bits_that_it_names(colours: ImageSet, bits: int | None, shift: int) -> None:
    scored = scored_images_of(replace(TASK, bits=bits), colours)
    assert torch.equal(scored.levels, colours.splits["test"] >> shift)
    assert scored.pixels == Pixels(3, 16, 16, "discrete", 8 - shift)
    assert scored.levels.unique().tolist() == list(range(scored.pixels.levels))


def test_the_bits_of_a_set_are_the_tasks_unless_it_names_others(colours: ImageSet) -> None:
    assert scored_images_of(TASK, replace(colours, bits=5)).pixels.bits == 5
    assert scored_images_of(replace(TASK, bits=8), replace(colours, bits=5)).pixels.bits == 8


def test_binary_pixels_have_no_bits_to_name(bars: ImageSet) -> None:
    with pytest.raises(UserError, match="task bars sets bits, and the pixels of bars are binary"):
        scored_images_of(replace(TASK, bits=5), bars)


@pytest.mark.parametrize("bits", [1, 8])
def test_a_binary_model_fits_binary_images_whatever_it_calls_its_bits(
    bars: ImageSet, bernoulli: Make, bits: int
) -> None:
    check_pixels(bernoulli(pixels=Pixels(1, 28, 28, "binary", bits)), scored_images_of(TASK, bars))


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (Pixels(3, 32, 32, "discrete"), "makes 3x32x32 8-bit images and the task needs 1x28x28 binary"),
        (Pixels(1, 28, 28, "discrete", 1), "makes 1x28x28 1-bit images"),
        # A decoder of padded images would spread its probability over the padding too.
        (Pixels(1, 32, 32, "binary", 1), "makes 1x32x32 binary images"),
    ],
)
def test_a_model_of_other_pixels_is_sent_to_its_own_task(
    bars: ImageSet, bernoulli: Make, pixels: Pixels, says: str
) -> None:
    with pytest.raises(UserError, match=says) as caught:
        check_pixels(bernoulli(pixels=pixels), scored_images_of(TASK, bars))
    assert "choose the task that it was trained for" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_decoder_of_eight_bits_gives_five_bits_no_probability(bernoulli: Make) -> None:
    levels = torch.zeros(2, 3, 256, 256, dtype=torch.uint8)
    pixels = Pixels(3, 256, 256, "discrete", 5)
    images = ScoredImages("celebahq256@1@a", "test", pixels, levels, sha256_of(levels), torch.arange(2))
    check_pixels(bernoulli(pixels=pixels), images)
    with pytest.raises(UserError, match=r"3x256x256 8-bit .* needs 3x256x256 5-bit .* task of 8 bits"):
        check_pixels(bernoulli(pixels=replace(pixels, bits=8)), images)


def test_padding_never_counts(bars: ImageSet) -> None:
    """Some networks see 32x32 pictures of the sets of 28x28: bits/dim are over what was given."""
    assert scored_images_of(TASK, bars).pixels.dims == bars.splits["test"][0].numel() == 784
    for name in ("glyphs", "mnist", "mnist-fixed", "omniglot", "omniglot-lake28"):
        assert DATASETS[load_task(name).dataset].image_shape == (1, 28, 28)
