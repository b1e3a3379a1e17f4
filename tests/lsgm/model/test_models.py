"""Trained models as a harness meets them: found in run directories, reproducible, and bounded as they say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import tiny
import torch
from torch import Tensor, nn

from lsgm.config import DensityConfig, SamplerConfig
from lsgm.data import ImageSet, test_levels
from lsgm.errors import CheckpointError, UserError
from lsgm.generative import Density, GenerativeModel, Pixels
from lsgm.model.diffusion import NormalPriorModel, ScoreBasedModel, training_remark
from lsgm.rng import SeededNoise
from lsgm.runs.checkpoint import checkpoints, find_checkpoint, read_state, read_weights
from lsgm.runs.directory import Run
from lsgm.runs.load import fresh_networks, initialise_from, load_model
from lsgm.sampling import draw
from lsgm.score import ScoreModel
from lsgm.train.loop import train_recipe

HEUN = SamplerConfig(steps=3)
BINARY = Pixels(1, 8, 8, "binary", 1)
NORMAL = {"prior": {"mixing_init": -1e3}}
"""A mixing share of exactly 0, sigmoid(-10^4): the score prior is N(0, I) whatever its network says."""


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return tiny.bars()


@pytest.fixture(scope="module")
def run(images: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a tiny LSGM, both stages trained for a few steps."""
    directory = tmp_path_factory.mktemp("runs") / "bars"
    assert train_recipe(tiny.recipe(), directory, images=images).finished
    return directory


@pytest.fixture(scope="module")
def model(run: Path) -> ScoreBasedModel:
    loaded = load_model(run)
    assert isinstance(loaded, ScoreBasedModel)
    return loaded


@pytest.fixture(scope="module")
def levels(images: ImageSet) -> Tensor:
    return test_levels(images, "test", 0)


@pytest.fixture(scope="module")
def both(
    images: ImageSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ScoreBasedModel, NormalPriorModel]:
    """An LSGM with a mixing share of 0 and, of the very same VAE, the model with its Normal prior."""
    directory = tmp_path_factory.mktemp("runs") / "normal"
    train_recipe(tiny.recipe(NORMAL), directory, images=images)
    loaded = load_model(directory)
    assert isinstance(loaded, ScoreBasedModel)
    vae = loaded.coder.vae  # type: ignore[attr-defined]
    return loaded, NormalPriorModel(vae, torch.device("cpu"))


