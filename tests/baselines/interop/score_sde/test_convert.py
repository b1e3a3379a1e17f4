"""Models of score_sde_pytorch, tensor for tensor: every name is met, and what they compute is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from oracles.score_sde import SlowScoreSDE, contents, save

from lsgm.errors import CheckpointError
from lsgm.interop.taken import Native
from lsgm.score import ScoreModel
from lsgm_baselines.score_sde.convert import convert, empty_networks, network_table, read_checkpoint
from lsgm_baselines.score_sde.settings import ScoreSDEConfig, find_config, pixels_of, recipe_of
from lsgm_baselines.sgm import SGM

SMALL: dict[str, Any] = {
    "image_size": 8,
    "nf": 8,
    "ch_mult": (1, 2),
    "num_res_blocks": 1,
    "attn_resolutions": (4,),
}
EXPLODING: dict[str, Any] = {"sde": "vesde", "scale_by_sigma": True, "embedding_type": "fourier"}
NCSNPP: dict[str, Any] = {"fir": True, "progressive_input": "residual"}
SKIPS: dict[str, Any] = {"progressive": "output_skip", "progressive_input": "input_skip"}

MODELS = {
    "ddpmpp-vp": SMALL,
    "ddpmpp-subvp": {**SMALL, "sde": "subvpsde"},
    "ncsnpp-vp": {**SMALL, **NCSNPP},
    "ncsnpp-ve": {**SMALL, **EXPLODING, **NCSNPP, "centered": False},
    "ncsnpp-ve-centred": {**SMALL, **EXPLODING, **NCSNPP},
    "ve-skips-cat": {**SMALL, **EXPLODING, **SKIPS, "centered": False, "progressive_combine": "cat"},
    "vp-residuals": {**SMALL, "progressive": "residual", "progressive_input": "residual"},
}


def native(settings: dict[str, Any], folder: Path, **changes: Any) -> Native[Any]:
    slow = SlowScoreSDE(settings)
    file = save({**contents(slow), **changes}, folder / "checkpoint.pth")
    return convert(read_checkpoint(file), ScoreSDEConfig(**settings))


def model_of(native: Native[Any]) -> ScoreModel:
    networks = SGM(native.recipe.prior, native.pixels)
    networks.load_state_dict(native.ema)
    return networks.eval().double().prior


@pytest.mark.parametrize("name", MODELS)
def test_the_score_is_that_of_the_checkpoint(name: str, tmp_path: Path) -> None:
    """On pixels scaled to [-1, 1], z = 2 x - 1, where grad log p(z) = grad log p(x) / 2."""
    settings = MODELS[name]
    model, slow = model_of(native(settings, tmp_path)), SlowScoreSDE(settings)
    t = torch.tensor([1e-5, 0.3, 1.0], dtype=torch.float64)
    z = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mean, sigma = slow.kernel(t)
    if settings.get("centered", True):
        expected = slow.score(z, t)
    else:
        expected, sigma = slow.score((z + 1) / 2, t) / 2, 2 * sigma
    torch.testing.assert_close(model.sde.mean(t), mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(model.sde.sigma(t), sigma, rtol=1e-9, atol=0)
    with torch.no_grad():
        # Everything is float64, but the angles: their constants are rounded in different places.
        torch.testing.assert_close(model.score(z, t), expected, rtol=1e-9, atol=1e-9)


def test_the_last_weights_are_kept_beside_the_averages(tmp_path: Path) -> None:
    raw, ema = native(MODELS["ncsnpp-ve"], tmp_path)[2:]
    assert raw.keys() == ema.keys()
    frequencies = "prior.network.network.embed.frequencies"
    for name in raw:
        same = name in (frequencies, "prior.sigma2_max")
        assert torch.equal(raw[name], ema[name] if same else ema[name] / 2)


@pytest.mark.parametrize(
    ("name", "millions"), [("vp/cifar10_ddpmpp_continuous", 62), ("ve/cifar10_ncsnpp_deep_continuous", 107)]
)
def test_published_networks_have_their_size_and_every_tensor_a_name(name: str, millions: int) -> None:
    recipe, pixels = recipe_of(find_config(name)), pixels_of(find_config(name))
    own = empty_networks(recipe, pixels)
    size = sum(parameter.numel() for parameter in own.parameters()) / 1e6
    assert size == pytest.approx(millions, abs=1)
    network = own.prior.network if recipe.prior.preconditioning == "none" else own.prior.network.network
    assert len(network_table(network)) == len(own.prior.network.state_dict())


def test_training_is_told_as_far_as_it_can_be() -> None:
    recipe = recipe_of(find_config("ve/cifar10_ncsnpp_deep_continuous"))
    assert (recipe.stage.steps, recipe.stage.batch_size, recipe.stage.ema) == (950_000, 128, 0.999)
    assert recipe.stage.warmup * recipe.stage.steps == pytest.approx(5000)
    assert (recipe.prior.objective.weighting, recipe.prior.objective.time_eps) == ("un", 1e-5)
    assert (recipe.data.dataset, recipe.data.flip) == ("cifar10", True)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda w: w.pop("module.all_modules.2.bias"), "lacks 'all_modules.2.bias'"),
        (lambda w: w.update({"module.all_modules.99.bias": torch.zeros(3)}), "has 'all_modules.99.bias'"),
    ],
)
def test_missing_and_surplus_tensors_are_named(change: Any, sentence: str, tmp_path: Path) -> None:
    content = contents(SlowScoreSDE(SMALL))
    change(content["model"])
    content["ema"]["shadow_params"] = list(content["model"].values())[1:]
    checkpoint = read_checkpoint(save(content, tmp_path / "file.pth"))
    with pytest.raises(CheckpointError, match=sentence):
        convert(checkpoint, ScoreSDEConfig(**SMALL))


def test_tensors_of_another_width_are_named(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(save(contents(SlowScoreSDE(SMALL)), tmp_path / "file.pth"))
    sentence = r"'all_modules.0.weight' \[32, 8\] do not make up \[64, 16\]"
    with pytest.raises(CheckpointError, match=sentence):
        convert(checkpoint, ScoreSDEConfig(**{**SMALL, "nf": 16}))


def test_a_model_of_discrete_times_is_refused(tmp_path: Path) -> None:
    """With VE it tells itself apart: it has no frequencies."""
    file = save(contents(SlowScoreSDE(SMALL)), tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="trained at discrete times have none"):
        convert(read_checkpoint(file), ScoreSDEConfig(**{**SMALL, **EXPLODING, "centered": False}))


def test_other_noise_levels_are_refused(tmp_path: Path) -> None:
    settings = MODELS["ncsnpp-ve"]
    file = save(contents(SlowScoreSDE({**settings, "sigma_max": 90.0})), tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=r"from 0.01 to 90, and its configuration says 0.01 to 50"):
        convert(read_checkpoint(file), ScoreSDEConfig(**settings))
