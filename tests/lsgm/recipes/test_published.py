"""The recipes of the published runs: every setting, every count of parameters, and what they cost."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import pytest

from lsgm.bench.cost import Forward, cost_from, counted, recipe_pixels, step_flops
from lsgm.kinds import recipe_from
from lsgm.nets.config import NVAEConfig
from lsgm.recipes import TrainingCost, find_recipes, load_recipe, read_costs, shown_flops, shown_hours
from lsgm.recipes.recipe import JointStage, VAEStage
from lsgm.vae.hierarchical import Layout

INSTALLED = find_recipes()


@cache
def read(name: str) -> Any:
    return recipe_from(load_recipe(name), name)


@cache
def told(name: str) -> TrainingCost:
    """What the cost file says, which a test below holds against counting."""
    return read_costs(INSTALLED[name].parent)[name]


QUAL, STAGE3 = "celebahq256-qualitative", "celebahq256-qualitative-stage3"
RUNS = ("cifar10-balanced", "cifar10-fid", "cifar10-nll", "mnist", "omniglot")
RUNS += ("celebahq256-quantitative", QUAL, STAGE3)

# One row a setting, one column a run in the order of RUNS: the published commands of either stage. The third
# stage of the last column has the VAE of the second one and no first stage.
_ = None
VAE: dict[str, tuple[Any, ...]] = {
    "width": (128, 128, 256, 64, 64, 64, 64, 64),
    "multipliers": ((1, 2),) * 3 + ((1, 2, 2), (1, 2), (1, 1, 2, 4), (1, 1, 2), (1, 1, 2)),
    "blocks": (1, 1, 1, 2, 1, 1, 1, 1),
    "pre_cells": (2, 2, 3, 3, 2, 2, 2, 2),
    "post_cells": (2, 2, 3, 3, 2, 2, 2, 2),
    "scales": (1, 1, 1, 1, 1, 3, 2, 2),
    "groups": (20, 20, 4, 2, 3, 8, 10, 10),
    "latents": (9, 9, 45, 20, 20, 20, 20, 20),
    "encoder_cells": (2, 2, 3, 1, 3, 2, 2, 2),
    "decoder_cells": (2, 2, 3, 1, 3, 2, 2, 2),
    "flows": (0, 0, 2, 0, 0, 2, 2, 2),
    "cells": ("res_bnswish",) * 3 + ("res_mbconv",) * 5,
    "squeeze_excite": (True,) * 8,
    "input_skip": (False,) * 5 + (True,) * 3,
    "log_sigma_bound": (5.0,) * 8,
    "decoder": ("mixture",) * 3 + ("bernoulli",) * 2 + ("mixture",) * 3,
}
DATA: dict[str, tuple[Any, ...]] = {
    "dataset": ("cifar10",) * 3 + ("mnist", "omniglot") + ("celebahq256",) * 3,
    "bits": (8,) * 5 + (5,) * 3,
    "pad": (0, 0, 0, 2, 2, 0, 0, 0),
    "flip": (True,) * 3 + (False,) * 2 + (True,) * 3,
}
PRIOR: dict[str, tuple[Any, ...]] = {
    "sde.kind": ("vp", "vp", "geometric", "vp", "vp", "vp", "geometric", "vp"),
    "sde.beta_start": (0.1,) * 8,
    "sde.beta_end": (20.0,) * 8,
    "sde.sigma2_0": (_, _, 3e-5, _, _, _, 3e-5, _),
    "sde.sigma2_min": (_, _, 3e-5, _, _, _, 3e-5, _),
    "sde.sigma2_max": (_, _, 0.999, _, _, _, 0.999, _),
    "objective.time_eps": (0.01, 0.01, 0.0, 0.01, 0.01, 0.01, 0.0, 0.01),
    "objective.weighting": ("un", "un", "ll", "ll", "ll", "re", "re", "re"),
    "objective.importance_sampling": (True, True, False, True, True, True, True, True),
    "objective.reference_compat": (False,) * 8,
    "mixing_init": (-3.0,) * 3 + (-6.0,) * 5,
    "network.width": (512, 512, 512, 256, 256, 256, 256, 320),
    "network.multipliers": ((1, 1, 1),) * 3
    + ((1, 1), (1, 1, 1), (1, 2, 2, 2), (1, 1, 2, 2, 2), (1, 1, 2, 2, 2)),
    "network.blocks": (8,) * 8,
    "network.fir": (True,) * 3 + (False,) * 2 + (True,) * 3,
    "network.attention": ((16,),) * 8,
    "network.dropout": (0.2,) * 8,
    "network.embedding": (128,) * 8,
    "network.embedding_scale": (1000.0,) * 8,
    "network.embedding_kind": ("positional",) * 8,
    "network.progressive": ("none",) * 8,
    "network.progressive_input": ("none",) * 8,
}
STAGE1: dict[str, tuple[Any, ...]] = {
    "steps": (117_000, 78_000, 78_000, 60_000, 38_000, 84_400, 84_400),
    "batch_size": (8 * 32, 8 * 32, 4 * 64, 2 * 100, 2 * 64, 16 * 4, 16 * 4),
    "warmup": (5 / 600, 5 / 400, 5 / 400, 5 / 200, 5 / 200, 5 / 200, 5 / 200),
    "ema": (0.0,) * 7,
    "clip": (0.0,) * 7,
    "kl.start": (1e-4,) * 7,
    "kl.hold": (1e-4,) * 7,
    "kl.portion": (0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    "kl.end": (1.0, 0.7, 0.7, 0.7, 1.0, 1.0, 1.0),
    "kl.balance": (True,) * 7,
    "vae.name": ("adamax",) * 7,
    "vae.lr": (1e-2,) * 7,
    "vae.lr_min": (1e-4,) * 7,
    "vae.eps": (1e-3,) * 7,
    "vae.weight_decay": (3e-4,) * 7,
    "vae_penalty.spectral": (1e-2,) * 5 + (3e-2,) * 2,
    "vae_penalty.gain": (1e-2,) * 5 + (3e-2,) * 2,
    "vae_penalty.anneal_from": (_,) * 7,
}
STAGE2: dict[str, tuple[Any, ...]] = {
    "steps": (365_625,) * 3 + (374_400, 285_000, 422_000, 422_000, 421_500),
    "batch_size": (16 * 16,) * 3 + (4 * 32, 4 * 32, 16 * 4, 16 * 4, 16 * 6),
    "warmup": (5 / 1875,) * 3 + (20 / 800, 20 / 1500, 20 / 1000, 20 / 1000, 20 / 1500),
    "ema": (0.9999,) * 8,
    "clip": (0.0,) * 8,
    "train_vae": (True,) * 7 + (False,),
    "vae_times": ("shared",) * 5 + ("disjoint", "disjoint", "shared"),
    "vae_importance_sampling": (True,) * 8,
    "ema_prior": (False,) * 6 + (True, False),
    "drop_inactive": (False,) * 3 + (True,) * 5,
    "kl.start": (1.0, 0.7, 0.7, 0.7, 0.7, 1.0, 0.7, 1.0),
    "kl.end": (1.0,) * 8,
    "kl.hold": (0.0,) * 8,
    "kl.portion": (0.0, 0.1, 0.1, 0.1, 0.1, 0.0, 0.1, 0.0),
    "kl.balance": (False,) * 8,
    "prior.name": ("adamw",) * 8,
    "prior.lr": (1e-4, 1e-4, 1e-4, 3e-4, 3e-4, 1e-4, 1e-4, 6e-5),
    "prior.lr_min": (1e-4, 1e-4, 1e-4, 3e-4, 3e-4, 1e-4, 1e-4, 6e-5),
    "prior.eps": (1e-4,) * 8,
    "prior.weight_decay": (3e-4,) * 8,
    "prior_penalty.spectral": (0.0, 0.0, 1e-2, 0.0, 1e-3, 1e-2, 1e-2, 1e-2),
    "prior_penalty.gain": (1e-2, 1e-2, 1e-2, 0.0, 1e-3, 1e-2, 1e-2, 1e-2),
}
STAGE2_VAE: dict[str, tuple[Any, ...]] = {
    "vae.name": ("adamw",) * 7,
    "vae.lr": (1e-4,) * 6 + (8e-5,),
    "vae.lr_min": (1e-5,) * 7,
    "vae.eps": (1e-3,) * 7,
    "vae.weight_decay": (3e-4,) * 7,
    "vae_penalty.spectral": (1e-2,) * 5 + (1e-1,) * 2,
    "vae_penalty.gain": (1e-2,) * 5 + (1e-1,) * 2,
}
TABLES = {
    "vae": (VAE,),
    "data": (DATA,),
    "prior": (PRIOR,),
    "stage1": (STAGE1,),
    "stage2": (STAGE2, STAGE2_VAE),
}


@pytest.mark.parametrize("name", RUNS)
def test_every_published_setting_stands_in_the_recipe(name: str) -> None:
    column = RUNS.index(name)
    for part, tables in TABLES.items():
        for dotted, row in (item for table in tables for item in table.items()):
            if column >= len(row):
                continue
            value = getattr(read(name), part)
            for key in dotted.split("."):
                value = getattr(value, key)
            # The shares of warm-up are written with six digits.
            expected = pytest.approx(row[column], rel=1e-5) if isinstance(row[column], float) else row[column]
            assert value == expected, f"{part}.{dotted}"
    assert read(name).vae.decoder_width is None
    assert (name == STAGE3) == (read(name).stage1.steps == 0)


# Millions of parameters, to the two digits known, and the latents of the top scale.
COUNTS = {
    "cifar10-fid": (100.87, 375.56, (180, 16, 16)),
    "cifar10-balanced": (100.87, 375.56, (180, 16, 16)),
    "cifar10-nll": (130.62, 375.56, (180, 16, 16)),
    "mnist": (3.01, 63.77, (40, 8, 8)),
    "omniglot": (5.38, 97.80, (60, 16, 16)),
    "celebahq256-quantitative": (51.30, 408.37, (160, 32, 32)),
    QUAL: (17.79, 440.12, (200, 64, 64)),
    STAGE3: (17.79, 680.83, (200, 64, 64)),
}


@pytest.mark.parametrize("name", RUNS)
def test_the_networks_have_the_published_sizes(name: str) -> None:
    recipe = read(name)
    vae, prior, (channels, height, width) = COUNTS[name]
    counts = told(name).parameters
    assert round(counts["vae"] / 1e6, 2) == vae
    assert round(counts["prior"] / 1e6, 2) == prior
    assert isinstance(recipe.vae, NVAEConfig)
    side = recipe_pixels(recipe).height + 2 * recipe.data.pad
    shapes = Layout(recipe.vae).shapes(side, side)
    top = shapes[: recipe.vae.groups]
    assert set(top) == {(channels // recipe.vae.groups, height, width)}
    assert sum(shape[0] for shape in top) == channels
    # Every lower scale has as many channels at twice the side.
    for scale in range(1, recipe.vae.scales):
        lower = shapes[scale * recipe.vae.groups : (scale + 1) * recipe.vae.groups]
        assert set(lower) == {(channels // recipe.vae.groups, height * 2**scale, width * 2**scale)}


def test_operations_of_a_step_are_those_of_its_forward_passes() -> None:
    """Multiply-adds of one forward pass, in units of 1e9, as they were counted on the authors' code."""
    gmacs = {"cifar10-fid": (26.5, 41.3), "cifar10-nll": (38.4, 41.3), "mnist": (0.70, 2.28)}
    gmacs |= {"omniglot": (1.50, 10.4), "celebahq256-quantitative": (151, 74.3)}
    for name, (vae, prior) in gmacs.items():
        recipe, steps = read(name), told(name).step_flops
        prior_passes = 3 if recipe.stage2.vae_times == "shared" else 5
        # Three digits, the last of which is rounded.
        assert steps["stage1"] == pytest.approx(6e9 * vae * recipe.stage1.batch_size, rel=1e-2)
        joint = 2e9 * (3 * vae + prior_passes * prior) * recipe.stage2.batch_size
        assert steps["stage2"] == pytest.approx(joint, rel=1e-2)


