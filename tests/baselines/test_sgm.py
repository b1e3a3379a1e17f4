"""Data-space score models and plain VAEs: built from the LSGM's own parts, so that a comparison is one."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
import tiny
import torch

from lsgm.config import DensityConfig, SamplerConfig
from lsgm.data import ImageSet, sha256_of, test_levels
from lsgm.data.registry import DATASETS
from lsgm.errors import ConfigError
from lsgm.generative import Pixels
from lsgm.kinds import recipe_from
from lsgm.model.diffusion import NormalPriorModel, ScoreBasedModel, measure_vae
from lsgm.model.lsgm import parameter_counts, sketch
from lsgm.nets.ncsnpp import NCSNpp
from lsgm.objective.bound import diffuse
from lsgm.recipes import find_recipes, load_recipe, read_costs
from lsgm.rng import SeededNoise, StepNoise
from lsgm.runs.load import fresh_networks, load_model
from lsgm.score import ScoreModel
from lsgm.train.loop import train_recipe
from lsgm.train.stages import make_objective
from lsgm_baselines.sgm import SGM, DequantisedPixels, NoisyCells, NoisyPixels, ScoreLoss

PIXELS: dict[str, Any] = {
    "kind": "sgm",
    "seed": 3,
    "prior": tiny.merged(
        tiny.TABLES["prior"],
        {"mixing_init": "none", "objective": {"weighting": "un"}, "network": {"width": 8}},
    ),
    "stage": {"steps": 6, "batch_size": 8, "log_every": 1, "ema": 0.9},
}
PLAIN = {key: tiny.TABLES[key] for key in ("seed", "vae", "stage1")} | {"kind": "vae"}
ROADS = [name for name in find_recipes() if f"{name}-sgm" in find_recipes()]
EQUAL_SECONDS = ("mnist-small", "cifar10-long")
"""Those whose score model of pixels has the LSGM's training seconds instead of its parameters."""


def read(name: str) -> Any:
    return recipe_from(load_recipe(name), name)


@cache
def networks(name: str) -> torch.nn.Module:
    """Return the networks of an installed recipe as shapes alone, made once."""
    recipe = read(name)
    dataset = DATASETS[recipe.data.dataset]
    binary = dataset.pixels == "binary"
    pixels = Pixels(*dataset.image_shape, *(("binary", 1) if binary else ("discrete", recipe.data.bits)))
    return sketch(recipe, pixels)


def prior_of(model: torch.nn.Module) -> ScoreModel:
    prior = model.get_submodule("prior")
    assert isinstance(prior, ScoreModel)
    return prior


@pytest.mark.parametrize("name", ROADS)
def test_the_score_network_is_the_lsgms_with_the_networks_share_at_one(name: str) -> None:
    latent, pixel = prior_of(networks(name)), prior_of(networks(f"{name}-sgm"))
    assert type(pixel.network) is type(latent.network) is NCSNpp
    # A velocity is added to the Normal score, with nothing to mix.
    assert (latent.logit is None) == (read(name).prior.parameterisation == "velocity")
    assert pixel.logit is None
    assert type(pixel.sde) is type(latent.sde)


@pytest.mark.parametrize("name", ROADS)
def test_the_vae_is_the_lsgms(name: str) -> None:
    ours, plain = read(name), read(f"{name}-vae")
    assert plain.vae == ours.vae
    one, two = (networks(n).get_submodule("vae").state_dict() for n in (name, f"{name}-vae"))
    assert {k: v.shape for k, v in one.items()} == {k: v.shape for k, v in two.items()}


@pytest.mark.parametrize("name", [name for name in ROADS if name not in EQUAL_SECONDS])
def test_the_score_model_of_pixels_has_about_the_lsgms_parameters(name: str) -> None:
    """Of all of it, VAE and prior together: within a quarter."""
    ours, theirs = (sum(parameter_counts(networks(n)).values()) for n in (name, f"{name}-sgm"))
    assert theirs == pytest.approx(ours, rel=0.25)


def test_the_score_model_of_pixels_has_the_lsgms_operations_at_equal_seconds() -> None:
    """Over the whole training, within a tenth: neither has the kinder arithmetic."""
    ours, theirs = (
        read_costs(find_recipes()[n].parent)[n].flops for n in ("cifar10-long", "cifar10-long-sgm")
    )
    assert theirs == pytest.approx(ours, rel=0.1)


@pytest.mark.parametrize("name", ROADS)
def test_rounding_costs_the_score_model_of_pixels_next_to_nothing(name: str) -> None:
    """A smallest time that blurs neighbouring levels would be charged to the model, level by level."""
    model = networks(f"{name}-sgm")
    assert isinstance(model, SGM)
    coder = NoisyPixels(model.prior.sde, model.pixels, read(f"{name}-sgm").prior.objective.time_eps)
    levels = torch.randint(0, model.pixels.levels, (8, *model.pixels.shape), dtype=torch.uint8)
    nats = coder.encode(levels, SeededNoise(range(8)).normal).reconstruction
    assert float(nats.mean()) / model.pixels.dims < 1e-2 * math.log(2)