def copied(run: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Return a copy of a run and its newest checkpoint, to damage."""
    directory = tmp_path / "copy"
    shutil.copytree(run, directory)
    return directory, find_checkpoint(directory)


def test_a_run_directory_is_all_that_it_takes(run: Path, model: ScoreBasedModel) -> None:
    assert (model.name, model.pixels, model.has_prior) == ("bars", BINARY, True)
    assert len(model.sha256) == 64
    assert model.parameters.keys() == {"vae", "prior"}
    assert model.coder.latent_shape == (2, 4, 4)
    assert load_model(find_checkpoint(run)).sha256 == model.sha256


def test_a_checkpoint_of_stage_1_is_the_vae_with_its_normal_prior(run: Path, levels: Tensor) -> None:
    first = checkpoints(Run(run).checkpoints)[0]
    assert read_state(first)["stage"] == "stage1"
    vae = load_model(first)
    assert isinstance(vae, NormalPriorModel)
    assert not vae.has_prior
    assert vae.parameters.keys() == {"vae"}
    assert vae.sample(range(3), HEUN).nfe.tolist() == [0, 0, 0]
    assert vae.density(levels[:4], range(4), DensityConfig()).nats.shape == (4,)
    importance_weighted = vae.density(levels[:4], range(4), DensityConfig("iw", samples=5))
    assert importance_weighted.terms.keys() >= {"reconstruction", "importance_gain"}
    with pytest.raises(UserError, match=r"bars has a Normal prior and no probability flow; .* nelbo or iw"):
        vae.density(levels[:4], range(4), DensityConfig(method="ode"))


@pytest.mark.parametrize(
    ("recipe", "kind", "remark"),
    [
        ({"data": {"flip": True}}, "discrete", "trained on mirrored images too"),
        ({"data": {"flip": False}}, "discrete", "trained without mirrored images"),
        ({}, "discrete", "trained without mirrored images"),
        ({"data": {"flip": True}}, "binary", "trained on mirrored images too"),
        ({"data": {"flip": False}}, "binary", ""),
        (None, "discrete", ""),
    ],
)
def test_what_bits_per_dimension_must_say_of_training_is_in_the_checkpoint(
    recipe: dict[str, object] | None, kind: Literal["binary", "discrete"], remark: str
) -> None:
    state = {"meta": {"recipe": recipe}} if recipe is not None else {"name": "bars"}
    assert training_remark(state, replace(BINARY, kind=kind)) == remark


def test_a_loaded_model_says_how_it_was_trained(run: Path, model: ScoreBasedModel, tmp_path: Path) -> None:
    assert model.remark == ""
    directory, checkpoint = copied(run, tmp_path)
    meta = read_state(checkpoint)["meta"]
    rewrite(checkpoint, meta={**meta, "recipe": tiny.merged(meta["recipe"], {"data": {"flip": True}})})
    assert load_model(directory).remark == "trained on mirrored images too"


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_the_weights_are_the_averaged_ones_unless_raw_ones_are_asked_for(run: Path, weights: str) -> None:
    model = load_model(run, weights=weights)  # type: ignore[arg-type]
    assert isinstance(model, ScoreBasedModel)
    stored = read_weights(find_checkpoint(run), weights)  # type: ignore[arg-type]
    other = read_weights(find_checkpoint(run), "raw" if weights == "ema" else "ema")
    for name, value in model.prior.state_dict().items():
        assert torch.equal(value, stored[f"prior.{name}"])
    assert not torch.equal(
        model.prior.state_dict()["network.stem.weight"], other["prior.network.stem.weight"]
    )


def test_initialisation_takes_the_parts_that_a_checkpoint_has(run: Path) -> None:
    first = checkpoints(Run(run).checkpoints)[0]
    fresh, started = fresh_networks(tiny.recipe(), BINARY), fresh_networks(tiny.recipe(), BINARY)
    initialise_from(started, first)
    stored = read_weights(first)
    for name, value in started.state_dict().items():
        assert torch.equal(value, stored.get(name, fresh.state_dict()[name])), name
    assert {name.split(".")[0] for name in stored} == {"vae"}


def test_initialisation_depends_on_the_recipes_seed_alone() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    one = fresh_networks(tiny.recipe(), BINARY).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(1)
    same, other = (fresh_networks(tiny.recipe({"seed": seed}), BINARY).state_dict() for seed in (3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def latents_and_rates(
    model: ScoreBasedModel, seeds: Sequence[int], sampler: SamplerConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the latents of some seeds, their pixels' probabilities, and the uniforms those meet."""
    config = replace(sampler, time_end=model.coder.ode_start)
    z = draw(model.prior, model.coder.latent_shape, SeededNoise(seeds, stream="prior"), config).z
    with torch.no_grad():
        rates = model.coder.decode(z, torch.randn).mean()
    return z, rates, SeededNoise(seeds, stream="pixels").uniform(*model.pixels.shape)


@pytest.mark.parametrize("name", ["heun", "dopri5", "ancestral"])
def test_a_sample_depends_on_its_seed_alone(model: ScoreBasedModel, name: str) -> None:
    """Whatever the batch and the order: T5."""
    seeds, some = range(100, 116), 5
    sampler = SamplerConfig(name, steps=4, rtol=1e-3, atol=1e-3)
    together = model.sample(seeds, sampler)
    alone = torch.cat([model.sample([seed], sampler).images for seed in seeds[:some]])
    backwards = model.sample(seeds[::-1], sampler)
    z, rates, uniform = latents_and_rates(model, seeds, sampler)
    single = torch.cat([latents_and_rates(model, [seed], sampler)[0] for seed in seeds[:some]])
    # Kernels sum in an order that may depend on the batch: float32 rounding, 6e-8 of values of order one,
    # over some ten evaluations of a few layers.
    torch.testing.assert_close(single, z[:some], rtol=1e-5, atol=1e-5)
    # A pixel can then differ only where its uniform all but meets its probability.
    settled = (uniform - rates).abs() > 1e-5
    assert float(settled.float().mean()) > 0.99
    for images in (alone, backwards.images.flip(0)):
        same = settled[: len(images)]
        assert torch.equal(images[same], together.images[: len(images)][same])
    assert bool(((together.images == 0) | (together.images == 255)).all())
    assert torch.equal(backwards.nfe.flip(0), together.nfe)
    assert len({bytes(image.numpy()) for image in together.images}) == len(seeds)


def test_the_steps_of_a_latent_flow_follow_the_state_unless_asked_otherwise(
    model: ScoreBasedModel, levels: Tensor
) -> None:
    def density(**asked: Any) -> Density:
        return model.density(levels[:3], range(3), DensityConfig("ode", rtol=1e-2, atol=1e-2, **asked))

    assert model.step_control(DensityConfig("ode")) == "state"
    assert torch.equal(density().nats, density(step_control="state").nats)
    assert not torch.equal(density().nats, density(step_control="density").nats)


def test_the_cost_of_a_sampler_is_counted_per_sample(model: ScoreBasedModel) -> None:
    assert model.sample(range(3), SamplerConfig("heun", steps=5)).nfe.tolist() == [10, 10, 10]
    adaptive = model.sample(range(3), SamplerConfig("dopri5", rtol=1e-3, atol=1e-3)).nfe
    assert bool(((adaptive - 2) % 6 == 0).all())


@pytest.mark.parametrize(
    "config",
    [
        DensityConfig(draws=2),
        DensityConfig(draws=2, samples=3, at_once=4),
        DensityConfig("ode", rtol=1e-2, atol=1e-2),
        DensityConfig("iw", samples=3, at_once=4, solver="heun", steps=4),
    ],
)
def test_a_density_depends_on_its_image_and_seed_alone(
    model: ScoreBasedModel, levels: Tensor, config: DensityConfig
) -> None:
    seeds = range(7, 10)
    together = model.density(levels[:3], seeds, config)
    alone = [model.density(levels[i : i + 1], [seed], config) for i, seed in enumerate(seeds)]
    backwards = model.density(levels[:3].flip(0), seeds[::-1], config)
    # Rounding of float32 on sums of some 50 nats.
    torch.testing.assert_close(torch.cat([d.nats for d in alone]), together.nats, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(backwards.nats.flip(0), together.nats, rtol=1e-5, atol=1e-4)
    assert torch.equal(torch.cat([d.nfe for d in alone]), together.nfe)
    assert together.nats.dtype == torch.float64
    torch.testing.assert_close(torch.stack(list(together.terms.values())).sum(dim=0), together.nats)


class Silent(nn.Module):
    """Predicts nothing, at no cost: what a network with a mixing share of 0 comes to."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(z_t)


def paired(
    models: tuple[GenerativeModel, GenerativeModel], levels: Tensor, config: DensityConfig
) -> list[Tensor]:
    """Return the cross entropies of both models, both ends of time included, for the same draws of z_0."""
    seeds = range(len(levels))
    score, normal = (
        models[0].density(levels, seeds, config),
        models[1].density(levels, seeds, DensityConfig()),
    )
    for term in ("reconstruction", "negative_entropy"):
        assert torch.equal(score.terms[term], normal.terms[term])
    ends = [score.terms[name] for name in ("terminal", "tail") if name in score.terms]
    return [sum(ends, score.terms["cross_entropy"]), normal.terms["cross_entropy"]]


def test_the_bound_of_a_share_of_zero_is_the_normal_priors(
    both: tuple[ScoreBasedModel, NormalPriorModel], levels: Tensor
) -> None:
    """Theorem 1, its control variate and its tail against -log N(z_0; 0, I), image by image."""
    sde = both[0].prior.sde
    silent = ScoreModel(sde, Silent(), channels=2, mixing_init=-1e4)
    models = (replace(both[0], prior=silent), both[1])
    estimate, exact = paired(models, levels, DensityConfig())
    # -log N is summed in float32 by the VAE: 32 numbers of order one.
    torch.testing.assert_close(estimate, exact.double(), rtol=1e-5, atol=1e-5)
    # The model itself, whose network has a share of 0, is the same: its law of reference adds noise alone.
    plain = DensityConfig(control_variate=False)
    one, other = (model.density(levels[:4], range(4), plain).terms for model in (models[0], both[0]))
    assert torch.equal(one["cross_entropy"], other["cross_entropy"])


def test_without_a_control_variate_it_is_the_normal_priors_in_expectation(
    both: tuple[ScoreBasedModel, NormalPriorModel], levels: Tensor
) -> None:
    estimate, exact = paired(both, levels, DensityConfig(draws=400, control_variate=False))
    difference = estimate - exact
    standard_error = float(difference.std()) / len(difference) ** 0.5
    assert abs(float(difference.mean())) < 4 * standard_error
    # A hundredth of the 45 nats that it is: the test is a sharp one.
    assert standard_error < 0.45


def test_the_flow_of_a_share_of_zero_has_the_normal_density(
    both: tuple[ScoreBasedModel, NormalPriorModel], levels: Tensor
) -> None:
    """Nothing moves, so log p is N(0, I)'s: exact but for the float32 sum of log N in the VAE."""
    by_flow, exact = paired(both, levels, DensityConfig("ode"))
    assert float((by_flow - exact).abs().max()) / (2 * 4 * 4) < 1e-6


def test_samples_of_a_share_of_zero_are_the_normal_priors(
    both: tuple[ScoreBasedModel, NormalPriorModel],
) -> None:
    score, normal = both
    for name in ("heun", "dopri5"):
        ours = score.sample(range(8), SamplerConfig(name, steps=2)).images
        assert torch.equal(ours, normal.sample(range(8), HEUN).images)


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_a_folder_without_checkpoint_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path) == (
        f"{tmp_path} holds no checkpoint; give a run directory or one of its checkpoints"
    )


def test_truncated_weights_are_named_with_what_to_do(run: Path, tmp_path: Path) -> None:
    directory, checkpoint = copied(run, tmp_path)
    file = checkpoint / "ema.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    sentence = refused(directory)
    assert sentence.startswith(f"{file} is truncated: ")
    assert f"delete {checkpoint} to go on from the one before" in sentence


def test_weights_with_more_bytes_than_were_written_are_not_called_truncated(
    run: Path, tmp_path: Path
) -> None:
    directory, checkpoint = copied(run, tmp_path)
    file = checkpoint / "ema.safetensors"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes() + b"more")
    said = f"{file} is not the file that was written: {size + 4} in place of {size} bytes are there"
    assert refused(directory).startswith(said)


