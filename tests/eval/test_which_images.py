"""Which images a number is of: all of a folder, as many as asked for, those of a file; never others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bernoulli import BernoulliModel
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lsgm.cli import main
from lsgm.data import load
from lsgm.generative import Pixels
from lsgm.results.files import read_rows
from lsgm_eval import models as model_words
from lsgm_eval.compare.numbers import paired_likelihood
from lsgm_eval.run import plan

Run = Callable[..., dict[str, dict[str, Any]]]


class Quarters:
    """Mean value of the four quarters of an image of any size: a feature space without a network."""

    name, sha256, resize, image_shape, dim = "quarters", "5" * 64, "", (1, None, None), 4

    def __call__(self, images: Tensor) -> Tensor:
        x = images.float().mean(1) / 255
        half = x.shape[1] // 2
        quarters = (x[:, :half, :half], x[:, :half, half:], x[:, half:, :half], x[:, half:, half:])
        return torch.stack([quarter.mean((1, 2)) for quarter in quarters], dim=1)


@pytest.fixture(autouse=True)
def _quarters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "load_extractor", lambda spec, shape, device=None: Quarters())


def pictures(count: int, seed: int = 0, mean: float = 120.0) -> NDArray[np.uint8]:
    """Grey images [N, 28, 28] whose brightness varies."""
    rng = np.random.default_rng(seed)
    level = rng.normal(mean, 30.0, (count, 1, 1))
    return (level + rng.normal(0, 9.0, (count, 28, 28))).clip(0, 255).astype(np.uint8)


def folder(place: Path, images: NDArray[np.uint8]) -> Path:
    place.mkdir(parents=True)
    for k, image in enumerate(images):
        Image.fromarray(image).save(place / f"{k:04d}.png")
    return place


@pytest.fixture
def evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `lsgm eval image-folder` and return its rows by metric."""

    def run(*words: str, out: str = "out") -> dict[str, dict[str, Any]]:
        capsys.readouterr()
        space = ["--extractor", "torchscript:quarters.ts", "--report", "no", "--json"]
        assert main(["eval", "image-folder", *space, "--out", str(tmp_path / out), *words]) == 0
        return {row["metric"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}

    return run


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["eval", "image-folder", "--extractor", "torchscript:q.ts", "--report", "no", *words]) != 0
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    return line


def test_a_set_too_small_for_a_distance_is_refused_for_that_and_the_sizes_of_splits_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ["--model", f"made={folder(tmp_path / 'made', pictures(60, 1))}", "--images", "all"]
    place = folder(tmp_path / "one", pictures(1))
    said = refused(capsys, "--data", str(place), *made, "--only", "quality", "--out", str(tmp_path / "o"))
    assert said.endswith("one has 1 image: a distance is of sets, give at least 2 images")
    place = folder(tmp_path / "set" / "train", pictures(60))
    folder(tmp_path / "set" / "test", pictures(20))
    words = ["--data", str(place.parent), *made, "--only", "quality", "--out", str(tmp_path / "out")]
    space = ["--extractor", "torchscript:quarters.ts", "--report", "no"]
    assert main(["eval", "image-folder", *space, *words]) == 0
    said = (
        "57 train (train/), 3 val (5 % by hash of the names), 20 test (test/); distances are to train+val, 60"
    )
    assert said in capsys.readouterr().err


def test_a_folder_is_at_no_distance_from_itself_however_few_its_images(evaluate: Run, tmp_path: Path) -> None:
    place = str(folder(tmp_path / "photos", pictures(60)))
    row = evaluate("--data", place, "--model", f"photos={place}", "--images", "all")["frechet_quarters"]
    assert abs(row["value"]) < 1e-12  # the quarters' variances are about 0.01
    assert (row["n"], row["n_of"], row["split"]) == (60, None, "train+val+test")
    assert row["task"].endswith("/quick-images-all")


def test_the_split_that_a_folder_names_is_the_reference(evaluate: Run, tmp_path: Path) -> None:
    train = folder(tmp_path / "photos" / "train", pictures(80))
    folder(tmp_path / "photos" / "test", pictures(40, seed=1, mean=200.0))
    words = ("--data", str(tmp_path / "photos"), "--images", "all", "--only", "quality")
    row = evaluate(*words, "--model", f"a={train}")["frechet_quarters"]
    assert abs(row["value"]) < 1e-12
    assert row["split"] == "train+val"


