"""Commands that are ended from outside: the rows, the status and the report of what was finished."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from eval.live.boards import Toy
from eval.live.stalling import TASK, started

from lsgm.cli import main
from lsgm.distributed import World
from lsgm.errors import UserError
from lsgm.results.files import read_rows
from lsgm_eval import models
from lsgm_eval.live import measurement_table
from lsgm_eval.run.runner import measuring, write_report


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bars.toml").write_text(TASK)
    return tmp_path


def command(folder: Path, name: str) -> list[str]:
    words = ["--model", "fast", "--model", "slow", "--out", str(folder / "out"), "--device", "cpu", "--json"]
    task = str(folder / "bars.toml")
    only = ["--only", "quality", "--only", "nelbo", "--only", "ode"]
    what = {
        "eval": [task, *only],
        "nfe": ["--task", task, "--samplers", "heun", "--nfe", "2,4,8", "--tol", "none", "--reach", "50"],
    }[name]
    return [name, *what, *words]


def ended(folder: Path, name: str, number: int) -> tuple[int | None, str]:
    """Send a signal to the command once it sleeps; return its exit status and its standard error."""
    process, out = started(command(folder, name), folder, stalls=True), folder / "stdout"
    try:
        deadline = time.monotonic() + 60
        while not (out.exists() and out.read_text()):
            assert process.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert process.pid is not None
        os.kill(process.pid, number)
        process.join(timeout=60)
    finally:
        process.kill()
    assert out.read_text() == "asleep\n"  # neither rows nor a report's tables
    return process.exitcode, (folder / "stderr").read_text(encoding="utf-8")


def status(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / "status.json").read_text(encoding="utf-8"))
    return found


PLAN = [f"{model} {name}" for model in ("fast", "slow") for name in ("quality", "nelbo", "ode")]
PLAN += ["fast - slow difference"]


@pytest.mark.parametrize(
    ("number", "code", "state", "why"),
    [
        (signal.SIGTERM, 143, "stopped", "ended by SIGTERM"),
        (signal.SIGINT, 130, "stopped", "interrupted from the keyboard"),
        (signal.SIGKILL, -9, "running", None),
    ],
)
def test_an_evaluation_that_is_ended_leaves_what_is_finished(
    folder: Path, number: int, code: int, state: str, why: str | None
) -> None:
    returned, err = ended(folder, "eval", number)
    assert returned == code
    assert "\x1b" not in err
    assert "Traceback" not in err
    assert "lsgm: [5/7] slow nelbo: nelbo_nats " in err
    found = status(folder)
    assert (found["state"], found["why"]) == (state, why)
    assert [f"{each['model']} {each['measurement']}" for each in found["planned"]] == PLAN
    assert [each["state"] for each in found["planned"]] == ["done"] * 5 + ["running", "left"]
    kept = {(row["model"], row["metric"]) for row in read_rows(folder / "out" / "results.jsonl")}
    assert {("slow", "frechet_ink"), ("slow", "nelbo_nats"), ("fast", "ode_nll_nats")} <= kept
    assert ("slow", "ode_nll_nats") not in kept
    report = folder / "out" / "report.md"
    if number == signal.SIGKILL:  # which nobody can answer: the report is made later
        assert not report.exists()
        assert main(["report", str(folder / "out")]) == 0
    else:
        assert f"lsgm: report in {folder / 'out' / 'report.html'} and" in err
    assert "2 of 7 measurements are missing" in report.read_text(encoding="utf-8")


def test_a_sweep_that_is_ended_goes_on_and_says_first_what_is_finished(folder: Path) -> None:
    assert ended(folder, "nfe", signal.SIGTERM)[0] == 143
    assert [each["state"] for each in status(folder)["planned"]] == ["done"] * 3 + ["running", "left", "left"]
    assert len(read_rows(folder / "out" / "results.jsonl")) == 3
    assert (folder / "out" / "report.md").exists()
    process = started([*command(folder, "nfe"), "--report", "no"], folder, stalls=False)
    process.join(timeout=60)
    out, err = ((folder / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
    assert process.exitcode == 0, err
    told = [line for line in err.splitlines() if line.startswith("lsgm: [")]
    assert ["measured before" in line for line in told] == [True] * 3 + [False] * 3
    assert [line.split()[2] for line in told] == ["fast", "slow", "fast", "slow", "fast", "slow"]
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row.as_dict() for row in read_rows(folder / "out" / "results.jsonl")] == rows
    assert status(folder)["state"] == "finished"


def test_an_error_is_told_after_the_report_and_keeps_its_status(
    folder: Path,
    bars: Any,
    bernoulli: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Broken(type(bernoulli())):  # type: ignore[misc]
        def density(self, levels: Any, seeds: Any, config: Any) -> Any:
            found = super().density(levels, seeds, config)
            if config.method == "ode":
                found.nats[0] = float("nan")
            return found

    monkeypatch.setattr("lsgm_eval.run.plan.load", lambda name, **options: bars)
    monkeypatch.setattr(models, "open_model", lambda spec, device="cpu": Broken(name=spec))
    words = ["eval", str(folder / "bars.toml"), "--model", "a", "--out", str(folder / "out")]
    words += ["--only", "nelbo", "--only", "ode"]
    assert main([*words, "--report", "no"]) == 2
    assert not (folder / "out" / "report.md").exists()
    capsys.readouterr()
    assert main(words) == 2
    captured = capsys.readouterr()
    assert not captured.out
    report, error = captured.err.splitlines()
    assert report.startswith("lsgm: report in ")
    assert error.startswith("lsgm: ode of a failed at image ")
    found = status(folder)
    assert (found["state"], found["why"]) == ("failed", error.removeprefix("lsgm: "))
    assert [each["state"] for each in found["planned"]] == ["done", "failed"]


def test_a_mistake_before_the_first_measurement_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError), measuring(tmp_path, ["lsgm"], measurement_table, report="yes"):
        raise UserError("no such model")
    assert not list(tmp_path.iterdir())
    assert not capsys.readouterr().err


def test_signals_are_as_before_afterwards_and_other_processes_write_nothing(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    for main_one in (True, False):
        world = World(0 if main_one else 1, 1, torch.device("cpu"))
        with measuring(tmp_path / str(main_one), ["lsgm"], measurement_table, world=world) as runner:
            changed = signal.getsignal(signal.SIGTERM) is not before
            runner.run("title", [Toy("a", "nelbo", []).step])
        assert changed == main_one
        assert signal.getsignal(signal.SIGTERM) is before
        assert (tmp_path / str(main_one) / "status.json").exists() == main_one


@pytest.mark.parametrize("wrong", ["rows", "program"])
def test_a_report_that_fails_is_said_in_one_line(
    tmp_path: Path, wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.jsonl").write_text("{\n")
    if wrong == "program":
        monkeypatch.setattr("lsgm.cli.main", lambda argv: 1 / 0)
    write_report(tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lsgm: no report: ")
    assert ("results.jsonl line 1" if wrong == "rows" else "ZeroDivisionError") in line


def test_without_rows_there_is_no_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_report(tmp_path)
    assert not capsys.readouterr().err