def test_passes_of_every_mode() -> None:
    forward = Forward(encode=1, vae=10, prior=100)
    both = frozenset({"vae", "prior"})
    assert step_flops(VAEStage(batch_size=2), forward) == 2 * 30
    assert step_flops(VAEStage(batch_size=1), forward, both) == 40
    joint = JointStage(batch_size=1)
    assert step_flops(joint, forward) == 330
    assert step_flops(joint, forward, both) == 440
    for times in ("own", "disjoint"):
        assert step_flops(dataclasses.replace(joint, vae_times=times), forward) == 530
    frozen = dataclasses.replace(joint, train_vae=False)
    assert step_flops(frozen, forward) == 301
    assert step_flops(dataclasses.replace(frozen, cached_draws=1), forward) == 300


def vae_of(name: str) -> str:
    """What decides the shapes of a recipe's VAE, and whether several draws of its latents are counted."""
    recipe = read(name)
    draws = getattr(getattr(recipe, "stage1", None), "importance_samples", 1)
    return repr([getattr(recipe, "vae", None), recipe_pixels(recipe), recipe.data.pad, draws > 1])


def prior_of(name: str) -> str:
    """What decides the shapes of a recipe's score model."""
    prior = getattr(read(name), "prior", None)
    return repr(prior and (prior.network, prior.parameterisation, prior.preconditioning, prior.mixing_init))