def test_test_images_are_asked_for_where_likelihoods_are(
    evaluate: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(folder(tmp_path / "photos", pictures(60)))
    model = BernoulliModel(pixels=Pixels(1, 28, 28, "discrete"))
    monkeypatch.setattr(model_words, "open_model", lambda spec, device="cpu": model)
    words = ("--data", place, "--model", "m", "--images", "40")
    assert evaluate(*words, "--only", "quality")["frechet_quarters"]["n"] == 40
    said = refused(capsys, *words, "--out", str(tmp_path / "other"), "--only", "nelbo")
    assert "asks for 50 images and" in said
    assert "has 3 in test" in said


def test_joined_splits_of_one_file_are_not_copied(tmp_path: Path) -> None:
    images = load(str(folder(tmp_path / "photos", pictures(40))), image_size=28)
    whole = images.split("train+val+test")
    assert len(whole) == 40
    assert whole.data_ptr() == images.split("train").data_ptr()
    assert torch.equal(whole[-2:], images.split("test"))
    assert torch.equal(images.split("test+train")[:2], images.split("test"))


def test_numbers_of_another_folder_stand_beside_the_first_ones_and_so_do_their_files(
    evaluate: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [folder(tmp_path / name, pictures(1100, seed)) for seed, name in enumerate("ab")]
    models = {
        p: BernoulliModel(p, float(p), p[-1] * 64, Pixels(1, 28, 28, "discrete")) for p in ("0.1", "0.2")
    }
    monkeypatch.setattr(model_words, "open_model", lambda spec, device="cpu": models[spec])
    words = ("--model", "0.1", "--model", "0.2", "--images", "40", "--only", "quality", "--only", "nelbo")
    kept = []
    for place in (*places, places[0]):
        found = evaluate("--data", str(place), *words)
        kept.append((found["frechet_quarters"]["value"], found["nelbo_nats"]["value"]))
    assert kept[0] == kept[2] != kept[1]
    out = tmp_path / "out"
    rows = read_rows(out / "results.jsonl")
    for metric in ("frechet_quarters", "nelbo_nats"):
        assert len([row for row in rows if row["metric"] == metric]) == 4  # two models, two folders
    names = sorted(path.name for path in (out / "per-image").iterdir())
    assert [name.partition("@")[2][0] for name in names] == ["a", "b", "a", "b"]
    assert {path.name.partition("@")[0] for path in (out / "samples").glob("data@*.png")} == {"data"}
    # The numbers of single images are found again for the rows of either folder.
    for dataset in {row["dataset"] for row in rows}:
        pair = [r for r in rows if r["metric"] == "nelbo_nats" and r["dataset"] == dataset]
        told = paired_likelihood((out, out), ("0.1", "0.2"), (pair[0], pair[1]))
        assert not isinstance(told, str)
        assert told[1] == "paired over 50 images"
    assert main(["report", str(out)]) == 0
    assert "on a (" in (page := (out / "report.md").read_text())
    assert "on b (" in page


def test_a_number_of_images_is_another_protocol_and_leaves_the_tiers_alone(
    evaluate: Run, tmp_path: Path
) -> None:
    data = str(folder(tmp_path / "photos", pictures(150)))
    np.savez(tmp_path / "samples.npz", pictures(1200, seed=3)[..., None])
    words = ("--data", data, "--model", f"a={tmp_path / 'samples.npz'}", "--only", "quality")
    tier, fewer, whole = (
        evaluate(*words, *more)["frechet_quarters"] for more in ((), ("--images", "100"), ("--images", "all"))
    )
    assert [(row["n"], row["n_of"]) for row in (tier, fewer, whole)] == [
        (1000, 1200),
        (100, 1200),
        (1200, None),
    ]
    assert [row["task"].partition("/")[2] for row in (tier, fewer, whole)] == [
        "quick",
        "quick-images-100",
        "quick-images-all",
    ]
    kept = [r for r in read_rows(tmp_path / "out" / "results.jsonl") if r["metric"] == "frechet_quarters"]
    assert [row["value"] for row in kept] == [row["value"] for row in (tier, fewer, whole)]
    manifest = json.loads((tmp_path / "out" / "manifests" / f"{whole['manifest']}.json").read_text())
    assert manifest["task"]["identity"] == whole["task"]
    assert manifest["models"][0]["images"] == 1200


def test_sets_of_unlike_numbers_are_not_subtracted(evaluate: Run, tmp_path: Path) -> None:
    data = str(folder(tmp_path / "photos", pictures(60)))
    for name, count in (("a", 50), ("b", 70)):
        np.save(tmp_path / f"{name}.npy", pictures(count, seed=count))
    models = ("--model", str(tmp_path / "a.npy"), "--model", str(tmp_path / "b.npy"))
    found = evaluate("--data", data, *models, "--images", "all", "--only", "quality")
    row = found["paired_frechet_quarters"]
    assert row["value"] is None
    assert "a has 50 images and b 70" in row["note"]
    same = evaluate("--data", data, *models, "--images", "50", "--only", "quality", out="same")
    assert same["paired_frechet_quarters"]["value"] is not None


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("39", "images is 39; distances need at least 40 images"),
        ("most", "--images is 'most': give a number, or all"),
        ("all", "m draws as many images as one likes: say how many, --images N"),
    ],
)
def test_other_numbers_of_images_are_refused_in_a_sentence(
    word: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(folder(tmp_path / "photos", pictures(50)))
    model = BernoulliModel("m", pixels=Pixels(1, 28, 28, "discrete"))
    monkeypatch.setattr(model_words, "open_model", lambda spec, device="cpu": model)
    words = ("--data", data, "--model", "m", "--only", "quality", "--out", str(tmp_path / "out"))
    assert said in refused(capsys, *words, "--images", word)


def test_statistics_alone_are_a_reference(evaluate: Run, tmp_path: Path) -> None:
    data = str(folder(tmp_path / "photos", pictures(80)))
    np.savez(tmp_path / "samples.npz", pictures(1000, seed=3)[..., None])
    model = ("--model", f"a={tmp_path / 'samples.npz'}")
    here = evaluate("--data", data, *model, "--only", "quality", "--export-reference", str(tmp_path))
    file = f"quarters={tmp_path / 'quarters.npz'}"
    (there, cost) = (
        evaluate(*model, "--reference", file, *only, out="alone")[metric]
        for only, metric in ((("--only", "quality"), "frechet_quarters"), ((), "nfe"))
    )
    same = here["frechet_quarters"]
    assert there["value"] == pytest.approx(same["value"], rel=1e-9)
    assert (there["dataset"], there["split"]) == (same["dataset"], same["split"])
    assert cost["dataset"] == there["dataset"]
    rows = {row["metric"]: row for row in read_rows(tmp_path / "alone" / "results.jsonl")}
    assert rows["kernel_quarters"]["value"] is None
    assert "bounds no likelihood" in rows["nelbo_nats"]["note"]


def test_statistics_of_others_name_themselves(evaluate: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "theirs.npz", mu=np.full(4, 0.5), sigma=np.eye(4) * 0.01)
    np.save(tmp_path / "a.npy", pictures(50))
    row = evaluate(
        *("--model", str(tmp_path / "a.npy"), "--images", "all", "--only", "quality"),
        *("--reference", f"quarters={tmp_path / 'theirs.npz'}"),
    )["frechet_quarters"]
    assert row["dataset"].startswith("theirs@statistics@")
    assert row["split"] is None
    assert "reference statistics of theirs.npz" in row["note"]


def test_likelihoods_need_images_and_statistics_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "theirs.npz", mu=np.zeros(4), sigma=np.eye(4))
    model = BernoulliModel("m", pixels=Pixels(1, 28, 28, "discrete"))
    monkeypatch.setattr(model_words, "open_model", lambda spec, device="cpu": model)
    reference = ("--reference", f"quarters={tmp_path / 'theirs.npz'}")
    said = refused(capsys, "--model", "m", *reference, "--out", str(tmp_path / "out"))
    assert "no data set of its own: name a folder or zip by --data" in said
