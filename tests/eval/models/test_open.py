"""--model NAME=FOLDER|ZIP|NPZ: ready images become a model that the harness measures like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from lsgm import cli
from lsgm.config import SamplerConfig
from lsgm.data import ImageSet
from lsgm.errors import CheckpointError, DataError, UserError
from lsgm.generative import Pixels
from lsgm.runs.load import load_model
from lsgm.train.loop import train_recipe
from lsgm_eval.models import ImageModel, fit, open_model, remark_of
from lsgm_eval.run import plan
from lsgm_eval.run.calls import evaluate
from lsgm_eval.task import load_task
from lsgm_eval.two_sides.sides import open_side

TASK = (
    tiny.TASK
    + """
[tiers.quick]
n_samples = 60
nelbo_images = 20
ode_images = 0
sampler = { name = "heun", steps = 3 }
"""
)


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bars: ImageSet) -> str:
    monkeypatch.setattr(plan, "load", lambda name, **options: bars)
    path = tmp_path / "bars.toml"
    path.write_text(TASK)
    return str(path)


def rows_of(model: Any, task: str, out: Path) -> dict[str, dict[str, Any]]:
    return {row["metric"]: row for row in evaluate([model], load_task(task), "quick", out, batch_size=25)}


@pytest.mark.parametrize("place", ["pictures", "pictures.npz"])
def test_what_lsgm_sample_writes_is_measured_as_it_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bars: ImageSet,
    place: str,
) -> None:
    """Sheet, manifest and record are beside the images or hidden: none of them counts as one."""
    monkeypatch.setenv("LSGM_PROGRESS", "0")
    changes = {"stage1": {"steps": 2}, "stage2": {"steps": 2}}
    train_recipe(tiny.recipe(changes), tmp_path / "run", images=bars)
    where = [str(tmp_path / "run"), "--n", "5", "--out", str(tmp_path / place), "--sampler.steps", "2"]
    assert cli.main(["sample", *where, "--device", "cpu"]) == 0
    capsys.readouterr()
    ready = open_model(str(tmp_path / place))
    assert isinstance(ready, ImageModel)
    assert len(ready) == 5
    assert "left out" not in capsys.readouterr().err
    expected = load_model(tmp_path / "run").sample(range(5), SamplerConfig(steps=2)).images
    assert torch.equal(ready.sample(range(5), SamplerConfig()).images, expected)


def test_samples_stored_as_npz_get_the_distances_of_the_model_that_drew_them(
    task: str, tmp_path: Path, bernoulli: Any
) -> None:
    drawn = bernoulli().sample(range(60), SamplerConfig()).images
    np.savez(tmp_path / "drawn.npz", drawn.permute(0, 2, 3, 1).numpy())
    ready = open_model(f"again={tmp_path / 'drawn.npz'}")
    there, here = (rows_of(m, task, tmp_path / m.name) for m in (bernoulli(), ready))
    for metric in ("frechet_glyphs", "kernel_glyphs"):
        assert here[metric]["value"] == there[metric]["value"]
    assert here["frechet_glyphs"]["model"] == "again"
    assert here["frechet_glyphs"]["sampler"] is None
    assert "images of an npz file, costs unknown" in here["frechet_glyphs"]["note"]


def test_ready_images_have_no_likelihood_and_the_row_says_why(
    task: str, tmp_path: Path, bernoulli: Any
) -> None:
    drawn = bernoulli().sample(range(60), SamplerConfig()).images
    np.savez(tmp_path / "drawn.npz", drawn.permute(0, 2, 3, 1).numpy())
    found = rows_of(open_model(str(tmp_path / "drawn.npz")), task, tmp_path / "out")
    assert found["nelbo_nats"]["value"] is None
    assert "draws images and bounds no likelihood" in found["nelbo_nats"]["note"]


def test_of_more_images_than_asked_for_a_uniform_subset_is_measured_whatever_their_order(
    task: str, tmp_path: Path, bernoulli: Any
) -> None:
    # Two classes, sorted: the first images of the file are of one of them alone.
    classes = [bernoulli(p=p).sample(range(200), SamplerConfig()).images for p in (0.02, 0.6)]
    stored = torch.cat(classes).permute(0, 2, 3, 1).numpy()
    order = np.random.default_rng(0).permutation(400)
    found = []
    for name, rows in (("sorted", stored), ("shuffled", stored[order])):
        np.savez(tmp_path / f"{name}.npz", rows)
        found.append(rows_of(open_model(str(tmp_path / f"{name}.npz")), task, tmp_path / name))
    a, b = (rows["frechet_glyphs"] for rows in found)
    assert (a["n"], a["n_of"]) == (b["n"], b["n_of"]) == (60, 400)
    assert "60 of its 400 images, a uniform subset drawn with seed 0" in a["note"]
    # Both are samples of one mixture: they differ by chance, not by a class.
    assert a["value"] == pytest.approx(b["value"], rel=0.3)
    assert found[0]["nelbo_nats"]["n_of"] is None


def test_the_subset_is_of_every_class_and_pairs_stay_pairs(tmp_path: Path) -> None:
    stored = np.repeat(np.arange(1, 201, dtype=np.uint8), 48).reshape(200, 4, 4, 3)
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", stored)
    models = [open_model(str(tmp_path / f"{name}.npy")) for name in ("a", "b")]
    drawn = [
        fit(model, model.pixels, 50).sample(range(50), SamplerConfig()).images[:, 0, 0, 0] for model in models
    ]
    assert torch.equal(*drawn)
    assert len(drawn[0].unique()) == 50
    quarters = torch.bincount((drawn[0].long() - 1) // 50, minlength=4)
    assert quarters.min() >= 5  # of 12.5 expected, with a standard deviation of 2.7
    with pytest.raises(DataError, match="200 images and 51 are asked for"):
        fit(models[0], models[0].pixels, 50).sample([50], SamplerConfig())


def test_all_images_stay_in_their_order_and_later_seeds_draw_others(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.arange(1, 21, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3))
    model = open_model(str(tmp_path / "rows.npy"))

    def drawn(count: int, first: int = 0) -> list[int]:
        seeds = range(first, count)
        return (
            fit(model, model.pixels, count, first).sample(seeds, SamplerConfig()).images[:, 0, 0, 0].tolist()
        )

    assert drawn(20) == list(range(1, 21))
    assert not set(drawn(8)) & set(drawn(16, first=8))


def test_a_folder_too_small_for_the_tier_is_named(task: str, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for k in range(5):
        Image.fromarray(np.full((28, 28), 255 * (k % 2), np.uint8)).save(few / f"{k}.png")
    with pytest.raises(DataError, match=r"few has 5 images and 60 are asked for"):
        rows_of(fit(open_model(str(few)), Pixels(1, 28, 28, "binary", 1), 60), task, tmp_path / "out")


def test_a_name_before_ready_images_renames_them(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.arange(4 * 48, dtype=np.uint8).reshape(4, 4, 4, 3))
    plain, named = open_model(str(tmp_path / "rows.npy")), open_model(f"theirs={tmp_path / 'rows.npy'}")
    assert isinstance(named, ImageModel)
    assert (plain.name, named.name) == ("rows", "theirs")
    assert (named.sha256, remark_of(named)) == (plain.sha256, "images of an npy file, costs unknown")
    images = [m.sample([3, 0], SamplerConfig()).images for m in (plain, named)]
    assert torch.equal(*images)


def test_any_other_model_fits_as_it_is(bernoulli: Any) -> None:
    model = bernoulli()
    assert fit(model, Pixels(3, 32, 32, "discrete"), 10**6) is model


@pytest.mark.parametrize("name", ["", " ", ".", "..", "a\nb", "\x1b[2J", "n" * 201])
def test_a_name_by_which_no_file_can_be_called_is_one_sentence(name: str, tmp_path: Path) -> None:
    """``--save png`` wrote the images of a model called .. over the folder of the results."""
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "images" / "0.png")
    for opened in (open_model, open_side):
        with pytest.raises(UserError, match="no file can be called after a model of the name"):
            opened(f"{name}={tmp_path / 'images'}")


@pytest.mark.parametrize("suffix", ["zip", "npz", "npy"])
def test_a_missing_file_of_images_is_named(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"gone\.{suffix} does not exist"):
        open_model(f"a={tmp_path / f'gone.{suffix}'}")


def test_a_folder_of_neither_images_nor_checkpoints_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing to measure")
    with pytest.raises(CheckpointError, match="holds neither a checkpoint nor images: give a run directory"):
        open_model(str(tmp_path))


def test_a_run_that_has_pictures_is_still_a_run(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "samples" / "grid.png")
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        open_model(str(tmp_path))


@pytest.mark.parametrize("spec", ["", " ", "a=", "a= "])
def test_a_model_without_a_place_is_refused_and_never_the_working_directory(spec: str) -> None:
    with pytest.raises(UserError, match=f"^the model '{spec}' names no place"):
        open_model(spec)


def test_names_with_signs_of_equality_spaces_and_other_scripts_are_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("lr=0.1", "two words", "модель", "ends="):
        tiny.folder_of_images(tmp_path / name)
        assert open_model(name).name == name
        assert open_model(f"mine={name}").name == "mine"
