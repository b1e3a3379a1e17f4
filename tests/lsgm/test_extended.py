"""A run goes on however its settings are spelt, and can be given more: what decides its result counts."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tiny
import tomli_w
import torch

from lsgm import cli
from lsgm.errors import CheckpointError, ConfigError, DataError
from lsgm.kinds import recipe_from
from lsgm.runs.checkpoint import checkpoints, find_checkpoint, read_state
from lsgm.runs.derived import write_derived_run
from lsgm.runs.directory import Run, read_metrics
from lsgm.train.loop import train_recipe

PIXELS = {key: tiny.TABLES[key] for key in ("seed", "prior")} | {
    "kind": "sgm",
    "stage": {"steps": 6, "batch_size": 8, "log_every": 1, "ema": 0.9},
}
VAE = {key: tiny.TABLES[key] for key in ("seed", "vae", "stage1")} | {"kind": "vae"}
PRIOR_ALONE = tiny.merged(
    tiny.TABLES,
    {"prior_stage": {"steps": 4, "batch_size": 8, "ema": 0.9, "drop_inactive": True}, "stage2": {"steps": 0}},
)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSGM_PROGRESS", "0")


def trained(
    run: Path, changes: dict[str, Any] | None = None, tables: Any = tiny.TABLES, **options: Any
) -> Any:
    recipe = recipe_from(tiny.merged(tables, changes or {}), "the tiny recipe")
    return train_recipe(recipe, run, images=tiny.bars(), **options)


def weights(run: Path) -> tuple[bytes, bytes]:
    newest = find_checkpoint(run)
    return (newest / "model.safetensors").read_bytes(), (newest / "ema.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run as it ends, which nobody changes."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert trained(run).finished
    return run


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run two steps into its last stage, which nobody changes."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    assert not trained(run, max_steps=8).finished
    return run


@pytest.mark.parametrize(
    ("stage", "tables"),
    [("stage2", tiny.TABLES), ("prior_stage", PRIOR_ALONE), ("stage", PIXELS), ("stage1", VAE)],
    ids=["stage 2", "the prior alone", "pixels", "a VAE"],
)
def test_a_run_that_is_given_more_is_the_run_begun_with_that_budget_and_its_own_horizon(
    tmp_path: Path, stage: str, tables: dict[str, Any]
) -> None:
    """Weights, average, optimisers and order of the data go on, bit for bit, finished or interrupted."""
    steps = tables[stage]["steps"]
    last = trained(tmp_path / "finished", tables=tables).step
    assert not trained(tmp_path / "interrupted", tables=tables, max_steps=last - steps + 2).finished
    trained(tmp_path / "whole", {stage: {"steps": steps + 4, "horizon": steps}}, tables)
    wanted = read_state(find_checkpoint(tmp_path / "whole"))
    for run in ("finished", "interrupted"):
        assert trained(tmp_path / run, {stage: {"steps": steps + 4}}, tables).finished
        assert weights(tmp_path / run) == weights(tmp_path / "whole")
        found = read_state(find_checkpoint(tmp_path / run))
        timed = ("seconds", "seconds_by_stage", "cpu_seconds", "cpu_seconds_by_stage", "files", "log")
        assert found.keys() == wanted.keys()
        assert all(found[key] == wanted[key] for key in found.keys() - timed)


def test_after_its_schedule_the_rate_stays_at_its_last_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = {"stage2": {"vae": {"lr": 1e-3, "lr_min": 2e-5}, "prior": {"lr": 1e-3, "lr_min": 3e-5}}}
    trained(tmp_path / "run", rates)
    capsys.readouterr()
    trained(tmp_path / "run", tiny.merged(rates, {"stage2": {"steps": 9}}))
    said = capsys.readouterr().err
    assert "goes on with stage2.steps = 9 (was 6)" in said
    assert "the schedules of stage2 end at its step 6, as they began" in said
    assert "stays at its last value (prior 3e-05, vae 2e-05)" in said
    rows = {row["step"]: row for row in read_metrics(tmp_path / "run" / "metrics.jsonl")}
    assert list(rows) == list(range(1, 16))
    # A step is made at the rate of the progress before it: the thirteenth is the first beyond the schedule.
    assert [rows[step]["lr/vae"] for step in (13, 14, 15)] == [2e-5] * 3
    assert rows[12]["lr/vae"] > 2e-5
    manifest = Run(tmp_path / "run").manifest()
    assert manifest["resumed"][0]["changed"] == {"stage2.steps": [6, 9], "stage2.horizon": [None, 6.0]}
    assert Run(tmp_path / "run").config()["stage2"]["horizon"] == 6.0


def test_a_run_can_be_given_more_again_and_the_same_command_then_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for steps in (6, 8, 11):
        assert trained(tmp_path / "run", {"stage2": {"steps": steps}}).step == 6 + steps
    before = weights(tmp_path / "run")
    capsys.readouterr()
    trained(tmp_path / "run", {"stage2": {"steps": 11}})
    assert capsys.readouterr().err.endswith("is finished at step 17: nothing to do\n")
    trained(tmp_path / "whole", {"stage2": {"steps": 11, "horizon": 6}})
    assert weights(tmp_path / "run") == before == weights(tmp_path / "whole")


@pytest.mark.parametrize("later", ["stage2", "prior_stage"])
def test_a_finished_run_is_given_a_further_stage(tmp_path: Path, later: str) -> None:
    """Which is the run that had it from the beginning: the stages before know nothing of it."""
    without = {"stage2": {"steps": 0}}
    more = tiny.merged(without, {later: {"steps": 5, "batch_size": 4, "ema": 0.8}})
    assert trained(tmp_path / "run", without).stage == "stage1"
    assert trained(tmp_path / "run", more).stage == later
    trained(tmp_path / "whole", more)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_a_budget_in_seconds_is_given_more_seconds(tmp_path: Path) -> None:
    tables = tiny.merged(PIXELS, {"stage": {"seconds": 0.2, "steps": 1}})
    first = trained(tmp_path / "run", tables=tables)
    more = first.seconds_by_stage["score"] + 0.2  # a busy machine may overrun the first budget by far
    second = trained(tmp_path / "run", {"stage": {"seconds": more}}, tables)
    assert second.seconds_by_stage["score"] >= more
    last = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert last["lr/prior"] == 1e-5
    assert Run(tmp_path / "run").config()["stage"]["horizon"] == 0.2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"stage2": {"steps": 3}},
            "stage2.steps = 6, not 3; a stage that has begun can be given more, not less",
        ),
        ({"stage1": {"steps": 9}}, "stage1.steps = 6, not 9; that stage is over and 'stage2' has begun from"),
        ({"prior_stage": {"steps": 9}}, "prior_stage.steps = 0, not 9; that stage is over"),
        ({"stage2": {"seconds": 60}}, "stage2.seconds = nothing, not 60.0; a budget in steps stays one in"),
        ({"stage2": {"steps": 9, "horizon": 9}}, "stage2.horizon = nothing, not 9.0; a schedule stays as it"),
        ({"stage2": {"batch_size": 16}}, "stage2.batch_size = 8, not 16; give another directory"),
        ({"stage2": {"precision": "bfloat16"}}, "stage2.precision = 'float32', not 'bfloat16'; give"),
        ({"stage2": {"vae": {"lr": 1e-2}}}, "stage2.vae.lr = 0.001, not 0.01; give another directory"),
        ({"prior": {"network": {"width": 12}}}, "prior.network.width = 8, not 12; give another directory"),
        ({"seed": 4}, "seed = 3, not 4; give another directory"),
    ],
)
def test_what_makes_another_run_is_one_sentence_and_nothing_is_touched(
    whole: Path, changes: dict[str, Any], sentence: str
) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError) as found:
        trained(whole, changes)
    assert sentence in str(found.value)
    assert f"with --init-from {whole} from the weights of this one" in str(found.value)
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


def test_how_often_is_logged_validated_saved_and_kept_decides_nothing(
    whole: Path, stopped: Path, tmp_path: Path
) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    others = {"log_every": 3, "val_every": 2, "checkpoint_every": 1e-3, "keep": 5}
    assert trained(tmp_path / "run", {"stage1": others, "stage2": others}).finished
    assert weights(tmp_path / "run") == weights(whole)
    assert Run(tmp_path / "run").config()["stage2"]["log_every"] == 3
    assert len(checkpoints(tmp_path / "run" / "checkpoints")) > 3


def test_a_checkpoint_counts_for_more_than_a_config_that_was_edited(stopped: Path, tmp_path: Path) -> None:
    """The same command goes on, an edited one does not, and config.toml then says what is trained."""
    run = Run(shutil.copytree(stopped, tmp_path / "run"))
    honest = run.config()
    edited = json.loads(json.dumps(honest))
    edited["stage2"]["vae"]["lr"] = 0.5
    text = "# mine\n" + tomli_w.dumps(edited).replace("log_every", "log-every")
    run.config_path.write_text(text)
    with pytest.raises(ConfigError, match=r"stage2\.vae\.lr = 0\.001, not 0\.5"):
        trained(run.directory, {"stage2": {"vae": {"lr": 0.5}}})
    assert run.config_path.read_text() == text
    assert trained(run.directory).finished
    assert run.config() == honest
    run.config_path.unlink()
    with pytest.raises(ConfigError, match="batch_size = 8, not 16"):
        trained(run.directory, {"stage2": {"batch_size": 16}})
    trained(run.directory, {"stage2": {"steps": 7}})
    trained(tmp_path / "whole", {"stage2": {"steps": 7, "horizon": 6}})
    assert weights(run.directory) == weights(tmp_path / "whole")


def test_a_run_begun_before_a_setting_existed_is_given_more_as_it_began(tmp_path: Path) -> None:
    off = {"prior": {"objective": {"control_variate": False}}}
    trained(tmp_path / "run", off)
    config = Run(tmp_path / "run").config_path
    tables = tomllib.loads(config.read_text())
    del tables["prior"]["objective"]["control_variate"]
    config.write_text(tomli_w.dumps(tables))
    for steps in (8, 8):
        trained(tmp_path / "run", {"stage2": {"steps": steps}})
    trained(tmp_path / "whole", tiny.merged(off, {"stage2": {"steps": 8, "horizon": 6}}))
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_a_run_that_no_training_made_cannot_be_given_more(tmp_path: Path) -> None:
    trained(tmp_path / "run", {"stage2": {"steps": 0}})
    newest = find_checkpoint(tmp_path / "run")
    state = read_state(newest)
    write_derived_run(
        tmp_path / "derived",
        Run(tmp_path / "run").config(),
        {key: value for key, value in state.items() if key not in ("files", "shapes", "format")},
        {"x": torch.zeros(1)},
        {"x": torch.zeros(1)},
        seed=3,
        dataset=Run(tmp_path / "run").manifest()["dataset"],
        argv=[],
    )
    with pytest.raises(CheckpointError, match="no training wrote it; start another run from its weights"):
        trained(tmp_path / "derived", {"stage1": {"steps": 9}, "stage2": {"steps": 0}})
    assert Run(tmp_path / "derived").config()["stage1"]["steps"] == 6
    assert trained(tmp_path / "derived", {"stage2": {"steps": 0}}).finished


def test_other_data_are_named_with_the_settings_that_chose_them(stopped: Path, tmp_path: Path) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    (tmp_path / "run" / "manifest.json").unlink()
    others = recipe_from(tiny.merged(tiny.TABLES, {"data": {"dataset": "more-bars"}}), "a recipe")
    with pytest.raises(DataError) as found:
        train_recipe(others, tmp_path / "run", images=tiny.bars(61))
    assert "data.dataset was 'glyphs' and is 'more-bars'; restore the data" in str(found.value)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``d/plain``, a recipe, its run ``whole``, and ``runs/small``, stopped after a step."""
    folder = tmp_path_factory.mktemp("begun")
    tiny.folder_of_images(folder / "d" / "plain")
    tiny.toml(folder / "small.toml", {"data": {"dataset": "d/plain", "image_size": 8, "bits": 5}})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LSGM_CACHE", str(folder / "cache"))
        train = ["train", "small.toml", "--device", "cpu", "--out"]
        assert cli.main([*train, "whole"]) == 0
        assert cli.main([*train, "runs/small", "--max-seconds", "1e-6"]) == 0
    assert not read_state(find_checkpoint(folder / "runs" / "small"))["finished"]
    return folder


