"""``lsgm import``: a file of the authors' becomes a run that every other command takes, or nothing at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from golden import FOLDERS, needs_golden
from official import averaged, raw, save, vae_alone

from lsgm import cli
from lsgm.config import DensityConfig, SamplerConfig
from lsgm.data import ImageSet
from lsgm.kinds import recipe_from
from lsgm.recipes import load_recipe
from lsgm.runs.checkpoint import find_checkpoint, read_state, read_weights
from lsgm.runs.load import load_model
from lsgm.structure import to_dict
from lsgm.train.loop import train_recipe


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSGM_PROGRESS", "0")


def imported(content: dict[str, Any], folder: Path, *options: str, out: str = "official") -> Path:
    """Import a file of this content and return the run."""
    file = save(content, folder / "checkpoint.pt")
    assert cli.main(["import", "nvlabs", str(file), str(folder / out), *options]) == 0
    return folder / out


def refused(words: list[str], out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run an import that must fail in one line and leave nothing; return the line."""
    before = sorted(out.parent.iterdir())
    assert cli.main(["import", *words]) == 2
    said = capsys.readouterr()
    assert sorted(out.parent.iterdir()) == before
    assert said.out == ""
    (line,) = said.err.splitlines()
    return line


@needs_golden
@pytest.mark.parametrize("name", FOLDERS)
def test_every_published_family_is_imported_and_sampled(name: str, tmp_path: Path) -> None:
    run = imported(averaged(name), tmp_path)
    model = load_model(run)
    assert model.name == "official"
    samples = model.sample([0, 1], SamplerConfig("heun", steps=2))
    assert samples.images.shape == (2, *model.pixels.shape)
    assert samples.images.dtype == torch.uint8
    assert sum(model.parameters.values()) == sum(
        tensor.numel() for tensor in averaged(name)["dae_state_dict"].values()
    ) + sum(
        tensor.numel()
        for key, tensor in averaged(name)["vae_state_dict"].items()
        if not key.endswith(("weight_normalized", "running_mean", "running_var", "num_batches_tracked"))
    )


@needs_golden
def test_the_bound_of_an_imported_model_is_finite(tmp_path: Path) -> None:
    levels = torch.randint(0, 2, (2, 1, 28, 28), dtype=torch.uint8)
    bound = load_model(imported(averaged("mnist"), tmp_path)).density(levels, [0, 1], DensityConfig())
    assert bool(bound.nats.isfinite().all())


@needs_golden
def test_what_was_found_is_said_and_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = averaged("mnist")
    content["dae_state_dict"]["mixing_logit"] = content["dae_state_dict"]["mixing_logit"].clone()
    content["dae_state_dict"]["mixing_logit"][0, 2] = -15.0
    run = imported({**content, "epoch": 12, "global_step": 345}, tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        "the prior's averaged weights alone, which stand for the last ones too; epoch 12, step 345",
        "parameters: vae 52,490, prior 78,176",
        "inactive: 1 of 8 channels of z_0, masked again",
        f"written to {run}; `lsgm sample {run}` draws from it",
    ]
    state = read_state(find_checkpoint(run))
    assert (state["step"], state["stage"], state["stage_done"]) == (345, "stage2", True)
    source = state["meta"]["imported"]
    assert source["file"] == "checkpoint.pt"
    assert source["sha256"] == hashlib.sha256((tmp_path / "checkpoint.pt").read_bytes()).hexdigest()
    assert (source["epoch"], source["global_step"]) == (12, 345)
    assert source["holds"] == "the prior's averaged weights alone, which stand for the last ones too"
    assert source["args"]["num_channels_dae"] == 16
    assert source["args_ignored"]["root"] == "it names a place on the authors' machines"
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints",
        "config.toml",
        "manifest.json",
        "samples",
    ]


@needs_golden
def test_the_kinds_of_weights_lie_in_their_files(tmp_path: Path) -> None:
    run = find_checkpoint(imported(raw("omniglot"), tmp_path))
    ema, last = read_weights(run, "ema"), read_weights(run, "raw")
    assert torch.equal(ema["prior.logit"], 2 * last["prior.logit"])
    assert torch.equal(ema["vae.decoder.start"], last["vae.decoder.start"])


