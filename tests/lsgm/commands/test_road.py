"""``lsgm road``: three trainings on one budget, evaluation, report; the first failure ends it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import tiny
import tomli_w

from lsgm import cli, recipes
from lsgm.commands import road
from lsgm.runs.checkpoint import find_checkpoint, read_state

Steps = list[list[str]]


def checkpoint(run: Path) -> None:
    """Leave what the training of an LSGM leaves for the road: how long it took."""
    folder = run / "checkpoints" / "step-0000010"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(
        json.dumps({"format": 1, "seconds_by_stage": {"stage1": 12.25, "stage2": 30.5}})
    )


def recorded(monkeypatch: pytest.MonkeyPatch, fails: str = "", status: int = 1) -> Steps:
    """Record the command lines instead of running them; the one that begins with `fails` fails."""
    steps: Steps = []

    def main(argv: Sequence[str]) -> int:
        steps.append(list(argv))
        if fails and shlex.join(argv).startswith(fails):
            return status
        if argv[:2] == ["train", "glyphs"]:
            checkpoint(Path(argv[argv.index("--out") + 1]))
        return 0

    monkeypatch.setattr(cli, "main", main)
    return steps


def test_the_steps_are_the_commands_one_would_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = recorded(monkeypatch)
    out = tmp_path / "a folder"
    assert road.run(["glyphs", "--out", str(out), "--tier", "smoke", "--device", "cpu"]) == 0
    lsgm, sgm, vae = (str(out / name) for name in ("lsgm", "sgm", "vae"))
    device, models = ["--device", "cpu"], ["--model", lsgm, "--model", sgm, "--model", vae]
    only = ["--only", "quality", "--only", "nelbo", "--only", "ode", "--only", "curve"]
    assert steps == [
        ["train", "glyphs", "--out", lsgm, *device],
        ["train", "glyphs-sgm", "--out", sgm, "--stage.seconds", "42.750", *device],
        ["train", "glyphs-vae", "--out", vae, "--stage1.seconds", "42.750", *device],
        ["eval", "glyphs", *only, "--tier", "smoke", "--out", str(out), *device, *models],
        ["report", str(out)],
    ]
    # Each is printed as one would type it, quotes included, before it runs.
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert [shlex.split(line)[2:] for line in said] == steps
    assert all(line.startswith("$ lsgm ") for line in said)


def test_another_feature_space_is_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = recorded(monkeypatch)
    assert road.run(["glyphs", "--out", str(tmp_path), "--extractor", "torchscript:mine.ts"]) == 0
    evaluation = steps[-2]
    assert evaluation[evaluation.index("--extractor") + 1] == "torchscript:mine.ts"


def test_the_folder_is_named_after_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    steps = recorded(monkeypatch)
    assert road.run([]) == 0
    assert steps[-1] == ["report", str(Path("runs", "eval-glyphs"))]


@pytest.mark.parametrize(
    ("fails", "status", "count"),
    [("train glyphs --out", 130, 1), ("train glyphs-sgm", 2, 2), ("eval", 2, 4), ("report", 2, 5)],
)
def test_the_first_failure_ends_the_road_with_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, status: int, count: int
) -> None:
    steps = recorded(monkeypatch, fails, status)
    assert road.run(["--out", str(tmp_path)]) == status
    assert len(steps) == count


@pytest.mark.parametrize("name", ["glyps", "glyphs-vae"])
def test_a_recipe_without_its_baselines_is_refused_before_anything_runs(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["road", name]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "a road needs RECIPE, RECIPE-sgm and RECIPE-vae, as glyphs has" in said


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the recipes small, small-sgm and small-vae, of a folder of photos."""
    data = {"data": {"dataset": str(tiny.folder_of_images(tmp_path / "photos")), "image_size": 8}}
    stage1, prior = tiny.TABLES["stage1"], tiny.TABLES["prior"]
    pixels = {"mixing_init": "none", "objective": {"weighting": "un"}, **prior}
    tables = {
        "small": {**tiny.TABLES, **data},
        "small-sgm": {"kind": "sgm", "prior": pixels, "stage": {"steps": 1, "batch_size": 8}, **data},
        "small-vae": {"kind": "vae", "vae": tiny.TABLES["vae"], "stage1": stage1, **data},
    }
    files = {name: tmp_path / f"{name}.toml" for name in tables}
    for name, file in files.items():
        file.write_text(tomli_w.dumps(tables[name]))
    for module in (road, recipes):
        monkeypatch.setattr(module, "find_recipes", lambda: files)
    monkeypatch.setenv("LSGM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LSGM_PROGRESS", "0")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("family")
def test_the_baselines_train_for_the_lsgms_seconds_and_a_second_walk_trains_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real: Callable[[Sequence[str]], int] = cli.main
    monkeypatch.setattr(cli, "main", lambda argv: real(argv) if argv[0] == "train" else 0)
    assert road.run(["small", "--out", "walk", "--device", "cpu"]) == 0
    spent = {}
    for model in ("lsgm", "sgm", "vae"):
        state = read_state(find_checkpoint(Path("walk", model)))
        assert state["finished"]
        spent[model] = state["seconds_by_stage"]
    budget = sum(spent["lsgm"].values())
    for model, stage in (("sgm", "score"), ("vae", "stage1")):
        assert spent[model].keys() == {stage}
        # To the milliseconds that the command line carries; a step goes on to its end.
        assert budget - 1e-3 <= spent[model][stage]
    capsys.readouterr()
    assert road.run(["small", "--out", "walk", "--device", "cpu"]) == 0
    assert capsys.readouterr().err.count("nothing to do") == 3
