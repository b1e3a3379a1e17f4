"""`lsgm gate` as a user meets it: a table, an exit status, new rows with a reason, one line for a mistake."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import tiny
import torch
from bernoulli import BernoulliModel, ink
from eval.gate.gated import trained
from PIL import Image
from safetensors.torch import load_file, save_file
from scoring import KnownModel

from lsgm.data import ImageSet, sha256_of
from lsgm.data.places import file_sha256
from lsgm.errors import ConfigError, UserError
from lsgm.generative import Pixels
from lsgm.runs.checkpoint import find_checkpoint
from lsgm_eval.commands.gate import run
from lsgm_eval.gate import measure as subject
from lsgm_eval.gate.golden import Plan, read_golden
from lsgm_eval.gate.measure import measure_estimates, measure_replays
from lsgm_eval.gate.verdict import check, judge

TASK = """
name = "bars"
version = 1
summary = "bars"
dataset = "bars"
"""
GLYPHS = 'spaces = [{ extractor = "glyphs", name = "glyphs", statistics = ["frechet", "memorisation"] }]\n'

Gate = Callable[..., int]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, vae_run: Path) -> Path:
    """A folder with a task and the golden rows of the tiny VAE, written by the command itself."""
    folder = tmp_path_factory.mktemp("written")
    (folder / "bars.toml").write_text(TASK)
    words = ["--update", "--reason", "first", "--images", "64", "--repeats", "4"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "task_images", lambda task, models: tiny.bars())
        assert gate(vae_run, folder, *words) == 0
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: Path) -> Path:
    """A copy of that folder."""
    monkeypatch.setattr(subject, "task_images", lambda task, models: tiny.bars())
    return Path(shutil.copytree(written, tmp_path, dirs_exist_ok=True))


def gate(model: Path, place: Path, *words: str) -> int:
    return run(
        [str(model), "--golden", str(place / "x.json"), "--task", str(place / "bars.toml"), *map(str, words)]
    )


def spoilt(model: Path, folder: Path) -> Path:
    """Return a copy of a run's checkpoint with its largest tensor off by 2 %, and the state to go with it."""
    origin = find_checkpoint(model)
    folder.mkdir()
    state = json.loads((origin / "state.json").read_text())
    tensors = load_file(origin / "ema.safetensors")
    name = max(tensors, key=lambda key: tensors[key].numel())
    tensors[name] = tensors[name] * 1.02
    save_file(tensors, folder / "ema.safetensors")
    written = folder / "ema.safetensors"
    state["files"] = {
        written.name: {"bytes": written.stat().st_size, "sha256": file_sha256(written)},
    }
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def test_an_unchanged_checkpoint_stands_and_every_row_has_a_line(
    place: Path, vae_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate(vae_run, place) == 0
    captured = capsys.readouterr()
    head, *lines = captured.out.splitlines()
    assert head.split() == ["row", "golden", "measured", "difference", "allowed"]
    assert [line.split()[0] for line in lines] == list(read_golden(place / "x.json").rows)
    assert all(line.endswith("stands") for line in lines)
    assert captured.err == "lsgm: all 7 golden rows stand (vae, bars@1)\n"


def test_a_changed_checkpoint_fails_with_status_1_and_every_failing_row_is_named(
    place: Path, vae_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    junit = place / "junit.xml"
    assert gate(spoilt(vae_run, place / "spoilt"), place, "--json", "--junit", str(junit)) == 1
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    failing = [row["row"] for row in rows if not row["passed"]]
    assert "replay/nelbo" in failing
    first, *named, last = captured.err.splitlines()
    assert "are not those of the golden rows" in first
    assert [line.split()[1] for line in named] == failing
    assert last == f"lsgm: {len(failing)} of 7 golden rows do not stand (vae, bars@1)"
    suite = ElementTree.parse(junit).getroot()
    assert [case.get("name") for case in suite if case.find("failure") is not None] == failing
    assert (suite.get("tests"), suite.get("failures")) == ("7", str(len(failing)))


def test_other_seeds_move_the_estimates_and_no_replay(
    place: Path, vae_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for seeds in ("0", "1"):
        assert gate(vae_run, place, "--json", "--seeds", seeds) == 0
        lines = capsys.readouterr().out.splitlines()
        found.append({row["row"]: row["measured"] for row in map(json.loads, lines)})
    moved = {name for name in found[0] if found[0][name] != found[1][name]}
    assert moved == {"nelbo_nats", "iw_nats"}


def test_a_checkpoint_trained_anew_is_judged_by_its_estimates_alone(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longer = trained(place / "longer", "vae", 80)
    assert gate(longer, place) == 1
    capsys.readouterr()
    assert gate(longer, place, "--retrained") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["nelbo_nats", "iw_nats"]


def test_updating_keeps_the_history_and_says_what_moved(
    place: Path, vae_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, threads = read_golden(place / "x.json"), torch.get_num_threads()
    assert gate(vae_run, place, "--update", "--reason", "nothing") == 0
    assert torch.get_num_threads() == threads
    assert capsys.readouterr().out == "no row moved\n"
    model = spoilt(vae_run, place / "spoilt")
    assert gate(model, place, "--update", "--reason", "weights are 2 % larger now") == 0
    printed = capsys.readouterr().out
    golden = read_golden(place / "x.json")
    assert [change.reason for change in golden.history] == ["first", "nothing", "weights are 2 % larger now"]
    assert golden.history[1].before == {}
    old = golden.history[2].before["nelbo_nats"]
    assert old == pytest.approx(before.rows["nelbo_nats"].value)  # type: ignore[union-attr]
    assert f"nelbo_nats: {old:.6g} -> " in printed
    assert golden.plan == before.plan
    assert golden.checkpoint_sha256 != before.checkpoint_sha256
    assert gate(model, place) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a", "--update"], "new golden rows need a reason"),
        (["a", "--update", "--reason", "  "], "new golden rows need a reason"),
        (["a", "--reason", "why"], "--reason is of --update"),
        (["a", "--update", "--reason", "x", "--retrained"], "leave --retrained, --seeds and --junit out"),
        (["a", "--images", "9"], "--images is of --update"),
        (["a", "--seeds", "-1"], "seeds is -1"),
        (["a", "--gold", "x"], "did you mean '--golden'?"),
        ([], "CHECKPOINT"),
    ],
)
def test_a_mistake_on_the_command_line_is_a_sentence(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("?", r"\?")):
        run(words)


def edit(path: Path, key: str, value: Any) -> None:
    mapping = json.loads(path.read_text())
    mapping[key] = value
    path.write_text(json.dumps(mapping))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("task", "bars@2", "their task is bars@2 and here it is bars@1"),
        ("dataset", "bars@1@other", "their dataset is bars@1@other and here it is bars@1@"),
        ("levels_sha256", "0" * 64, "their levels' sha256 is 000"),
        ("spaces", {"inception": "x"}, "their feature space inception is x and here it is not at hand"),
    ],
)
def test_rows_of_other_tasks_and_data_are_not_checked(
    place: Path, vae_run: Path, key: str, value: Any, says: str
) -> None:
    """A UserError is status 2 of the command line."""
    edit(place / "x.json", key, value)
    with pytest.raises(UserError, match=says):
        gate(vae_run, place)


def test_a_task_of_the_package_at_another_version_is_not_checked(place: Path, vae_run: Path) -> None:
    edit(place / "x.json", "task", "glyphs@99")
    with pytest.raises(UserError, match="task glyphs is at version 3 here, not 99"):
        run([str(vae_run), "--golden", str(place / "x.json")])


def test_a_model_of_other_pixels_is_not_checked(
    place: Path, vae_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = {name: ink(70, seed) for seed, name in enumerate(("train", "val", "test"))}
    larger = ImageSet("bars", "1", sha256_of(*splits.values()), "binary", splits)
    monkeypatch.setattr(subject, "task_images", lambda task, models: larger)
    with pytest.raises(UserError, match="vae makes 1x8x8 binary images and the task needs 1x28x28"):
        gate(vae_run, place)


def test_more_images_than_there_are_is_said(place: Path, vae_run: Path) -> None:
    with pytest.raises(UserError, match="asks for 65 images and the split test has 64"):
        gate(vae_run, place, "--update", "--reason", "more", "--images", "65")


def test_distances_raise_no_alarm_in_a_hundred_gates_and_fail_for_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bars: ImageSet
) -> None:
    """Of 40 images each, in the glyph features; black pixels have probability 0.1, then 0.2."""
    monkeypatch.setattr(subject, "task_images", lambda task, models: bars)
    monkeypatch.setattr(subject, "open_model", lambda spec, device: BernoulliModel(p=float(spec)))
    (tmp_path / "bars.toml").write_text(TASK + GLYPHS)
    where = ["--golden", str(tmp_path / "x.json"), "--task", str(tmp_path / "bars.toml")]
    assert run(["0.1", *where, "--update", "--reason", "x", "--images", "64", "--samples", "40"]) == 0
    golden = read_golden(tmp_path / "x.json")
    assert {"frechet_glyphs", "kernel_glyphs"} < set(golden.rows)
    assert "memorised_glyphs" not in golden.rows
    opened, described = subject.open_subject("0.1", str(tmp_path / "bars.toml"), golden.plan)
    subject.require_same(golden, opened, described)
    for seeds in range(100):
        found = measure_estimates(opened, measure_replays(opened), repeat=golden.plan.repeats + seeds)
        assert [one.sentence for one in judge(golden, found) if not one.passed] == []
    outcome = check("0.2", tmp_path / "x.json", task=str(tmp_path / "bars.toml"))
    assert {"replay/images", "frechet_glyphs", "kernel_glyphs"} <= {one.row for one in outcome.failing}
    assert np.isfinite([one.difference or 0.0 for one in outcome.verdicts]).all()


def test_images_alone_have_no_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "task_images", lambda task, models: tiny.bars())
    tiny.folder_of_images(tmp_path / "images")
    (tmp_path / "bars.toml").write_text(TASK)
    with pytest.raises(UserError, match="images has no density: the gate is for trained models"):
        gate(tmp_path / "images", tmp_path, "--update", "--reason", "x")


def test_a_folder_is_opened_at_the_models_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(4):
        Image.new("RGB", (12, 9 + index), (index, 0, 0)).save(folder / f"{index}.png")
    monkeypatch.setattr(
        subject, "open_model", lambda spec, device: KnownModel(pixels=Pixels(3, 8, 8, "discrete"))
    )
    plan = Plan(images=2, samples=0)
    opened, _ = subject.open_subject("x", "image-folder", plan, data=str(folder))
    assert opened.images.pixels.shape == (3, 8, 8)
    with pytest.raises(UserError, match="image-folder has no data set of its own: name a folder or zip by"):
        subject.open_subject("x", "image-folder", plan)


def test_help_needs_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, contextlib\n"
        "from lsgm_eval.commands.gate import run\n"
        "with contextlib.suppress(SystemExit): run(['--help'])\n"
        "assert not {'torch', 'numpy', 'scipy'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for word in ("--retrained", "--update", "--reason", "--junit", "Exit status 0"):
        assert word in done.stdout
