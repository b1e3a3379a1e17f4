"""The recipes of published runs say what was published, and their networks have the published sizes.

The tables are those of arXiv:2106.05931 (appendix G) and of the authors' released commands, written down
here a second time so that a slip in a recipe shows.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode

from lsgm.bench.flops import cost_of, recipe_pixels
from lsgm.costs import read_costs
from lsgm.kinds import find_kind, recipe_from
from lsgm.models.config import LSGMRecipe, NormPenaltyConfig
from lsgm.models.latent import parameter_counts
from lsgm.recipe_files import find_recipes, load_recipe

COLUMNS = (
    "cifar10-balanced",
    "cifar10-fid",
    "cifar10-nll",
    "mnist",
    "omniglot",
    "celebahq256-quantitative",
    "celebahq256-qualitative",
    "celebahq256-qualitative-stage3",
)


def columns(*values: Any) -> dict[str, Any]:
    """Return the row of a table by recipe; one value stands for all, seven leave the last to the seventh."""
    row = values * len(COLUMNS) if len(values) == 1 else values
    row = (*row, row[-1]) if len(row) == len(COLUMNS) - 1 else row
    return dict(zip(COLUMNS, row, strict=True))


# Stage 1 and the VAE's architecture.
VAE = {
    "vae.width": columns(128, 128, 256, 64, 64, 64, 64),
    "vae.decoder_width": columns(None),
    "vae.multipliers": columns((1, 2), (1, 2), (1, 2), (1, 2, 2), (1, 2), (1, 1, 2, 4), (1, 1, 2)),
    "vae.blocks": columns(1, 1, 1, 2, 1, 1, 1),
    "vae.pre_cells": columns(2, 2, 3, 3, 2, 2, 2),
    "vae.post_cells": columns(2, 2, 3, 3, 2, 2, 2),
    "vae.scales": columns(1, 1, 1, 1, 1, 3, 2),
    "vae.groups": columns(20, 20, 4, 2, 3, 8, 10),
    "vae.latents": columns(9, 9, 45, 20, 20, 20, 20),
    "vae.encoder_cells": columns(2, 2, 3, 1, 3, 2, 2),
    "vae.decoder_cells": columns(2, 2, 3, 1, 3, 2, 2),
    "vae.flows": columns(0, 0, 2, 0, 0, 2, 2),
    "vae.cells": columns(*["res_bnswish"] * 3, *["res_mbconv"] * 4),
    "vae.squeeze_excite": columns(True),
    "vae.input_skip": columns(False, False, False, False, False, True, True),
    "vae.decoder": columns(*["mixture"] * 3, "bernoulli", "bernoulli", "mixture", "mixture"),
    "vae.log_sigma_bound": columns(5.0),
    "data.bits": columns(8, 8, 8, 8, 8, 5, 5),
    "data.pad": columns(0, 0, 0, 2, 2, 0, 0),
    "data.flip": columns(True, True, True, False, False, True, True),
}
STAGE_1 = {
    "stage1.steps": columns(117_000, 78_000, 78_000, 60_000, 38_000, 84_400, 84_400, 0),
    "stage1.batch_size": columns(256, 256, 256, 200, 128, 64, 64),
    "stage1.kl.portion": columns(0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    "stage1.kl.end": columns(1.0, 0.7, 0.7, 0.7, 1.0, 1.0, 1.0),
    "stage1.kl.start": columns(1e-4),
    "stage1.kl.hold": columns(1e-4),
    "stage1.kl.balance": columns(True),
    "stage1.vae_penalty": columns(*[NormPenaltyConfig(1e-2, 1e-2)] * 5, *[NormPenaltyConfig(3e-2, 3e-2)] * 2),
    "stage1.vae.name": columns("adamax"),
    "stage1.vae.lr": columns(1e-2),
    "stage1.vae.lr_min": columns(1e-4),
    "stage1.vae.eps": columns(1e-3),
    "stage1.vae.weight_decay": columns(3e-4),
    "stage1.clip": columns(0.0),
}
# Stages 2 and, last, 3.
STAGE_2 = {
    "stage2.train_vae": columns(True, True, True, True, True, True, True, False),
    "prior.sde.kind": columns("vp", "vp", "geometric", "vp", "vp", "vp", "geometric", "vp"),
    "prior.sde.sigma2_max": columns(None, None, 0.999, None, None, None, 0.999, None),
    "prior.objective.time_eps": columns(0.01, 0.01, 0.0, 0.01, 0.01, 0.01, 0.0, 0.01),
    "prior.objective.weighting": columns("un", "un", "ll", "ll", "ll", "re", "re", "re"),
    "prior.objective.importance_sampling": columns(True, True, False, True, True, True, True, True),
    "prior.objective.reference_compat": columns(False),
    "stage2.vae_times": columns(*["shared"] * 5, "disjoint", "disjoint", "shared"),
    "stage2.ema_prior": columns(False, False, False, False, False, False, True, False),
    "stage2.kl.start": columns(1.0, 0.7, 0.7, 0.7, 0.7, 1.0, 0.7, 1.0),
    "stage2.kl.end": columns(1.0),
    "stage2.kl.balance": columns(False),
    "prior.network.width": columns(512, 512, 512, 256, 256, 256, 256, 320),
    "prior.network.multipliers": columns(
        *[(1, 1, 1)] * 3, (1, 1), (1, 1, 1), (1, 2, 2, 2), (1, 1, 2, 2, 2), (1, 1, 2, 2, 2)
    ),
    "prior.network.blocks": columns(8),
    "prior.network.fir": columns(True, True, True, False, False, True, True, True),
    "prior.network.attention": columns((16,)),
    "prior.network.dropout": columns(0.2),
    "prior.network.embedding": columns(128),
    "prior.network.embedding_scale": columns(1000.0),
    "prior.mixing_init": columns(-3.0, -3.0, -3.0, -6.0, -6.0, -6.0, -6.0, -6.0),
    "stage2.drop_inactive": columns(False, False, False, True, True, True, True, True),
    "stage2.prior_penalty": columns(
        # The authors' custom convolutions are of a class that their penalty skips: gains alone.
        NormPenaltyConfig(0.0, 1e-2),
        NormPenaltyConfig(0.0, 1e-2),
        NormPenaltyConfig(1e-2, 1e-2),
        NormPenaltyConfig(0.0, 0.0),
        NormPenaltyConfig(1e-3, 1e-3),
        NormPenaltyConfig(1e-2, 1e-2),
        NormPenaltyConfig(1e-2, 1e-2),
        NormPenaltyConfig(1e-2, 1e-2),
    ),
    "stage2.prior.name": columns("adamw"),
    "stage2.prior.lr": columns(1e-4, 1e-4, 1e-4, 3e-4, 3e-4, 1e-4, 1e-4, 6e-5),
    "stage2.prior.lr_min": columns(1e-4, 1e-4, 1e-4, 3e-4, 3e-4, 1e-4, 1e-4, 6e-5),
    "stage2.prior.eps": columns(1e-4),
    "stage2.prior.weight_decay": columns(3e-4),
    "stage2.steps": columns(*[365_625] * 3, 374_400, 285_000, 422_000, 422_000, 421_500),
    "stage2.batch_size": columns(256, 256, 256, 128, 128, 64, 64, 96),
    "stage2.ema": columns(0.9999),
    "stage2.clip": columns(0.0),
}
JOINT = {  # what stage 3, whose VAE stays, has no use for
    "stage2.vae_penalty": columns(*[NormPenaltyConfig(1e-2, 1e-2)] * 5, *[NormPenaltyConfig(1e-1, 1e-1)] * 2),
    "stage2.vae.name": columns("adamw"),
    "stage2.vae.lr": columns(1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 8e-5),
    "stage2.vae.lr_min": columns(1e-5),
    "stage2.vae.eps": columns(1e-3),
    "stage2.vae.weight_decay": columns(3e-4),
}
WARMUP_1 = columns(5 / 600, 5 / 400, 5 / 400, 5 / 200, 5 / 200, 5 / 200, 5 / 200)
WARMUP_2 = columns(*[5 / 1875] * 3, 20 / 800, 20 / 1500, 20 / 1000, 20 / 1000, 20 / 1500)

SIZES = columns(
    (100.87, 375.56),
    (100.87, 375.56),
    (130.62, 375.56),
    (3.01, 63.77),
    (5.38, 97.80),
    (51.30, 408.37),
    (17.79, 440.12),
    (17.79, 680.83),
)
"""Millions of parameters of the VAE and of the score prior."""
LATENTS = columns(
    (180, 16, 16),
    (180, 16, 16),
    (180, 16, 16),
    (40, 8, 8),
    (60, 16, 16),
    (160, 32, 32),
    (200, 64, 64),
)


def read(name: str) -> LSGMRecipe:
    recipe = recipe_from(load_recipe(name), name)
    assert isinstance(recipe, LSGMRecipe)
    return recipe


def at(recipe: LSGMRecipe, path: str) -> Any:
    value: Any = recipe
    for part in path.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("name", COLUMNS)
def test_a_recipe_says_what_was_published(name: str) -> None:
    recipe = read(name)
    tables = [VAE, STAGE_2] if name.endswith("stage3") else [VAE, STAGE_1, STAGE_2, JOINT]
    expected = {path: row[name] for table in tables for path, row in table.items()}
    assert {path: at(recipe, path) for path in expected} == expected
    assert recipe.stage2.warmup == pytest.approx(WARMUP_2[name], rel=1e-4)
    if recipe.stage1.steps:
        assert recipe.stage1.warmup == pytest.approx(WARMUP_1[name], rel=1e-4)
    if recipe.prior.sde.kind == "geometric":
        assert (recipe.prior.sde.sigma2_min, recipe.prior.sde.sigma2_0) == (3e-5, 3e-5)
    else:
        assert (recipe.prior.sde.beta_start, recipe.prior.sde.beta_end) == (0.1, 20.0)


@pytest.mark.parametrize("name", COLUMNS)
def test_its_networks_have_the_published_sizes(name: str) -> None:
    recipe = read(name)
    with FakeTensorMode(), torch.no_grad():
        networks = find_kind("lsgm").build(recipe, recipe_pixels(recipe))
    counts = parameter_counts(networks)
    assert (round(counts["vae"] / 1e6, 2), round(counts["prior"] / 1e6, 2)) == SIZES[name]
    assert networks.get_submodule("vae").groups.z_0 == LATENTS[name]


@pytest.mark.parametrize("name", [name for name in COLUMNS if not name.endswith("stage3")])
def test_beside_it_stands_a_small_one_of_its_family(name: str) -> None:
    whole, small = read(name), read(f"{name}-small")
    for path in ("data", "prior.objective", "prior.sde", "stage2.train_vae", "stage2.drop_inactive"):
        assert at(small, path) == at(whole, path), path
    for path in ("vae.decoder", "vae.scales", "vae.input_skip", "stage2.vae_times", "stage2.ema_prior"):
        assert at(small, path) == at(whole, path), path


@pytest.mark.parametrize("name", sorted(find_recipes()))
def test_the_cost_that_the_list_shows_is_that_of_the_recipe(name: str) -> None:
    told = read_costs(find_recipes()[name].parent)
    assert told[name] == cost_of(recipe_from(load_recipe(name), name)), (
        f"{name} has changed; run `lsgm bench cost --write`"
    )


def test_the_list_shows_no_cost_of_recipes_that_are_gone() -> None:
    folders = {file.parent for file in find_recipes().values()}
    assert sorted(find_recipes()) == sorted(name for folder in folders for name in read_costs(folder))


def test_the_published_costs_are_near_a_count_by_hand() -> None:
    # Forward multiplications and additions, in 10^9 per image: VAE 26.5, prior 41.3; three passes of each.
    cost = cost_of(read("cifar10-fid"))
    assert cost.step_flops["stage2"] == pytest.approx(3 * 2e9 * (26.5 + 41.3) * 256, rel=0.02)
    assert cost.flops == pytest.approx(256 * 6e9 * (78_000 * 26.5 + 365_625 * (26.5 + 41.3)), rel=0.02)
