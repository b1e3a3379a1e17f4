"""``lsgm train`` on a folder of images: the same command goes on, and what is wrong is said in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from lsgm.runs.checkpoint import find_checkpoint, read_state, read_weights
from lsgm.runs.directory import Run, read_metrics
from lsgm.runs.load import load_model


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own with ``photos`` in it; return that folder."""
    monkeypatch.setenv("LSGM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LSGM_PROGRESS", "0")
    # Other processes must add in the order this one adds in, to be compared bit for bit.
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    monkeypatch.chdir(tmp_path)
    tiny.folder_of_images(tmp_path / "photos")
    return tmp_path


@pytest.fixture
def lsgm(capsys: pytest.CaptureFixture[str]) -> tiny.Command:
    return tiny.train_command(capsys)


def recipe(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    """Write the tiny recipe for the folder's photos, at 5 bits and with mirroring."""
    data = {"data": {"dataset": str(folder / "photos"), "image_size": 8, "bits": 5, "flip": True}}
    return tiny.toml(folder / "small.toml", tiny.merged(data, changes or {}))


def weights(run: Path) -> tuple[bytes, bytes]:
    newest = find_checkpoint(run)
    return (newest / "model.safetensors").read_bytes(), (newest / "ema.safetensors").read_bytes()


def test_a_recipe_trains_and_the_same_command_says_it_is_finished(folder: Path, lsgm: tiny.Command) -> None:
    recipe(folder)
    status, said = lsgm("small.toml")
    run = folder / "runs" / "small"
    assert status == 0
    splits, finished = said.splitlines()
    assert splits.startswith(
        "lsgm: photos: greyscale images 8 high and 8 wide: 36 train (the rest), 2 val (5 % by hash of the "
        "names), 2 test (5 % by hash of the names)"
    )
    assert finished == f"lsgm: finished at step 12; the weights are in {Run(Path('runs/small')).newest()}"
    for name in ("config.toml", "manifest.json", "metrics.jsonl"):
        assert (run / name).is_file()
    stages = [row["stage"] for row in read_metrics(run / "metrics.jsonl")]
    assert stages == ["stage1"] * 6 + ["stage2"] * 6
    model = load_model(run)
    assert (model.name, model.pixels.levels, model.pixels.shape) == ("small", 32, (1, 8, 8))
    before = weights(run)
    assert lsgm("small.toml") == (0, "lsgm: runs/small is finished at step 12: nothing to do\n")
    assert weights(run) == before


def test_every_value_of_a_recipe_is_an_option(folder: Path, lsgm: tiny.Command) -> None:
    tiny.folder_of_images(folder / "others", 30)
    options = (
        "--stage1.steps",
        2,
        "--stage2.steps=0",
        "--seed",
        9,
        "--stage1.vae.lr",
        1e-4,
        "--batch-size",
        6,
    )
    assert lsgm("--recipe", recipe(folder), "--data", "./others", "--out", "mine", *options)[0] == 0
    config = Run(folder / "mine").config()
    assert (config["seed"], config["data"]["dataset"]) == (9, "./others")
    assert (config["stage1"]["steps"], config["stage1"]["vae"]["lr"]) == (2, 1e-4)
    assert {config[stage]["batch_size"] for stage in ("stage1", "prior_stage", "stage2")} == {6}
    assert read_state(find_checkpoint(folder / "mine"))["seconds_by_stage"].keys() == {"stage1"}
    assert not load_model(folder / "mine").has_prior


@pytest.mark.parametrize(
    "words",
    [
        ["--stage1.steps", "1", "small.toml"],
        ["--stage1.steps=1", "small.toml"],
        ["--data.no-flip", "--stage1.steps=1", "small.toml"],
        ["--stage1.steps=1", "--data.flip", "small.toml"],
        ["--stage1.steps=1", "--data.flip", "small.toml", "--recipe", "small.toml"],
    ],
)
def test_a_recipe_may_stand_after_options(folder: Path, lsgm: tiny.Command, words: list[str]) -> None:
    recipe(folder, {"stage2": {"steps": 0}})
    assert lsgm("--out", "mine", *words, "--seed", 2**63 - 1)[0] == 0
    config = Run(folder / "mine").config()
    assert (config["seed"], config["stage1"]["steps"]) == (2**63 - 1, 1)
    assert config["data"]["flip"] == ("--data.no-flip" not in words)


def test_pieces_by_max_seconds_give_the_same_weights_bit_for_bit(folder: Path, lsgm: tiny.Command) -> None:
    short = recipe(folder, {"stage1": {"steps": 3}, "stage2": {"steps": 3}})
    assert lsgm(short, "--out", "whole")[0] == 0
    for piece in range(1, 7):
        status, said = lsgm(short, "--out", "cut", "--max-seconds", 1e-6)
        assert status == 0
        assert ("run the same command again to go on" in said) == (piece < 6)
    assert lsgm(short, "--out", "cut", "--max-seconds", 1e-6)[1].endswith("nothing to do\n")
    assert weights(folder / "cut") == weights(folder / "whole")


def test_two_processes_give_the_loss_curve_of_one(folder: Path, lsgm: tiny.Command) -> None:
    """The real stages under torchrun, with flips, dynamic noise and stratified times."""
    small = recipe(folder)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "lsgm", "train", str(small), "--out", "two", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert lsgm(small, "--out", "one")[0] == 0
    one, two = (read_metrics(folder / name / "metrics.jsonl") for name in ("one", "two"))
    assert [row["step"] for row in one] == [row["step"] for row in two] == list(range(1, 13))
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"stage", "seconds", "cpu_seconds", "images_per_second"}:
            # The same float32 sums over the batch in another order, 6e-8 each; Adam divides a gradient by its
            # own size, so where one is all but zero its rounding moves a weight by up to the learning rate.
            assert b[key] == pytest.approx(a[key], rel=1e-4, abs=1e-6), key
    assert read_state(find_checkpoint(folder / "two"))["finished"]


