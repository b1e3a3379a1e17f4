"""Every installed recipe says something that can be built and trained."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from lsgm.bench.cost import recipe_pixels
from lsgm.bench.measuring import narrowed
from lsgm.discovery import offers
from lsgm.generative import Pixels
from lsgm.kinds import find_kind, kind_names, recipe_from
from lsgm.recipes import find_recipes, load_recipe, read_costs
from lsgm.rng import StepNoise
from lsgm.runs.load import checkpoint_meta, fresh_networks
from lsgm.structure import from_dict
from lsgm.train.optim import build_optimizer
from lsgm.train.stage import Losses

NAMES = sorted(find_recipes())


def read(name: str) -> Any:
    return recipe_from(load_recipe(name), name)


def test_there_are_recipes_and_kinds() -> None:
    assert {"glyphs", "glyphs-sgm", "glyphs-vae"} <= set(NAMES)
    assert {"lsgm", "sgm", "vae"} <= set(kind_names())
    assert sorted(offers("lsgm.kinds")) == kind_names()


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_of_an_installed_kind_and_survives_the_way_through_a_checkpoint(name: str) -> None:
    recipe = read(name)
    kind = find_kind(recipe.kind)
    assert type(recipe) is kind.recipe_type
    meta = checkpoint_meta(recipe, recipe_pixels(recipe), "somewhere")
    assert from_dict(kind.recipe_type, meta["recipe"], name) == recipe
    assert Pixels(**meta["pixels"]) == recipe_pixels(recipe)


LARGE = 10_000_000
"""Parameters above which a recipe steps at a share of its width, as one of images above 64 x 64 does; depth,
groups and modes stay."""


def affordable(name: str) -> tuple[Any, Pixels]:
    """Return a recipe and its pixels as they are, or of a size that two cores step through in seconds."""
    recipe = read(name)
    pixels = recipe_pixels(recipe)
    costs = read_costs(find_recipes()[name].parent)
    if sum(costs[name].parameters.values()) <= LARGE and pixels.height <= 64:
        return recipe, pixels
    side = min(pixels.height, 64)
    return narrowed(recipe, 1 / 16), dataclasses.replace(pixels, height=side, width=side)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_makes_one_training_step_in_every_stage(name: str) -> None:
    recipe, pixels = affordable(name)
    networks = fresh_networks(recipe, pixels)
    levels = torch.randint(0, pixels.levels, (2, *pixels.shape), dtype=torch.uint8)
    for spec in find_kind(recipe.kind).stages(recipe, networks):
        if spec.config.steps == 0:
            continue
        stage = spec.build()
        assert stage.name == spec.name
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=spec.config.precision == "bfloat16"):
            losses: Losses = stage.module(levels, StepNoise(0, 0, global_batch=2), 0.5)
        losses.total.backward()  # type: ignore[no-untyped-call]
        assert torch.isfinite(losses.total)
        assert all(torch.isfinite(term) for term in losses.terms.values())
        grouped = [parameter for group in stage.groups() for parameter in group.params]
        # What the stage trains is all that it holds, so that nothing is frozen by oversight.
        trains_vae = hasattr(spec.config, "vae") and getattr(spec.config, "train_vae", True)
        kept = stage.module if trains_vae else networks.get_submodule("prior")
        assert {id(p) for p in grouped} == {id(p) for p in kept.parameters()}
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in grouped)
        for group in stage.groups():
            build_optimizer(group).step()
        assert all(bool(p.isfinite().all()) for p in grouped)
        stage.module.zero_grad()


@pytest.mark.parametrize("name", [name for name in NAMES if f"{name}-sgm" in NAMES])
def test_the_baselines_of_a_recipe_see_its_data(name: str) -> None:
    ours, vae, sgm = read(name), read(f"{name}-vae"), read(f"{name}-sgm")
    assert (vae.kind, sgm.kind) == ("vae", "sgm")
    assert ours.data == vae.data
    # A score model of pixels must not model padding; the LSGM's is never scored.
    assert sgm.data.dataset == ours.data.dataset
    assert (sgm.data.flip, sgm.data.bits) == (ours.data.flip, ours.data.bits)
    assert sgm.data.pad == 0
