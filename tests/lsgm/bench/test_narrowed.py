"""A recipe made narrower is the same recipe with fewer channels."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny import recipe

from lsgm.bench.cost import recipe_pixels
from lsgm.bench.measuring import narrowed, read_recipes
from lsgm.errors import ConfigError
from lsgm.model.lsgm import build_lsgm
from lsgm.runs.load import fresh_networks


def test_a_share_of_one_changes_nothing() -> None:
    assert narrowed(recipe(), 1.0) == recipe()


def test_widths_are_rounded_to_what_group_norm_divides() -> None:
    full = recipe({"vae": {"width": 40}, "prior": {"network": {"width": 512}}})
    small = narrowed(full, 0.3)
    assert (small.vae.width, small.prior.network.width) == (12, 160)
    assert narrowed(full, 0.01).vae.width == 4


def test_nothing_but_widths_and_batches_changes() -> None:
    small = narrowed(recipe({"prior": {"network": {"width": 64}}}), 0.5, batch=3)
    stages = (small.stage1, small.prior_stage, small.stage2)
    assert [stage.batch_size for stage in stages] == [3, 3, 3]
    back = dataclasses.replace(
        small,
        vae=dataclasses.replace(small.vae, width=recipe().vae.width),
        prior=recipe().prior,
        stage1=dataclasses.replace(small.stage1, batch_size=8),
        prior_stage=recipe().prior_stage,
        stage2=dataclasses.replace(small.stage2, batch_size=8),
    )
    assert back == recipe()
    assert small.prior.network == dataclasses.replace(recipe().prior.network, width=32)


@pytest.mark.parametrize("name", ["omniglot", "mnist", "cifar10-fid", "cifar10-nll"])
def test_published_recipes_can_be_built_narrow_with_their_own_latents(name: str) -> None:
    full = read_recipes(name)[name]
    with torch.device("meta"):
        wide = build_lsgm(full, recipe_pixels(full))
        for share in (0.06, 0.3):
            small = build_lsgm(narrowed(full, share), recipe_pixels(full))
            assert small.vae.groups == wide.vae.groups


@pytest.mark.parametrize(("share", "batch", "words"), [(0.0, None, "width is 0"), (2, None, "width is 2")])
def test_a_share_outside_of_its_range_is_refused(share: float, batch: int | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        narrowed(recipe(), share, batch)


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch is 0"):
        narrowed(recipe(), 1.0, 0)


def test_a_narrow_recipe_of_the_tiny_kind_still_builds() -> None:
    tiny = narrowed(recipe(), 0.5)
    assert fresh_networks(tiny, recipe_pixels(tiny)) is not None