def test_a_run_starts_from_the_averaged_weights_of_another(folder: Path, lsgm: tiny.Command) -> None:
    small = recipe(folder)
    assert lsgm(small, "--out", "first")[0] == 0
    # Rates of 0 are refused; this one is lost in float32's rounding of any weight above 1e-20.
    frozen: tuple[object, ...] = ("--stage2.vae.lr", 1e-30, "--stage2.vae.lr-min", 0)
    frozen += ("--stage2.prior.lr", 1e-30, "--stage2.prior.lr-min", 0)
    more = (small, "--out", "more", "--init-from", "first", "--stage1.steps", 0, "--stage2.steps", 1, *frozen)
    assert lsgm(*more)[0] == 0
    origin = read_weights(find_checkpoint("first"), "ema")
    started = read_weights(find_checkpoint("more"), "raw")
    assert origin.keys() == started.keys()
    for name, value in origin.items():
        if ".reference." not in name:  # running moments of the latents, which no rate holds back
            torch.testing.assert_close(started[name], value, rtol=0, atol=1e-20)
    assert not torch.equal(
        origin["vae.decoder.head.weight"],
        read_weights(find_checkpoint("first"), "raw")["vae.decoder.head.weight"],
    )
    assert read_state(find_checkpoint("more"))["step"] == 1
    # The same command goes on, and needs the other run no more; another origin would be another run.
    (folder / "first").rename(folder / "elsewhere")
    assert lsgm(*more) == (0, "lsgm: more is finished at step 1: nothing to do\n")
    assert "init_from = 'first', not 'more'" in complaint(lsgm, *more, "--init-from", "more")
    assert "nothing to do" in lsgm(*more, "--init-from", "elsewhere")[1]  # the same weights