def alike() -> list[list[str]]:
    """The installed recipes in groups whose networks are those of the first, or its VAE alone."""
    groups: list[list[str]] = []
    for name in sorted(INSTALLED, key=lambda name: (read(name).kind == "vae", name)):
        for group in groups:
            alone = read(name).kind == "vae" or prior_of(name) == prior_of(group[0])
            if alone and vae_of(name) == vae_of(group[0]):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


@pytest.mark.parametrize("names", alike(), ids=lambda names: names[0])
def test_the_cost_file_says_what_counting_gives(names: list[str]) -> None:
    """Networks of equal shapes are counted once. `lsgm bench cost --write` brings the files up to date."""
    forward, parameters = counted(read(names[0]))
    for name in names:
        own = {"vae": parameters["vae"]} if read(name).kind == "vae" else parameters
        assert told(name) == cost_from(read(name), forward, own), name


@pytest.mark.parametrize("name", [name for name in INSTALLED if name in RUNS or name.endswith("-small")])
def test_the_comment_of_a_recipe_says_its_cost(name: str) -> None:
    text = INSTALLED[name].read_text()
    comment = " ".join(line[2:] for line in text.splitlines() if line.startswith("# "))
    assert f"{shown_flops(told(name).flops)}, {shown_hours(told(name).flops)}" in comment
    assert f"{name.removesuffix('-small')}-small" in INSTALLED


def test_the_cost_files_tell_of_no_recipe_that_is_gone() -> None:
    folders = {file.parent for file in INSTALLED.values()}
    assert {name for folder in folders for name in read_costs(folder)} == INSTALLED.keys()


def setting(recipe: Any, path: str) -> Any:
    for part in path.split("."):
        recipe = getattr(recipe, part)
    return recipe


@pytest.mark.parametrize("name", [name for name in RUNS if name != STAGE3])
def test_the_small_recipe_is_of_the_family(name: str) -> None:
    whole, small = read(name), read(f"{name}-small")
    for path in (
        "data",
        "prior.objective",
        "prior.sde.kind",
        "prior.sde.sigma2_max",
        "stage2.train_vae",
        "stage2.drop_inactive",
    ):
        assert setting(small, path) == setting(whole, path), path
    for path in ("vae.decoder", "vae.scales", "vae.input_skip", "stage2.vae_times", "stage2.ema_prior"):
        assert setting(small, path) == setting(whole, path), path
