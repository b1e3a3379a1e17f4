"""``lsgm export`` as a person meets it: a folder, a card, and one sentence where something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny

from lsgm.commands.export import run as command
from lsgm.errors import CheckpointError, ConfigError, UserError
from lsgm.runs.checkpoint import read_state
from lsgm.runs.load import load_model
from lsgm.train.loop import train_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "bars"
    assert train_recipe(tiny.recipe(), directory, images=tiny.bars()).finished
    return directory


def export(*words: object) -> int:
    return command([str(word) for word in words])


def results(folder: Path, sha256: str, name: str = "results.jsonl") -> Path:
    row = {"task": "bars@1/quick", "model": "bars", "metric": "nelbo_nats", "value": 12.0}
    row |= {
        "ci_low": 11.0,
        "ci_high": 13.0,
        "n": 64,
        "split": "test",
        "group": "likelihood",
        "checkpoint_sha256": sha256,
    }
    other = {**row, "checkpoint_sha256": "00", "value": 99.0}
    path = folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in (row, other)))
    return path


def test_a_run_becomes_a_folder(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "checkpoints" / "bars" / "lsgm"
    assert export(run, out) == 0
    said = capsys.readouterr().out
    size = (out / "model.safetensors").stat().st_size
    assert said == f"bars, step 12, in {size:,} bytes: {out}; `lsgm sample {out}`\n"
    assert load_model(out).name == "bars"


def test_json_says_what_was_written(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--stage", "stage1", "--name", "bars-vae", "--dtype", "float32", "--json"]
    assert export(run, tmp_path / "vae", *words) == 0
    said = json.loads(capsys.readouterr().out)
    state = read_state(tmp_path / "vae")
    assert said == {
        "name": "bars-vae",
        "out": str(tmp_path / "vae"),
        "step": 6,
        **state["files"]["model.safetensors"],
    }
    assert state["exported"]["dtype"] == "float32"
    assert not load_model(tmp_path / "vae").has_prior


def test_the_card_is_written_again_with_results_of_these_weights(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lsgm"
    assert export(run, out) == 0
    card, before = out / "README.md", (out / "state.json").read_bytes()
    assert "No results are printed here" in card.read_text()
    mine = results(tmp_path, load_model(out).sha256)
    more = results(tmp_path, load_model(out).sha256, "more.jsonl")
    assert export("--card", out, "--measured", mine, more) == 0
    text = card.read_text()
    assert text.count("| bars@1/quick | test | nelbo_nats | 12.0 | 11.0 to 13.0 | 64 |") == 2
    assert "99" not in text.split("## Measured")[1].split("## Use")[0]
    assert str(card) in capsys.readouterr().out
    assert (out / "state.json").read_bytes() == before
    assert export("--card", out) == 0
    assert "No results are printed here" in card.read_text()


def test_results_may_come_with_the_export(run: Path, tmp_path: Path) -> None:
    assert export(run, tmp_path / "first") == 0
    rows = results(tmp_path, load_model(tmp_path / "first").sha256)
    # The same bytes, so the same sha256.
    assert export(run, tmp_path / "again", "--measured", rows) == 0
    assert "11.0 to 13.0" in (tmp_path / "again" / "README.md").read_text()


def test_results_of_other_weights_are_refused(run: Path, tmp_path: Path) -> None:
    assert export(run, tmp_path / "out") == 0
    before = (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(UserError, match=r"results.jsonl has no row of the weights in .*; measure them first"):
        export("--card", tmp_path / "out", "--measured", results(tmp_path, "ff" * 32))
    (tmp_path / "torn.jsonl").write_text("{")
    for name in ("torn.jsonl", "absent.jsonl"):
        with pytest.raises(UserError, match=f"{name}.*(remove the line or the file|check the path)"):
            export("--card", tmp_path / "out", "--measured", tmp_path / name)
    assert (tmp_path / "out" / "README.md").read_text() == before


def test_the_card_names_the_folder_as_seen_from_here(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export(run, tmp_path / "checkpoints" / "bars") == 0
    card = tmp_path / "checkpoints" / "bars" / "README.md"
    assert "$ lsgm sample checkpoints/bars --out" in card.read_text()
    monkeypatch.chdir(run)
    assert export("--card", tmp_path / "checkpoints" / "bars") == 0
    assert "$ lsgm sample bars --out" in card.read_text()


def test_what_is_in_the_way_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(CheckpointError, match="there exists already"):
        export(run, tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint; give a run directory"):
        export(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "give the run and the folder to write"),
        (["runs/x"], "give the run and the folder to write"),
        (["runs/x", "out", "--card", "out"], "leave out RUN and OUT"),
        (["runs/x", "out", "--dtype", "float16"], "--dtype is 'float16'; give"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        command(words)


def test_limits_written_down_stay_with_the_folder(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "lsgm"
    assert export(run, out, "--limit", "It has seen bars alone.", "--limit", "It is small.") == 0
    card = out / "README.md"
    assert "- It has seen bars alone.\n- It is small.\n" in card.read_text()
    assert export("--card", out) == 0
    assert "- It has seen bars alone.\n- It is small.\n" in card.read_text()
    assert export("--card", out, "--limit", "It is tiny.") == 0
    assert "- It is tiny.\n" in card.read_text()
    assert "It is small." not in card.read_text()
    assert load_model(out).name == "bars"