@needs_golden
def test_a_vae_of_stage_1_has_its_normal_prior(tmp_path: Path) -> None:
    run = imported(vae_alone("omniglot"), tmp_path)
    model = load_model(run)
    assert not model.has_prior
    assert list(model.parameters) == ["vae"]
    assert model.sample([3], SamplerConfig()).images.shape == (1, 1, 28, 28)


def digits() -> ImageSet:
    """Binary pictures of 28 x 28, drawn from the bars of the tiny recipes."""
    small = tiny.bars(40)
    grown = {
        name: torch.nn.functional.pad(images, [10] * 4).contiguous() for name, images in small.splits.items()
    }
    return ImageSet("bars", "1", "0" * 64, "binary", grown)


@needs_golden
def test_training_goes_on_from_an_imported_model(tmp_path: Path) -> None:
    run = imported(averaged("mnist"), tmp_path)
    table = tiny.merged(
        load_recipe(str(run / "config.toml")),
        {"stage1": {"steps": 0}, "stage2": {"steps": 2, "batch_size": 4, "drop_inactive": False}},
    )
    recipe = recipe_from(table, "config.toml")
    outcome = train_recipe(recipe, tmp_path / "more", images=digits(), init_from=run)
    assert outcome.finished
    before, after = (read_weights(find_checkpoint(path), "raw") for path in (run, tmp_path / "more"))
    assert before.keys() <= after.keys()
    # Warm-up begins at 0: two steps at a share of 1e-4 and 3e-4 do not lead far.
    far = max(float((before[key] - after[key]).abs().max()) for key in before if key.endswith("conv1.weight"))
    assert 0 < far < 1e-3


@needs_golden
def test_reference_compat_is_part_of_the_recipe(tmp_path: Path) -> None:
    run = imported(averaged("mnist"), tmp_path, "--reference-compat")
    assert load_recipe(str(run / "config.toml"))["prior"]["objective"]["reference_compat"] is True
    recipe = recipe_from(read_state(find_checkpoint(run))["meta"]["recipe"], "it")
    assert to_dict(recipe) == to_dict(recipe_from(load_recipe(str(run / "config.toml")), "it"))


class Payload:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"echo owned > {self.victim}",)


@needs_golden
def test_bad_files_leave_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def complaint(content: dict[str, Any], size: int | None = None) -> str:
        file = save(content, tmp_path / "checkpoint.pt")
        file.write_bytes(file.read_bytes()[:size])
        return refused(["nvlabs", str(file), str(tmp_path / "out")], tmp_path / "out", capsys)

    content = averaged("mnist")
    weights = content["vae_state_dict"]
    assert "names the class" in complaint({**content, "more": Payload(tmp_path / "owned")})
    assert "is truncated" in complaint(content, 2000)
    assert "has 'more'" in complaint({**content, "vae_state_dict": {**weights, "more": torch.zeros(1)}})
    assert "tensor 'stem.bias' is [9]" in complaint(
        {**content, "vae_state_dict": {**weights, "stem.bias": torch.zeros(9)}}
    )
    assert "lacks 'stem.bias'" in complaint(
        {**content, "vae_state_dict": {key: weights[key] for key in weights if key != "stem.bias"}}
    )
    assert "argument 'use_adain'" in complaint(averaged("mnist", use_adain=False))
    assert "'dae_arch' is 'unet'" in complaint(averaged("mnist", dae_arch="unet"))


@needs_golden
def test_an_argument_that_changes_nothing_can_be_set_aside(tmp_path: Path) -> None:
    content = averaged("mnist", use_adain=False)
    run = imported(content, tmp_path, "--ignore", "use_adain", "distill")
    assert read_state(find_checkpoint(run))["meta"]["imported"]["args_ignored"]["use_adain"]


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(["nvlabs", "checkpoint.pt", str(tmp_path)], tmp_path, capsys)
    assert f"{tmp_path} exists already; give a directory that does not" in line


def test_a_format_is_named_and_a_slip_of_the_pen_is_guessed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "did you mean 'nvlabs'?" in refused(["nvlab", "f", "o"], tmp_path / "o", capsys)
    assert "there is diffusers, nvlabs" in refused(["keras", "f", "o"], tmp_path / "o", capsys)
    assert cli.main(["import", "--help"]) == 0
    assert "lsgm import nvlabs checkpoint_fid.pt" in capsys.readouterr().out
    for words in (["nvlabs"], ["nvlabs", "f"]):
        assert "is missing" in refused(words, tmp_path / "o", capsys)