@pytest.fixture
def folder(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a copy of it."""
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("LSGM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def lsgm(capsys: pytest.CaptureFixture[str]) -> tiny.Command:
    return tiny.train_command(capsys)


@pytest.mark.parametrize(
    "spelling", ["./d/plain", "d//plain/", "d/../d/plain", "absolute", "copy", "~/plain"]
)
def test_data_are_known_by_their_pixels(folder: Path, lsgm: tiny.Command, spelling: str) -> None:
    if spelling == "absolute":
        spelling = str(folder / "d" / "plain")
    elif spelling == "copy":
        shutil.copytree("d/plain", "elsewhere/other-name")
        shutil.rmtree("d")
        spelling = "elsewhere/other-name"
    elif spelling.startswith("~"):
        shutil.copytree("d/plain", folder / "home" / "plain")
    status, said = lsgm("small.toml", "--data", spelling)
    assert status == 0, said
    assert f"data.dataset = '{spelling}' (was 'd/plain')" in said
    assert weights(folder / "runs" / "small") == weights(folder / "whole")
    assert Run("runs/small").config()["data"]["dataset"] == spelling


@pytest.mark.parametrize(
    "out", ["runs/small/", "./runs/../runs/small", "link", "--out=~/moved", "$HOME/moved"]
)
def test_a_run_directory_is_known_by_what_is_in_it(folder: Path, lsgm: tiny.Command, out: str) -> None:
    place = folder / "runs" / "small"
    if out == "link":
        (folder / "link").symlink_to("runs/small", target_is_directory=True)
    elif "moved" in out:
        shutil.move("runs/small", folder / "home" / "moved")
        place = folder / "home" / "moved"
    status, said = lsgm("small.toml", *([out] if out.startswith("--") else ["--out", out]))
    assert status == 0, said
    assert weights(place) == weights(folder / "whole")
    assert not any(path.name.startswith(("~", "$")) for path in folder.iterdir())


@pytest.mark.parametrize("option", ["--init-from", "--init-vae-from"])
def test_an_origin_is_known_by_its_place_and_its_weights(
    folder: Path, lsgm: tiny.Command, option: str
) -> None:
    shutil.move("whole", "first")
    assert lsgm("small.toml", "--out", "second", "--seed", 5, "--max-seconds", 1e-6)[0] == 0
    more = ("small.toml", "--out", "more", "--stage1.steps", 0)
    assert lsgm(*more, option, "first", "--max-seconds", 1e-6)[0] == 0
    assert Run("more").manifest()["origin"]["path"] == "first"
    shutil.copytree("first", "copied")
    spellings = ("./first/", folder / "first", find_checkpoint("first"), "copied")
    for spelling in spellings if option == "--init-from" else spellings[-1:]:
        status, said = lsgm(*more, option, spelling, "--max-seconds", 1e-6)
        assert status == 0, said
    status, said = lsgm(*more, option, "second")
    assert status == 2
    assert "not 'second'; give another directory" in said
    other = {"--init-from": "--init-vae-from", "--init-vae-from": "--init-from"}[option]
    assert lsgm(*more, other, "first")[0] == 2
    # Its weights are in the run: it may be gone, and need not be named.
    shutil.rmtree("first")
    shutil.rmtree("copied")
    assert lsgm(*more)[0] == 0
    assert read_state(find_checkpoint("more"))["finished"]


def test_the_config_of_a_run_goes_on_with_it(folder: Path, lsgm: tiny.Command) -> None:
    config = folder / "runs" / "small" / "config.toml"
    assert lsgm("runs/small/config.toml")[0] == 0
    assert weights(folder / "runs" / "small") == weights(folder / "whole")
    config.write_text(config.read_text().replace("[stage2]\nsteps = 6", "[stage2]\nsteps = 8"))
    status, said = lsgm("runs/small/config.toml")
    assert status == 0
    assert "stage2.steps = 8 (was 6)" in said
    assert read_state(find_checkpoint("runs/small"))["stage_step"] == 8
    config.write_text(config.read_text().replace("batch_size = 8", "batch_size = 4"))
    assert "stage1.batch_size = 8, not 4" in lsgm("runs/small/config.toml")[1]
    assert not (folder / "runs" / "config").exists()


def test_the_config_of_a_run_says_from_which_other_one_it_started(folder: Path, lsgm: tiny.Command) -> None:
    assert lsgm("small.toml", "--out", "more", "--stage1.steps", 0, "--init-from", "whole")[0] == 0
    assert lsgm("more/config.toml", "--out", "again")[0] == 0
    assert weights(folder / "again") == weights(folder / "more")
