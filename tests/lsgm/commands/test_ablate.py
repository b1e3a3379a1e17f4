"""``lsgm ablate``: one VAE, the cells from it, each measured beside the shared one; failures are recorded."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from lsgm import cli
from lsgm.commands import ablate
from lsgm.commands import steps as steps_module
from lsgm.errors import ConfigError, UserError
from lsgm.recipes.ablation import SDES, STUDIES, AblationCell, AblationStudy, all_cells
from lsgm.runs.checkpoint import find_checkpoint, read_state
from lsgm.train.signals import TrainingError

Steps = list[list[str]]
Command = Callable[[Sequence[str]], int]


def recorded(monkeypatch: pytest.MonkeyPatch, react: Command = lambda argv: 0) -> Steps:
    """Record the command lines in the place of running them; `react` may fail."""
    steps: Steps = []

    def command(argv: Sequence[str]) -> int:
        steps.append(list(argv))
        if argv[0] == "train":
            Path(option(argv, "--out")).mkdir(parents=True, exist_ok=True)
        if argv[0] == "report":
            (Path(argv[1]) / "results.jsonl").touch()
        return react(argv)

    monkeypatch.setattr(cli, "main", command)
    monkeypatch.setattr(steps_module, "run_command", command)
    return steps


def option(argv: Sequence[str], name: str) -> str:
    return argv[list(argv).index(name) + 1]


def named(argv: Sequence[str]) -> str:
    """Return the name of the cell that a training is of."""
    return Path(option(argv, "--out")).name


def failed(out: Path) -> dict[str, str]:
    studies = json.loads((out / "ablation.json").read_text())["studies"]
    return {name: why for study in studies for name, why in study["failed"].items()}


def test_the_steps_are_the_commands_one_would_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps, out = recorded(monkeypatch), tmp_path / "a folder"
    words = ["glyphs-small", "--study", "frozen", "--out", str(out), "--tier", "smoke", "--device", "cpu"]
    assert ablate.run([*words, "--stage1.steps", "7", "--stage2.seconds", "2.5"]) == 0
    vae, joint, frozen = (str(out / name) for name in ("vae", "models/vp-ll-is", "models/vp-ll-is-frozen"))
    device = ["--device", "cpu"]
    start = ["--init-vae-from", vae, "--stage1.steps", "0", "--stage2.seconds", "2.5"]
    cell = ["--prior.sde.kind", "vp", "--prior.objective.weighting", "ll"]
    cell += ["--prior.objective.importance-sampling", "--prior.objective.time-eps", "0.01"]
    changed = ["--stage2.no-train-vae", "--stage2.vae-times", "shared", "--stage2.no-ema-prior"]
    measure = ["eval", "glyphs", "--only", "quality", "--only", "nelbo", "--tier", "smoke", "--out", str(out)]
    assert steps == [
        ["train", "glyphs-small", "--out", vae, "--stage1.steps", "7", "--stage2.steps", "0", *device],
        ["train", "glyphs-small", "--out", joint, *start, *cell, *device],
        ["train", "glyphs-small", "--out", frozen, *start, *cell, *changed, *device],
        [*measure, *device, "--report", "no", "--model", joint],
        [*measure, *device, "--report", "no", "--model", joint, "--model", frozen],
        ["report", str(out)],
    ]
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert [shlex.split(line)[2:] for line in said] == steps


def test_the_whole_grid_trains_each_cell_once_and_says_which_cannot_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = recorded(monkeypatch)
    assert ablate.run(["mnist-tiny", "--out", str(tmp_path)]) == 0
    trained = [argv for argv in steps if argv[0] == "train"][1:]
    cells = [cell.name for cell in all_cells(STUDIES.values()) if cell.name != "geometric-un-is"]
    assert [named(argv) for argv in trained] == cells
    assert {option(argv, "--stage2.steps") for argv in trained} == {"450"}
    assert failed(tmp_path).keys() == {"geometric-un-is"}
    assert "lsgm: no geometric-un-is: there is no importance sampling" in capsys.readouterr().err
    # The command's own number of images for this recipe, which another tier or number replaces.
    bounds = [argv for argv in steps if argv[0] == "nll"]
    assert len(bounds) == len(cells)
    assert {option(argv, "--limit") for argv in bounds} == {"2000"}


@pytest.mark.parametrize(("words", "limit"), [(["--tier", "full"], None), (["--images", "50"], "50")])
def test_how_many_images_are_bounded(
    words: list[str], limit: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = recorded(monkeypatch)
    assert ablate.run(["mnist-tiny", "--study", "frozen", "--out", str(tmp_path), *words]) == 0
    assert {option(argv, "--limit") for argv in steps if argv[0] == "nll"} == ({limit} if limit else set())
    assert all(("nelbo" in argv) is (limit is None) for argv in steps if argv[0] == "eval")


@pytest.mark.parametrize("broken", ["vp-ll-is", "vp-ll-is-frozen"])
def test_a_cell_that_does_not_stay_finite_is_recorded_and_left_out(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def react(argv: Sequence[str]) -> int:
        if argv[0] == "train" and named(argv) == broken:
            raise TrainingError("training stopped: at step 3 the loss became nan; start another run")
        return 0

    steps = recorded(monkeypatch, react)
    assert ablate.run(["--study", "frozen,mixed-score", "--out", str(tmp_path)]) == 0
    assert failed(tmp_path) == {broken: "training stopped: at step 3 the loss became nan"}
    assert not any(word.endswith(f"/{broken}") for argv in steps if argv[0] == "eval" for word in argv)
    assert f"{broken}: training stopped: at step 3 the loss became nan" in capsys.readouterr().out


def test_a_cell_that_cannot_be_measured_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def react(argv: Sequence[str]) -> int:
        if argv[0] == "eval" and argv[-1].endswith("-frozen"):
            raise UserError("image 3: the flow cannot go on")
        return 0

    steps = recorded(monkeypatch, react)
    assert ablate.run(["--study", "frozen,mixed-score", "--out", str(tmp_path)]) == 0
    assert failed(tmp_path) == {"vp-ll-is-frozen": "could not be measured: image 3: the flow cannot go on"}
    assert [argv[0] for argv in steps][-2:] == ["eval", "report"]


@pytest.mark.parametrize(
    ("command", "name", "status", "count"),
    [
        ("train", "vae", 2, 1),
        ("train", "vp-ll-is", 130, 2),
        ("train", "vp-ll-is-frozen", 143, 3),
        ("eval", "", 2, 4),
    ],
)
def test_what_is_no_failure_of_a_cell_ends_the_grid_with_its_status(
    command: str, name: str, status: int, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def react(argv: Sequence[str]) -> int:
        return status if argv[0] == command and (not name or named(argv) == name) else 0

    steps = recorded(monkeypatch, react)
    assert ablate.run(["--study", "frozen", "--out", str(tmp_path)]) == status
    assert len(steps) == count


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["glyphs-vae"], "is of kind vae; an ablation needs an LSGM's"),
        (["--jobs", "0"], "jobs is 0"),
        (["--images", "1"], "images is 1"),
        (["--stage1.steps", "5", "--stage1.seconds", "2"], "not both"),
        (["--stage2.steps", "0"], "a stage needs at least 1"),
        (["--study", "frosen"], "did you mean 'frozen'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = recorded(monkeypatch)
    with pytest.raises(ConfigError, match=said):
        ablate.run([*words, "--out", str(tmp_path)])
    assert not steps


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a tiny recipe of a folder of photos; measuring and reporting are left out."""
    photos = str(tiny.folder_of_images(tmp_path / "photos"))
    real = cli.main

    def main(argv: Sequence[str]) -> int:
        if argv[0] == "report":
            (Path(argv[1]) / "results.jsonl").touch()
        return real(argv) if argv[0] == "train" else 0

    command = steps_module.run_command
    monkeypatch.setattr(cli, "main", main)
    monkeypatch.setattr(steps_module, "run_command", lambda argv: command(argv) if argv[0] == "train" else 0)
    monkeypatch.setenv("LSGM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LSGM_PROGRESS", "0")
    monkeypatch.chdir(tmp_path)

    def write(changes: dict[str, Any] | None = None) -> str:
        data = {"data": {"dataset": photos, "image_size": 8}}
        return str(tiny.toml(tmp_path / "tiny.toml", tiny.merged(data, changes or {})))

    return write