def rewrite(checkpoint: Path, **changes: object) -> None:
    file = checkpoint / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_newer_format_asks_for_an_update(run: Path, tmp_path: Path) -> None:
    directory, checkpoint = copied(run, tmp_path)
    rewrite(checkpoint, format=2)
    assert "has format 2 and this version reads up to 1; update lsgm-bench" in refused(directory)


def test_a_checkpoint_that_does_not_say_what_it_is_is_foreign(run: Path, tmp_path: Path) -> None:
    directory, checkpoint = copied(run, tmp_path)
    for meta in ({}, {"recipe": {"kind": "lsgm"}, "pixels": {"depth": 3}}, None):
        rewrite(checkpoint, meta=meta)
        assert refused(directory) == f"{checkpoint} does not say what model it holds; give one of lsgm's own"


def test_a_recipe_from_a_newer_version_asks_for_an_update(run: Path, tmp_path: Path) -> None:
    directory, checkpoint = copied(run, tmp_path)
    meta = read_state(checkpoint)["meta"]
    for recipe, words in (
        (tiny.merged(meta["recipe"], {"vae": {"depth": 3}}), "unknown key 'vae.depth'"),
        ({**meta["recipe"], "kind": "flow"}, "there is no model kind 'flow'"),
    ):
        rewrite(checkpoint, meta={**meta, "recipe": recipe})
        sentence = refused(directory)
        assert words in sentence
        assert sentence.endswith("update lsgm-bench, or use the version that wrote it")


def test_weights_of_another_kind_or_size_are_refused_by_name(run: Path, tmp_path: Path) -> None:
    directory, checkpoint = copied(run, tmp_path)
    meta = read_state(checkpoint)["meta"]
    vae = {key: meta["recipe"][key] for key in ("seed", "data", "vae", "stage1")}
    rewrite(checkpoint, meta={**meta, "recipe": {"kind": "vae", **vae}})
    assert "belongs to another model: it has a part 'prior', and this one has vae" in refused(directory)
    rewrite(checkpoint, meta={**meta, "recipe": tiny.merged(meta["recipe"], {"vae": {"width": 8}})})
    assert "belongs to another model: 'encoder.layers.1.weight' is" in refused(directory)