def test_padding_is_refused_in_data_space() -> None:
    with pytest.raises(ConfigError, match=r"data\.pad must be 0 for a data-space score model"):
        recipe_from({**PIXELS, "data": {"pad": 2}}, "sgm")


@pytest.fixture(scope="module")
def sgm(tmp_path_factory: pytest.TempPathFactory) -> ScoreBasedModel:
    directory = tmp_path_factory.mktemp("runs") / "pixels"
    assert train_recipe(recipe_from(PIXELS, "sgm"), directory, images=tiny.bars()).finished
    model = load_model(directory)
    assert isinstance(model, ScoreBasedModel)
    return model


def test_a_trained_score_model_of_pixels_samples_and_scores(sgm: ScoreBasedModel) -> None:
    assert (sgm.name, sgm.pixels.shape, sgm.coder.latent_shape) == ("pixels", (1, 8, 8), (1, 8, 8))
    assert sgm.parameters.keys() == {"prior"}
    drawn = sgm.sample(range(4), SamplerConfig(steps=3))
    assert drawn.images.shape == (4, 1, 8, 8)
    assert drawn.nfe.tolist() == [6] * 4
    levels = test_levels(tiny.bars(), "test", 0)[:4]
    for config in (DensityConfig(draws=3), DensityConfig("ode", rtol=1e-2, atol=1e-2)):
        density = sgm.density(levels, range(4), config)
        assert bool(density.nats.isfinite().all())
        assert bool((density.nfe > 0).all())


@pytest.mark.parametrize("dequantise", ["noise", "uniform"])
def test_the_steps_of_its_flow_follow_the_log_density_unless_asked_otherwise(
    sgm: ScoreBasedModel, dequantise: Literal["noise", "uniform"]
) -> None:
    levels = test_levels(tiny.bars(), "test", 0)[:4]

    def evaluations(**asked: Any) -> list[int]:
        config = DensityConfig("ode", rtol=1e-4, atol=1e-4, dequantise=dequantise, **asked)
        nfe: list[int] = sgm.density(levels, range(4), config).nfe.tolist()
        return nfe

    assert sgm.step_control(DensityConfig("ode", dequantise=dequantise)) == "density"
    assert evaluations() == evaluations(step_control="density") != evaluations(step_control="state")


def test_its_flow_ends_where_its_training_did(sgm: ScoreBasedModel) -> None:
    """Below the smallest time it was trained at the network is asked nothing, unless someone insists."""
    asked: list[float] = []

    class Listening(ScoreModel):
        def drift(self, z_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            asked.append(float(t.min()))
            return sgm.prior.drift(z_t, t)

    prior = Listening(sgm.prior.sde, sgm.prior.network)
    replace(sgm, prior=prior).sample([0], SamplerConfig(steps=2))
    assert min(asked) == 1e-2
    replace(sgm, prior=prior).sample([0], SamplerConfig(steps=2, time_end=1e-3))
    assert min(asked) == 1e-3


def test_it_is_scored_by_noise_or_dequantised_as_asked(sgm: ScoreBasedModel) -> None:
    assert type(sgm.coder) is NoisyPixels
    assert isinstance(sgm.dequantised, DequantisedPixels)
    assert sgm.dequantised.ode_start == sgm.coder.ode_start == 1e-2
    assert "dequantised" not in sgm.remark
    levels = test_levels(tiny.bars(), "test", 0)[:4]
    config = DensityConfig("ode", solver="heun", steps=20)
    noisy = sgm.density(levels, range(4), config)
    uniform = sgm.density(levels, range(4), replace(config, dequantise="uniform", samples=2))
    assert bool(noisy.nats.isfinite().all())
    assert noisy.error is None
    assert uniform.error is not None
    cells = sgm.pixels.dims * math.log(2 / 2)
    torch.testing.assert_close(uniform.terms["cross_entropy"] + cells, uniform.nats)


# Trained on dequantised levels


CELLS = {**PIXELS, "dequantise": "uniform", "data": {"bits": 5}}


def greys() -> ImageSet:
    """Bars in 5 bits of grey."""
    splits = tiny.bars().splits
    return ImageSet("greys", "1", sha256_of(*splits.values()), "uint8", splits, bits=5)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> ScoreBasedModel:
    directory = tmp_path_factory.mktemp("runs") / "cells"
    assert train_recipe(recipe_from(CELLS, "sgm"), directory, images=greys()).finished
    model = load_model(directory)
    assert isinstance(model, ScoreBasedModel)
    return model


def test_its_samples_are_rounded_to_levels(cells: ScoreBasedModel) -> None:
    drawn = cells.sample(range(16), SamplerConfig(steps=3)).images
    possible = (torch.arange(32) * 255 / 31).round().to(torch.uint8)
    assert bool(torch.isin(drawn, possible).all())
    assert len(drawn.unique()) > 2


def test_every_bound_of_it_is_by_points_of_cells(cells: ScoreBasedModel) -> None:
    assert isinstance(cells.coder, NoisyCells)
    assert cells.remark.endswith("trained on dequantised levels")
    levels = test_levels(greys(), "test", 0)[:4]
    coarse = DensityConfig("ode", solver="heun", steps=20, samples=4)
    methods = (DensityConfig(draws=4, samples=4), coarse, replace(coarse, dequantise="uniform"))
    nelbo, noisy, uniform = (cells.density(levels, range(4), config).nats for config in methods)
    # After six steps every one is far from 5 bits, but neither bound by flow can be far from the other.
    assert bool(nelbo.isfinite().all())
    torch.testing.assert_close(noisy, uniform, rtol=0.15, atol=0)


def loss_of(dequantise: Any) -> ScoreLoss:
    torch.manual_seed(0)
    model = SGM(recipe_from(PIXELS, "sgm").prior, Pixels(1, 8, 8, "discrete", 5))
    objective = make_objective(recipe_from(PIXELS, "sgm").prior.objective, model.prior)
    return ScoreLoss(model.prior, model.pixels, objective, dequantise=dequantise)


def test_a_step_on_cells_has_gradients_for_every_weight() -> None:
    loss = loss_of("uniform")
    levels = test_levels(greys(), "test", 0)[:8]
    losses = loss(levels, StepNoise(1, 0, global_batch=8), 0.0)
    losses.total.backward()
    for parameter in loss.parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.isfinite().all())
    assert losses.terms.keys() == {"score_loss", "nelbo"}