def weights(out: Path, name: str) -> str:
    return str(read_state(find_checkpoint(out / "models" / name))["files"]["ema.safetensors"]["sha256"])


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Add in one order here and in processes that are started, which have their share of the cores each."""
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_cells_train_alone_side_by_side_and_not_twice(
    recipe: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [recipe({"stage1": {"steps": 3}, "stage2": {"steps": 3}}), "--study", "frozen", "--device", "cpu"]
    assert ablate.run([*words, "--out", "one"]) == 0
    capsys.readouterr()
    assert ablate.run([*words, "--out", "one"]) == 0
    assert capsys.readouterr().err.count("nothing to do") == 3
    # Where a command is typed in a folder that somebody sent, its modules are not those of Python.
    (tmp_path / "multiprocessing.py").write_text("raise SystemExit('it ran')")
    assert ablate.run([*words, "--out", "two", "--jobs", "2"]) == 0
    for name in ("vp-ll-is", "vp-ll-is-frozen"):
        assert weights(tmp_path / "one", name) == weights(tmp_path / "two", name)
    assert "PYTHONSAFEPATH" not in os.environ


def test_every_sde_trains_from_the_shared_vae(
    recipe: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = tuple(
        AblationCell(sde, "re", importance) for sde, importance in zip(SDES, (True, False, True), strict=True)
    )
    monkeypatch.setattr(ablate, "choose_studies", lambda words: [AblationStudy("three", ("sde",), cells)])
    steps = {"stage1": {"steps": 2}, "stage2": {"steps": 2}}
    assert ablate.run([recipe(steps), "--device", "cpu", "--out", "grid"]) == 0
    assert failed(tmp_path / "grid") == {}
    assert len({weights(tmp_path / "grid", cell.name) for cell in cells}) == 3


def test_a_rate_out_of_all_proportion_fails_the_cells_with_the_reason(
    recipe: Callable[..., str], tmp_path: Path
) -> None:
    broken = recipe({"stage2": {"warmup": 0.0, "prior": {"lr": 1e30}, "clip": 0.0}})
    with pytest.raises(UserError, match="no cell stayed finite"):
        ablate.run([broken, "--study", "frozen", "--device", "cpu", "--out", "grid"])
    assert all("became nan" in why or "became inf" in why for why in failed(tmp_path / "grid").values())
    assert failed(tmp_path / "grid").keys() == {"vp-ll-is", "vp-ll-is-frozen"}