def test_a_vae_alone_is_taken_over_and_another_prior_trained_on_it(folder: Path, lsgm: tiny.Command) -> None:
    assert lsgm(recipe(folder), "--out", "first")[0] == 0
    wider = ("small.toml", "--prior.network.width", 12, "--stage1.steps", 0, "--stage2.steps", 1)
    frozen = ("--stage2.vae.lr", 1e-30, "--stage2.vae.lr-min", 0)
    assert lsgm(*wider, *frozen, "--out", "more", "--init-vae-from", "first")[0] == 0
    origin = read_weights(find_checkpoint("first"), "ema")
    started = read_weights(find_checkpoint("more"), "raw")
    vae = {name for name in origin if name.startswith("vae.")}
    assert vae == {name for name in started if name.startswith("vae.")}
    for name in vae:
        torch.testing.assert_close(started[name], origin[name], rtol=0, atol=1e-20)
    # The whole checkpoint would not have fitted.
    assert "belongs to another model" in complaint(lsgm, *wider, "--out", "whole", "--init-from", "first")
    assert Run(folder / "more").config()["init_vae_from"] == "first"
    (folder / "first").rename(folder / "elsewhere")
    assert "nothing to do" in lsgm(*wider, *frozen, "--out", "more", "--init-vae-from", "first")[1]


def test_a_vae_that_is_not_there_or_does_not_fit_is_refused(folder: Path, lsgm: tiny.Command) -> None:
    assert lsgm(recipe(folder), "--out", "first")[0] == 0
    small = ("small.toml", "--init-vae-from", "first")
    assert "give either that or --init-vae-from" in complaint(lsgm, *small, "--init-from", "first")
    assert "belongs to another model" in complaint(lsgm, *small, "--vae.width", 8)
    text = (folder / "small.toml").read_text()
    pixels = text[: text.index("[vae]")] + text[text.index("[prior]") : text.index("[stage1]")]
    (folder / "sgm.toml").write_text(
        pixels.replace('"lsgm"', '"sgm"') + "[stage]\nsteps = 2\nbatch_size = 8\n"
    )
    assert "has no VAE to load" in complaint(lsgm, "sgm.toml", "--init-vae-from", "first")
    assert lsgm("sgm.toml", "--out", "pixels")[0] == 0
    assert "holds no VAE" in complaint(lsgm, "small.toml", "--init-vae-from", "pixels")
    assert not (folder / "runs").exists()