def test_the_network_sees_another_point_of_the_cell_at_every_step() -> None:
    """Levels' own points are given to it with the noise that they were given before there was a choice."""
    levels = test_levels(greys(), "test", 0)[:8]
    seen: list[torch.Tensor] = []

    def listen(module: Any, arguments: tuple[Any, ...]) -> None:
        seen.append(arguments[0])

    for dequantise in ("none", "none", "uniform", "uniform"):
        loss = loss_of(dequantise)
        loss.prior.network.register_forward_pre_hook(listen)
        loss(levels, StepNoise(1, len(seen) % 2, global_batch=8), 0.0)
    noise = StepNoise(1, 0, global_batch=8)
    eps, rho = noise.normal(1, 8, 8), noise.stratified()
    t = loss.objective.draw(rho).t
    expected = diffuse(loss.objective.sde, levels * (2 / 31) - 1, t, eps).z_t
    torch.testing.assert_close(seen[0], expected)
    assert not torch.equal(seen[2], seen[3])


@pytest.mark.parametrize("nonsense", ["unifrom", "variational", True])
def test_another_dequantisation_is_refused(nonsense: Any) -> None:
    with pytest.raises(ConfigError, match="dequantise"):
        recipe_from({**PIXELS, "dequantise": nonsense}, "sgm")


# Plain VAEs


@pytest.mark.parametrize("pad", [0, 2])
def test_a_coin_for_every_pixel_costs_one_bit_per_dimension_of_the_unpadded_image(pad: int) -> None:
    recipe = recipe_from({**PLAIN, "data": {"pad": pad}}, "vae")
    networks = fresh_networks(recipe, Pixels(1, 8, 8, "binary", 1))
    for parameter in networks.get_submodule("vae.decoder").parameters():
        torch.nn.init.zeros_(parameter)
    model = measure_vae(networks, {"name": "coin", "sha256": ""})
    levels = test_levels(tiny.bars(), "test", 0)[:4]
    nats = model.density(levels, range(4), DensityConfig()).terms["reconstruction"]
    bits = nats / (model.pixels.dims * math.log(2))
    torch.testing.assert_close(bits, torch.ones(4).double(), rtol=1e-6, atol=0)


def test_a_plain_vae_trains_in_one_stage(tmp_path: Path) -> None:
    outcome = train_recipe(recipe_from(PLAIN, "vae"), tmp_path / "plain", images=tiny.bars())
    assert outcome.finished
    assert outcome.seconds_by_stage.keys() == {"stage1"}
    model = load_model(tmp_path / "plain")
    assert isinstance(model, NormalPriorModel)
    assert model.sample(range(2), SamplerConfig()).images.shape == (2, 1, 8, 8)
