"""The recipes of Burda et al. (arXiv:1509.00519): the published networks, trained by either bound."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lsgm.bench.cost import cost_of
from lsgm.kinds import recipe_from
from lsgm.recipes import find_recipes, load_recipe, shown_flops, shown_hours
from lsgm.recipes.recipe import KLConfig
from lsgm_baselines.recipe import VAERecipe

PUBLISHED = {
    "encoder": 784 * 200 + 200 + 200 * 200 + 200 + 2 * (200 * 50 + 50),
    "decoder": 50 * 200 + 200 + 200 * 200 + 200 + 200 * 784 + 784,
}
SAMPLES = {"flat-vae": 1, "iwae": 50}
IMAGES = {"mnist": 57_000, "omniglot": 23_128}
NAMES = [f"{data}-{model}" for data in IMAGES for model in SAMPLES]


def read(name: str) -> Any:
    return recipe_from(load_recipe(name), name)


@pytest.mark.parametrize("name", NAMES)
def test_the_published_model_trained_by_its_bound(name: str) -> None:
    recipe = read(name)
    data, model = name.split("-", 1)
    assert isinstance(recipe, VAERecipe)
    assert (recipe.data.dataset, recipe.data.pad) == (data, 0)
    assert (recipe.vae.kind, recipe.vae.hidden, recipe.vae.latents) == ("flat", (200, 200), 50)
    assert cost_of(recipe).parameters == {"vae": sum(PUBLISHED.values())}
    stage = recipe.stage1
    assert stage.importance_samples == SAMPLES[model]
    assert stage.kl == KLConfig(start=1.0, end=1.0, portion=0.0)
    # Section 5 of the paper; the rate and the batch are said in the recipe's comment.
    assert (stage.vae.name, stage.vae.beta1, stage.vae.beta2, stage.vae.eps) == ("adam", 0.9, 0.999, 1e-4)
    assert stage.clip == 0


@pytest.mark.parametrize("data", IMAGES)
def test_the_two_bounds_train_the_same_model(data: str) -> None:
    vae, iwae = read(f"{data}-flat-vae"), read(f"{data}-iwae")
    assert (vae.vae, vae.data, vae.seed) == (iwae.vae, iwae.data, iwae.seed)
    rates = [dataclasses.replace(recipe.stage1.vae, lr=1e-3) for recipe in (vae, iwae)]
    assert rates[0] == rates[1]


@pytest.mark.parametrize("name", NAMES)
def test_the_comment_tells_cost_and_epochs(name: str) -> None:
    lines = find_recipes()[name].read_text().splitlines()
    comment = " ".join(line[2:] for line in lines if line.startswith("# "))
    recipe = read(name)
    flops = cost_of(recipe).flops
    assert f"{shown_flops(flops)}, {shown_hours(flops)}." in comment
    epochs = recipe.stage1.steps * recipe.stage1.batch_size / IMAGES[name.split("-", maxsplit=1)[0]]
    assert f"{epochs:,.0f} epochs of batches of {recipe.stage1.batch_size} " in comment
    assert ("omniglot-lake28" in comment) == name.startswith("omniglot")