def complaint(lsgm: tiny.Command, *words: object) -> str:
    """Return the one line with which a command is refused."""
    status, said = lsgm(*words)
    assert status == 2
    assert said.startswith("lsgm: ")
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["glyps"], "there is no recipe 'glyps'; did you mean 'glyphs'?"),
        (["absent.toml"], "there is no file absent.toml; give the path of a TOML file or a recipe's name"),
        ([], "name a recipe to train"),
        (["small.toml", "--stage1.stpes", "3"], "no option '--stage1.stpes'; did you mean '--stage1.steps'?"),
        (["small.toml", "--steps", "3"], "--prior-stage.steps or --stage1.steps or --stage2.steps?"),
        (["small.toml", "--stage1.steps", "many"], "--stage1.steps is 'many', not a whole number"),
        (["small.toml", "--stage1.ema", "2"], "ema is 2.0; give a decay in [0, 1)"),
        (["small.toml", "--max-seconds", "0"], "max-seconds is 0.0; it must be above 0"),
        (["small.toml", "--batch-size", "most"], "batch-size is 'most'; give a number of at least 1"),
        (["small.toml", "--batch-size", "8", "--accumulate", "3"], "accumulate is 3, and a batch of 8"),
        (["small.toml", "--data", "./absent"], "absent does not exist: give a folder, zip, npz or npy"),
        (["small.toml", "--data", "mnst"], "unknown dataset 'mnst'; did you mean 'mnist'?"),
        (["small.toml", "--vae.multipliers", *"1111"], "4 levels of the VAE cannot halve a side of 8"),
        (["small.toml", "--data.image-size", "16"], "is 8 x 8, smaller than 16; choose a smaller"),
        (["small.toml", "--prior.objective.time-eps", "0"], "time-eps"),
        (["small.toml", "--init-from", "absent"], "absent holds no checkpoint"),
        (["small.toml", "--recipe", "glyphs"], "two recipes are named, 'small.toml' and --recipe glyphs;"),
        (["glyphs", "--recipe=small.toml"], "two recipes are named, 'glyphs' and --recipe small.toml;"),
        (["--out", "x"], "name a recipe to train"),
        (["--data", "glyphs"], "name a recipe to train"),
        (["--kind", "glyphs"], "--kind"),
        (["small.toml", "--seed", str(2**63)], f"seed is {2**63}; give a whole number of at most 2^63 - 1"),
        (["small.toml", "--data", ""], "--data is empty; give it a value or leave it out"),
        (["small.toml", "--out="], "--out is empty; give it a value or leave it out"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_left(
    folder: Path, lsgm: tiny.Command, words: list[str], expected: str
) -> None:
    recipe(folder)
    assert expected in complaint(lsgm, *words)
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[stage1]\nstpes = 3", "unknown key 'stage1.stpes'; did you mean 'steps'?"),
        ("[stage1]\nsteps = 'many'", "'stage1.steps' is 'many'; it must be a whole number"),
        ("[stage1]\nwarmup = 1.5", "in [stage1] warmup is 1.5; give a share of the stage in [0, 1)"),
        ("[prior.sde]\nkind = 'vpp'", "'prior.sde.kind' is 'vpp'; it must be one of 'vp', 'subvp'"),
        ("[stage1", "is not valid TOML"),
        (f"seed = {2**63}", f"'seed' is {2**63}; give a whole"),
        ("[data]\ndataset = ''", "in [data] data.dataset is empty; name a dataset"),
    ],
)
def test_a_mistake_in_a_recipe_is_named_with_its_file(
    folder: Path, lsgm: tiny.Command, line: str, expected: str
) -> None:
    (folder / "wrong.toml").write_text(f"kind = 'lsgm'\n{line}\n")
    said = complaint(lsgm, "wrong.toml")
    assert "wrong.toml" in said
    assert expected in said


def test_a_kind_that_is_not_installed_is_named(folder: Path, lsgm: tiny.Command) -> None:
    (folder / "wrong.toml").write_text("kind = 'lsgn'\n")
    assert "there is no model kind 'lsgn'; did you mean 'lsgm'?" in complaint(lsgm, "wrong.toml")
    (folder / "wrong.toml").write_text("seed = 1\n")
    said = complaint(lsgm, "wrong.toml")
    assert "the key 'kind' is missing; say which model it is: ddpm, lsgm, sgm, vae" in said


def test_an_unreadable_image_is_named_and_nothing_half_made_is_kept(folder: Path, lsgm: tiny.Command) -> None:
    small = recipe(folder)
    picture = folder / "photos" / "013.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[: len(whole) // 2])
    assert "photos: 013.png cannot be read" in complaint(lsgm, small)
    assert not (folder / "runs").exists()
    picture.write_bytes(whole)
    assert lsgm(small, "--stage2.steps", 0)[0] == 0


def test_a_changed_recipe_or_changed_data_do_not_touch_a_run(folder: Path, lsgm: tiny.Command) -> None:
    small = recipe(folder)
    assert lsgm(small)[0] == 0
    before = weights(folder / "runs/small")
    said = complaint(lsgm, small, "--stage2.batch-size", 16)
    assert "runs/small was started with stage2.batch_size = 8, not 16; give another directory" in said
    assert "--init-from runs/small" in said
    (folder / "photos" / "013.png").unlink()
    assert "restore the data or start another run" in complaint(lsgm, small)
    assert weights(folder / "runs/small") == before


def test_a_loss_that_is_not_finite_stops_with_its_step_and_term(folder: Path, lsgm: tiny.Command) -> None:
    wild = ("--stage1.vae.lr", 1e30, "--stage1.warmup", 0, "--stage1.clip", 0)
    status, said = lsgm(recipe(folder), *wild)
    assert status == 2
    assert "training stopped: at step 2 the term 'reconstruction' became nan" in said
