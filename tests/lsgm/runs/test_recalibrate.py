"""A recalibrated model expects what its own prior draws, and is the same model in all else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from lsgm import cli
from lsgm.config import DensityConfig, SamplerConfig
from lsgm.data import test_levels
from lsgm.kinds import recipe_from
from lsgm.nets.layers import BatchNorm
from lsgm.runs.checkpoint import checkpoints, find_checkpoint, read_state, read_weights
from lsgm.runs.derived import decoder_of, re_estimate, seeds_of
from lsgm.runs.load import load_model, measurable, open_checkpoint
from lsgm.train.loop import train_recipe

NVAE = {
    **tiny.TABLES,
    "vae": {
        "kind": "nvae",
        "width": 4,
        "multipliers": [1, 1],
        "groups": 2,
        "latents": 2,
        "pre_cells": 1,
        "post_cells": 1,
        "encoder_cells": 1,
        "decoder_cells": 1,
        "flows": 1,
    },
}
SAMPLER = SamplerConfig(steps=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny hierarchical LSGM, both stages trained for a few steps."""
    directory = tmp_path_factory.mktemp("runs") / "bars"
    assert train_recipe(recipe_from(NVAE, "the tiny NVAE"), directory, images=tiny.bars()).finished
    return directory


@pytest.fixture(scope="module")
def recalibrated(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "again"
    words = ["recalibrate", run, out, "--batches", 3, "--batch-size", 4, "--seed", 7, "--sampler.steps", 2]
    assert cli.main([str(word) for word in [*words, "--device", "cpu", "--json"]]) == 0
    return out


class Doubling(nn.Module):
    """A model whose decoder normalises twice: noise of each seed, [B, 2, 4, 4], BN, 3 x + 1, BN."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = BatchNorm(2).double(), BatchNorm(2).double()

    def noise(self, seeds: list[int]) -> Tensor:
        draws = [torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(s % 2**62)) for s in seeds]
        return 2.0 * torch.stack(draws).double() + 5.0

    def sample(self, seeds: Any, sampler: Any) -> Any:
        return self.second(3.0 * self.first(self.noise(seeds)) + 1.0)


def test_the_statistics_are_the_means_over_the_drawn_batches() -> None:
    model = Doubling().eval()
    model.first.running_mean.fill_(100.0)
    batches = [seeds_of(0, batch, 8) for batch in range(5)]
    re_estimate(model, model, iter(batches), SAMPLER)  # type: ignore[arg-type]
    drawn = [model.noise(seeds) for seeds in batches]
    means = torch.stack([x.mean(dim=(0, 2, 3)) for x in drawn])
    variances = torch.stack([x.transpose(0, 1).flatten(1).var(dim=1) for x in drawn])
    # Five float64 roundings.
    torch.testing.assert_close(model.first.running_mean, means.mean(dim=0), rtol=1e-13, atol=0)
    torch.testing.assert_close(model.first.running_var, variances.mean(dim=0), rtol=1e-13, atol=0)
    # What the second one sees is normalised by the batch itself: mean 1, variance 9 n / (n - 1), n = 128.
    torch.testing.assert_close(model.second.running_mean, torch.ones(2).double(), rtol=1e-12, atol=0)
    nine = torch.full((2,), 9.0 * 128 / 127).double()
    # The 1e-5 added to a variance of 4.
    torch.testing.assert_close(model.second.running_var, nine, rtol=1e-5, atol=0)
    assert not model.first.training
    assert model.first.momentum == 0.05


def test_only_the_decoders_statistics_are_new(run: Path, recalibrated: Path) -> None:
    before = read_weights(find_checkpoint(run), "ema")
    after = read_weights(find_checkpoint(recalibrated), "ema")
    assert after.keys() == before.keys()
    moved = {key for key, value in after.items() if not torch.equal(value, before[key])}
    wanted = {
        key
        for key in after
        if key.startswith("vae.decoder.") and key.endswith((".running_mean", ".running_var"))
    }
    counts = {key for key in moved if key.endswith("num_batches_tracked")}
    assert moved - counts == wanted
    assert all(key.startswith("vae.decoder.") and int(after[key]) == 3 for key in counts)
    raw = read_weights(find_checkpoint(recalibrated), "raw")
    assert all(torch.equal(raw[key], value) for key, value in after.items())


def test_every_norm_of_a_real_decoder_holds_the_mean_of_what_passed_it(run: Path) -> None:
    opened = open_checkpoint(run, "ema")
    decoder, passed = decoder_of(opened), dict[BatchNorm, list[Tensor]]()
    for part in decoder.modules():
        if isinstance(part, BatchNorm):
            passed[part] = []
            part.register_forward_pre_hook(lambda norm, x: passed[norm].append(x[0].mean(dim=(0, 2, 3))))
    model = measurable(opened, "cpu", "ema")
    re_estimate(model, decoder, [seeds_of(0, 0, 4), seeds_of(0, 1, 4)], SAMPLER)
    assert passed
    for norm, means in passed.items():
        assert len(means) == 2
        # Float32 means of a few hundred numbers near 1, taken in another order.
        torch.testing.assert_close(norm.running_mean, (means[0] + means[1]) / 2, rtol=1e-5, atol=1e-6)


def test_it_says_where_it_comes_from(run: Path, recalibrated: Path) -> None:
    source, state = find_checkpoint(run), read_state(find_checkpoint(recalibrated))
    said = state["meta"]["recalibrated"]
    assert said["checkpoint"] == str(source.resolve())
    assert said["sha256"] == read_state(source)["files"]["ema.safetensors"]["sha256"]
    assert (said["batches"], said["batch_size"], said["seed"], said["sampler"]["steps"]) == (3, 4, 7, 2)
    assert state["step"] == read_state(source)["step"]


def test_the_same_seed_gives_the_same_model(run: Path, recalibrated: Path, tmp_path: Path) -> None:
    words = ["--batches", "3", "--batch-size", "4", "--sampler.steps", "2", "--device", "cpu"]
    for seed, same in ((7, True), (8, False)):
        out = str(tmp_path / str(seed))
        assert cli.main(["recalibrate", str(run), out, *words, "--seed", str(seed)]) == 0
        assert (load_model(out).sha256 == load_model(recalibrated).sha256) == same


def test_other_commands_take_it(recalibrated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", recalibrated, "--n", 2, "--sampler.steps", 2, "--device", "cpu", "--json"]
    capsys.readouterr()
    assert cli.main([str(word) for word in words]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["model"] == "again"


def test_a_vae_without_prior_is_recalibrated_on_normal_latents(run: Path, tmp_path: Path) -> None:
    stage1 = checkpoints(run / "checkpoints")[0]
    assert read_state(stage1)["stage"] == "stage1"
    words = ["recalibrate", stage1, tmp_path / "out", "--batches", 2, "--batch-size", 4, "--device", "cpu"]
    assert cli.main([str(word) for word in words]) == 0
    assert not load_model(tmp_path / "out").has_prior


def test_a_decoder_without_batch_norm_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_recipe(tiny.recipe(), tmp_path / "run", images=tiny.bars())
    assert cli.main(["recalibrate", str(tmp_path / "run"), str(tmp_path / "out")]) != 0
    assert "has no batch normalisation in a decoder and nothing to recalibrate" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_in_the_way_is_left_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recalibrate", str(run), str(run)]) != 0
    assert "exists already" in capsys.readouterr().err


def test_a_model_opened_for_measuring_is_folded_and_measures_the_same(run: Path) -> None:
    folded, plain = load_model(run), load_model(run, folded=False)
    assert folded.parameters == plain.parameters
    parts = {type(m).__name__ for m in folded.coder.vae.modules()}  # type: ignore[attr-defined]
    assert "WeightNormConv2d" not in parts
    levels = test_levels(tiny.bars(), "test", 0)[:16]
    a, b = (m.density(levels, range(16), DensityConfig()).nats for m in (folded, plain))
    # Float32 roundings through a score network and a VAE of some twenty layers.
    torch.testing.assert_close(a, b, rtol=1e-4, atol=0)


def moments_of(networks: Any, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the cosine coefficients of many draws of z_0."""
    law = networks.prior.reference.latents()
    torch.manual_seed(0)
    draws = []
    for _ in range(60):
        z = networks.vae.posterior(levels, lambda *shape: torch.randn(len(levels), *shape)).z
        draws.append(law.rotate(networks.vae.groups.stack(z).double()))
    every = torch.cat(draws)
    return every.mean(dim=0), every.var(dim=0)


def with_moments(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from lsgm.train import prepare

    monkeypatch.setattr(prepare, "load", lambda *_, **__: tiny.bars())
    words = ["recalibrate", source, out, "--moments", "--device", "cpu", "--images", 1000]
    assert cli.main([str(word) for word in words]) == 0
    return open_checkpoint(out, "ema")


@pytest.mark.parametrize("exported", [False, True])
def test_the_moments_of_a_trained_models_latents_are_taken_anew(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported: bool
) -> None:
    source = run
    if exported:
        assert cli.main(["export", str(run), str(tmp_path / "model"), "--name", "bars"]) == 0
        source = tmp_path / "model"
    opened = with_moments(source, tmp_path / "out", monkeypatch)
    images = test_levels(tiny.bars(), "train", 0)
    with torch.no_grad():
        mean, var = moments_of(opened.networks, images)
    reference: Any = opened.networks.get_submodule("prior.reference")
    # One draw of each of the training images: a relative error of sqrt(2 / N) of a variance.
    spread = 6 * (2 / len(images)) ** 0.5
    torch.testing.assert_close(reference.var.double(), var, rtol=spread, atol=0)
    assert bool(((reference.mean.double() - mean).abs() < spread * var.sqrt()).all())
    assert opened.state["meta"]["moments"]["images"] == len(images)
    assert ("exported" in opened.state) == exported
    before, after = open_checkpoint(source, "ema"), opened
    for name, value in before.networks.state_dict().items():
        if ".reference." not in name:
            assert torch.equal(after.networks.state_dict()[name], value), name


def test_a_vae_has_no_moments_to_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vae = {"kind": "vae", "seed": 3, "vae": tiny.TABLES["vae"], "stage1": {"steps": 2, "batch_size": 8}}
    train_recipe(recipe_from(vae, "a VAE"), tmp_path / "vae", images=tiny.bars())
    words = ["recalibrate", str(tmp_path / "vae"), str(tmp_path / "out"), "--moments", "--device", "cpu"]
    assert cli.main(words) != 0
    assert not (tmp_path / "out").exists()
