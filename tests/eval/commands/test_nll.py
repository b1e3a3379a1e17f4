"""`lsgm nll` as a user meets it: a table or JSON lines, protocols with names, one line for each mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scoring import KnownModel, known_images

from lsgm.config import DensityConfig
from lsgm.data.folder import read_folder
from lsgm.errors import ConfigError, UserError
from lsgm.generative import Pixels
from lsgm.results.files import read_rows
from lsgm_eval import images
from lsgm_eval import models as model_words
from lsgm_eval.commands.nll import NllOptions, estimator, run
from lsgm_eval.run import plan

TASK = """
name = "known"
version = 1
summary = "numbers that are known"
dataset = "known"
[tiers.quick]
n_samples = 0
nelbo_images = 20
ode_images = 10
iw_images = 10
nelbo = { method = "nelbo", draws = 4 }
iw = { method = "iw", samples = 8 }
[tiers.full]
n_samples = 0
nelbo_images = 30
ode_images = 0
"""

Command = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> dict[str, KnownModel]:
    """Let words on the command line open these models."""
    known = {
        "lsgm": KnownModel("lsgm"),
        "vae": KnownModel("vae", "b" * 64, has_prior=False, shift=1.0),
        "colour": KnownModel("colour", pixels=Pixels(3, 2, 2, "discrete")),
        "broken": KnownModel("broken", "c" * 64, nan=(int(known_images().order[1]),)),
    }
    monkeypatch.setattr(model_words, "open_model", lambda word, device="cpu": known[word])
    monkeypatch.setattr(plan, "task_images", lambda task, models, few=False: None)
    monkeypatch.setattr(images, "scored_images_of", lambda task, images: known_images())
    return known


@pytest.fixture
def nll(models: dict[str, KnownModel], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command on the task of this file and return its rows."""
    task = tmp_path / "known.toml"
    task.write_text(TASK)

    def call(*words: str) -> list[dict[str, Any]]:
        out = ["--out", str(tmp_path / "out"), "--device", "cpu"]
        assert run([*words, "--task", str(task), *out, "--json"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return call


def values(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {f"{row['model']} {row['metric']}": row["value"] for row in rows if "/" not in row["metric"]}


def test_the_default_is_the_score_matching_bound_of_the_quick_tier(nll: Command, tmp_path: Path) -> None:
    rows = nll("lsgm")
    chosen = known_images().order[:20]
    nats = 10 + chosen / 1000 + known_images().levels[chosen].flatten(1).sum(dim=1)
    assert rows[0]["metric"] == "nelbo_nats"
    assert rows[0]["value"] == pytest.approx(float(nats.double().mean()), rel=1e-6)
    assert (rows[0]["task"], rows[0]["n"], rows[0]["sampler"]) == ("known@1/quick", 20, "nelbo(times=4)")
    assert [row.as_dict() for row in read_rows(tmp_path / "out" / "results.jsonl")] == rows
    with np.load(tmp_path / "out" / "per-image" / "lsgm-nelbo.npz") as saved:
        assert saved["rows"].tolist() == chosen.tolist()


def test_a_limit_is_a_protocol_of_its_own_and_the_tier_scores_the_rest(
    nll: Command, models: dict[str, KnownModel], tmp_path: Path
) -> None:
    (first, *_) = nll("lsgm", "--limit", "12", "--tier", "full")
    assert (first["task"], first["n"]) == ("known@1/full-limit-12", 12)
    (full, *_) = nll("lsgm", "--tier", "full")
    assert (full["task"], full["n"]) == ("known@1/full", 30)
    assert sorted(models["lsgm"].scored) == list(range(30))
    assert {row["task"] for row in read_rows(tmp_path / "out" / "results.jsonl")} == {
        "known@1/full-limit-12",
        "known@1/full",
    }
    # Neither protocol's file is the other's.
    files = {path.name for path in (tmp_path / "out" / "per-image").iterdir()}
    assert files == {"lsgm-nelbo-limit-12.npz", "lsgm-nelbo.npz"}


def test_other_settings_are_another_protocol_too_and_the_tiers_own_are_not(nll: Command) -> None:
    assert nll("lsgm", "--times", "9")[0]["task"] == "known@1/quick-custom"
    assert nll("lsgm", "--times", "4", "--at-once", "3")[0]["task"] == "known@1/quick"
    row = nll("lsgm", "--method", "ode", "--tol", "1e-6", "--limit", "5")[0]
    assert row["task"] == "known@1/quick-limit-5-custom"
    assert row["sampler"] == "ode(solver=dopri5, rtol=1e-06, atol=1e-06, probes=1)"


def test_a_bound_without_its_control_variate_is_another_protocol_and_is_scored_for_itself(
    nll: Command, models: dict[str, KnownModel]
) -> None:
    assert nll("lsgm", "--control-variate")[0]["sampler"] == "nelbo(times=4)"
    off, *_ = nll("lsgm", "--no-control-variate")
    assert (off["task"], off["sampler"]) == ("known@1/quick-custom", "nelbo(times=4, control_variate=off)")
    assert len(models["lsgm"].scored) == 2 * 20
    # The other methods have none, and stay the tier's own.
    both = nll("lsgm", "--no-control-variate", "--method", "nelbo", "--method", "ode")
    assert {row["task"] for row in both if row["metric"] == "ode_nll_nats"} == {"known@1/quick"}


def test_several_models_are_compared_in_pairs_for_every_bound(nll: Command) -> None:
    found = values(nll("lsgm", "vae", "--method", "nelbo", "--method", "iw", "--limit", "8"))
    for bound in ("nelbo", "iw"):
        # One nat apart on every image.
        assert found[f"lsgm - vae paired_{bound}_nats"] == pytest.approx(-1.0)
        assert found[f"vae {bound}_nats"] - found[f"lsgm {bound}_nats"] == pytest.approx(1.0)


def test_a_bound_that_one_of_several_models_lacks_is_a_row_with_the_reason(nll: Command) -> None:
    rows = nll("lsgm", "vae", "--method", "ode")
    (missing,) = [row for row in rows if row["model"] == "vae" and row["metric"] == "ode_nll_nats"]
    assert missing["value"] is None
    assert "no probability flow" in missing["note"]
    assert values(rows)["lsgm ode_nll_nats"] > 10
    assert not [row for row in rows if row["metric"].startswith("paired")]


def test_failures_end_the_command_unless_they_are_allowed(nll: Command) -> None:
    bad = int(known_images().order[1])
    with pytest.raises(UserError, match=f"nelbo of broken failed at image {bad} of test"):
        nll("broken")
    row = nll("broken", "--allow-failures")[0]
    assert row["n"] == 19
    assert row["note"].startswith("1 of 20 images failed")


def test_a_status_file_says_what_was_scored_and_why_the_rest_was_not(nll: Command, tmp_path: Path) -> None:
    def status() -> tuple[str, list[tuple[str, str, str]]]:
        found = json.loads((tmp_path / "out" / "status.json").read_text())
        return found["state"], [(e["model"], e["measurement"], e["state"]) for e in found["planned"]]

    nll("lsgm", "vae")
    assert status() == (
        "finished",
        [("lsgm", "nelbo", "done"), ("vae", "nelbo", "done"), ("lsgm - vae", "paired nelbo", "done")],
    )
    with pytest.raises(UserError):
        nll("broken", "lsgm", "--method", "iw", "--limit", "8")
    assert status() == (
        "failed",
        [("broken", "iw", "failed"), ("lsgm", "iw", "left"), ("broken - lsgm", "paired iw", "left")],
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["vae", "--method", "ode"], "vae has a Normal prior"),
        (["lsgm", "--method", "ode", "--tier", "full"], "no part of known@1/full: give --limit N"),
        (["lsgm", "--tier", "huge"], "no tier 'huge'"),
        (["colour"], "colour makes 3x2x2 8-bit images and the task needs 1x2x2 binary ones"),
        (["lsgm", "lsgm"], "two models are called 'lsgm'"),
        (["lsgm", "--limit", "31"], "31 images are asked for and the split test has 30"),
        ([], "there is nothing to score"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_sentence(nll: Command, words: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        nll(*words)


def test_a_model_without_a_density_is_told_apart(nll: Command, models: dict[str, KnownModel]) -> None:
    class DrawsOnly:
        name, sha256, has_prior, parameters = "gan", "d" * 64, False, {"g": 1}
        pixels = Pixels(1, 2, 2, "binary", 1)

    models["gan"] = DrawsOnly()  # type: ignore[assignment]
    with pytest.raises(UserError, match="gan has no density"):
        nll("gan")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a", "--task", "mnist", "--limit", "1"], "limit is 1; an error needs 2 images"),
        (["a", "--task", "mnist", "--batch-size", "0"], "batch-size is 0"),
        (["a", "--task", "mnist", "--times", "4", "--method", "ode"], "--times is of --method nelbo alone"),
        (
            ["a", "--task", "mnist", "--no-control-variate", "--method", "ode", "--method", "iw"],
            "--no-control-variate is of --method nelbo alone",
        ),
        (["a", "--task", "mnist", "--tol", "1e-5"], "--tol is of --method ode or iw"),
        (["a", "--task", "mnist", "--step-control", "density"], "--step-control is of --method ode or iw"),
        (["a", "--task", "mnist", "--method", "ode", "--tol", "1", "--rtol", "1"], "give it or them"),
        (["a", "--task", "mnist", "--method", "flow"], "--method is 'flow'; give 'nelbo'"),
        (["a"], "--task is missing"),
        (["a", "--task", "mnist", "--metod", "ode"], "did you mean '--method'?"),
    ],
)
def test_a_mistake_on_the_command_line_is_a_sentence(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("?", r"\?")):
        run(words)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (NllOptions(method=("ode",), steps=9), "add --solver rk4"),
        (NllOptions(method=("ode",), solver="rk4", tol=1e-5), "rk4 has fixed steps and no tolerance"),
        (NllOptions(method=("ode",), solver="rk4", step_control="density"), "leave out --step-control"),
        (NllOptions(method=("ode",), divergence="exact", probes=4), "an exact one has none"),
        (NllOptions(method=("ode",), solver="rk4", steps=0), "steps is 0"),
    ],
)
def test_settings_that_would_have_no_effect_are_refused(options: NllOptions, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        estimator(DensityConfig("ode"), options)


def test_each_method_takes_the_settings_that_it_has() -> None:
    options = NllOptions(method=("nelbo", "ode"), samples=3, times=7, solver="heun", steps=9, at_once=8)
    assert estimator(DensityConfig(), options) == DensityConfig(draws=7, samples=3, at_once=8)
    flow = DensityConfig("ode", samples=3, solver="heun", steps=9, at_once=8)
    assert estimator(DensityConfig("ode"), options) == flow


@pytest.mark.parametrize(("tier", "asked"), [(True, False), (False, True), (False, False)])
def test_the_control_variate_is_off_where_the_tier_or_the_command_line_says_so(
    tier: bool, asked: bool
) -> None:
    options = NllOptions(method=("nelbo", "ode"), control_variate=asked)
    off = DensityConfig(control_variate=False)
    assert estimator(DensityConfig(control_variate=tier), options) == off
    assert estimator(DensityConfig("ode"), options) == DensityConfig("ode")


@pytest.mark.usefixtures("models")
def test_without_json_there_is_a_table_with_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "known.toml").write_text(TASK)
    words = ["lsgm", "--task", str(tmp_path / "known.toml"), "--out", str(tmp_path), "--device", "cpu"]
    assert run(words) == 0
    captured = capsys.readouterr()
    head, first, *_, last = captured.out.splitlines()
    assert head.split()[:3] == ["model", "metric", "value"]
    assert first.split()[:2] == ["lsgm", "nelbo_nats"]
    assert first.endswith("nelbo(times=4)")
    assert "rest/0" not in captured.out
    assert last.startswith("lsgm, nelbo(times=4): upper bound")
    assert "results.jsonl" in captured.err


def test_help_shows_worked_examples_and_does_not_import_torch() -> None:
    code = (
        "import sys\nfrom lsgm_eval.commands.nll import run\n"
        "try: run(['--help'])\nexcept SystemExit: pass\n"
        "print('loaded', [m for m in ('torch', 'numpy', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "lsgm nll runs/mnist-small --task mnist" in done.stdout, done.stderr
    assert "loaded []" in done.stdout


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 100 colour images of 12 x 10, and models of 3 x 8 x 8 that score what they are given."""
    folder = tmp_path / "photos"
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 256, (100, 12, 10, 3), dtype=np.uint8)
    for index, image in enumerate(values):
        Image.fromarray(image).save(folder / f"{index:03d}.png")
    known = {name: KnownModel(name, pixels=Pixels(3, 8, 8, "discrete", 8)) for name in ("a", "b")}
    monkeypatch.setattr(model_words, "open_model", lambda word, device="cpu": known[word])
    monkeypatch.setenv("LSGM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(folder)  # a folder of images: nothing may score it unasked
    return folder


def scored(tmp_path: Path, *words: str) -> list[dict[str, Any]]:
    assert run([*words, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    return read_rows(tmp_path / "out" / "results.jsonl")


def test_a_folder_is_scored_at_the_models_size_and_a_task_need_not_be_named(
    photos: Path, tmp_path: Path
) -> None:
    first, *_ = rows = scored(tmp_path, "a", "--data", str(photos), "--limit", "4")
    assert first["task"] == "image-folder@3/quick-limit-4"
    assert first["dataset"].startswith("photos@8px+")
    again = scored(tmp_path, "a", "--task", "image-folder", "--data", str(photos), "--limit", "4")
    assert [(row["metric"], row["value"]) for row in again] == [(row["metric"], row["value"]) for row in rows]


def test_a_single_image_is_scored_has_no_interval_and_says_so(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["a", "b", "--data", str(photos / "003.png"), "--method", "nelbo", "--method", "iw"]
    rows = scored(tmp_path, *words)
    assert {row["n"] for row in rows} == {1}
    assert {row["task"] for row in rows} == {"image-folder@3/quick-limit-1"}
    assert all(row["value"] is not None and row["ci_low"] is row["ci_high"] is None for row in rows)
    assert all("one image, so no interval over images" in row["note"] for row in rows)
    assert "one image, so no interval" in capsys.readouterr().out
    with pytest.raises(UserError, match="5 images are asked for and the split test has 1"):
        run([*words, "--limit", "5", "--out", str(tmp_path / "out")])


def test_a_folder_without_splits_is_scored_whole_and_one_with_splits_by_its_test_images(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = scored(tmp_path, "a", "--data", str(photos))
    assert {(row["n"], row["n_of"], row["task"]) for row in rows} == {
        (100, None, "image-folder@3/quick-limit-100")
    }
    assert f"lsgm: {photos}: all 100 images scored" in capsys.readouterr().err
    rows = scored(tmp_path / "fewer", "a", "--data", str(photos), "--limit", "4")
    assert {(row["n"], row["n_of"]) for row in rows} == {(4, 100)}
    assert f"lsgm: {photos}: 4 of the 100 images scored" in capsys.readouterr().err
    for role, names in (("train", range(60)), ("test", range(60, 100))):
        (photos / role).mkdir()
        for index in names:
            (photos / f"{index:03d}.png").rename(photos / role / f"{index:03d}.png")
    rows = scored(tmp_path / "split", "a", "--data", str(photos), "--limit", "4")
    assert {(row["n"], row["n_of"], row["split"]) for row in rows} == {(4, 40, "test")}
    assert "40 test (test/); scored are test images" in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 2, 60])
def test_images_from_which_no_splits_can_be_taken_are_scored_all_the_same(
    photos: Path, tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few" / "test"  # a test folder alone has none to train on, however many
    few.mkdir(parents=True)
    for index in range(count):
        (photos / f"{index:03d}.png").rename(few / f"{index:03d}.png")
    rows = scored(tmp_path, "a", "--data", str(few.parent))
    assert {(row["n"], row["n_of"]) for row in rows} == {(count, None)}
    assert f"{'all ' if count > 1 else 'the '}{count} image" in capsys.readouterr().err
    np.save(tmp_path / "few.npy", np.full((count, 8, 8, 3), 7, np.uint8))
    rows = scored(tmp_path / "array", "a", "--data", str(tmp_path / "few.npy"))
    assert {row["n"] for row in rows} == {count}


def test_of_the_images_that_a_model_was_trained_on_those_it_left_out_are_scored(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_of = tmp_path / "run"
    run_of.mkdir()
    identity = read_folder(photos, (8, 8)).identity
    (run_of / "state.json").write_text(json.dumps({"meta": {"dataset": identity}}))
    monkeypatch.setattr(model_words, "find_checkpoint", lambda path: path)
    monkeypatch.setattr(model_words, "read_state", lambda path: json.loads((path / "state.json").read_text()))
    monkeypatch.setattr(
        model_words, "open_model", lambda *_, **__: KnownModel("a", pixels=Pixels(3, 8, 8, "discrete", 8))
    )
    rows = scored(tmp_path, str(run_of), "--data", str(photos), "--limit", "3")
    assert {(row["n"], row["n_of"], row["split"]) for row in rows} == {(3, 5, "test")}
    said = f"5 test (5 % by hash of the names); scored are test images, which {run_of} was not trained on"
    assert said in capsys.readouterr().err


def test_no_data_is_said_and_the_working_directory_is_not_scored(photos: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out")]
    for words, says in (
        (["a", "--task", "image-folder"], "image-folder has no data set of its own: name a folder or zip by"),
        (["a", "--task", "image-folder", "--data", ""], "^--data is empty"),
        (["a", "--data="], "^--data is empty"),
        (["a", "--data", str(tmp_path / "none.png")], "none.png does not exist"),
    ):
        with pytest.raises(UserError, match=says):
            run([*words, *out])
    assert not (tmp_path / "out").exists()
