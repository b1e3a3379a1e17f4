"""What is kept and noted of a call, however it ends, and wherever that is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from eval.live.boards import Clock, Toy, row

from lsgm import trackers
from lsgm.errors import UserError
from lsgm_eval.run.runner import Runner, Terminated

NAMES = ("quality", "nelbo", "ode")


def toys(**changes: Any) -> list[Toy]:
    return [Toy("a", name, [row(name, 1.0)], **changes) for name in NAMES]


def status(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    return found


class Kept(Runner):
    """A runner that notes the rows that it keeps, and keeps none."""

    def keep(self, rows: Sequence[dict[str, Any]], gone: Any = None) -> None:
        self.__dict__.setdefault("kept", []).append([row["metric"] for row in rows])


def runner_of(folder: Path, clock: Clock | None = None) -> Kept:
    return Kept(folder, command=["lsgm", "eval", "ü b"], clock=clock or Clock())


def run(runner: Runner, plan: Sequence[Toy], **options: Any) -> list[str]:
    return [row["metric"] for row in runner.run("title", [toy.step for toy in plan], **options)]


def states(folder: Path) -> list[str]:
    return [each["state"] for each in status(folder)["planned"]]


def test_rows_are_kept_one_measurement_after_the_other_and_in_the_end_in_order(tmp_path: Path) -> None:
    runner = runner_of(tmp_path)
    assert run(runner, toys()) == list(NAMES)
    runner.close(None)
    assert runner.__dict__["kept"] == [["quality"], ["nelbo"], ["ode"], list(NAMES)]
    found = status(tmp_path)
    assert (found["format"], found["state"], found["why"]) == (1, "finished", None)
    assert found["command"] == ["lsgm", "eval", "ü b"]
    assert found["started"] <= found["updated"]
    assert [(each["model"], each["measurement"]) for each in found["planned"]] == [("a", n) for n in NAMES]


@pytest.mark.parametrize("failing", range(3))
@pytest.mark.parametrize(
    ("error", "end", "there", "why"),
    [
        (UserError("image 3 has no\nbound"), "failed", "failed", "image 3 has no bound"),
        (MemoryError(), "failed", "failed", "MemoryError"),
        (RuntimeError("no room"), "failed", "failed", "RuntimeError: no room"),
        (KeyboardInterrupt(), "stopped", "running", "interrupted from the keyboard"),
        (Terminated(), "stopped", "running", "ended by SIGTERM"),
    ],
)
def test_wherever_a_call_ends_the_file_says_what_is_done_and_why_the_rest_is_not(
    tmp_path: Path, failing: int, error: BaseException, end: str, there: str, why: str
) -> None:
    plan = toys()
    plan[failing].error = error
    runner = runner_of(tmp_path)
    with pytest.raises(type(error)) as caught:
        run(runner, plan)
    runner.close(caught.value)
    assert runner.__dict__.get("kept", []) == [[name] for name in NAMES[:failing]]
    assert (status(tmp_path)["state"], status(tmp_path)["why"]) == (end, why)
    assert states(tmp_path) == ["done"] * failing + [there] + ["left"] * (2 - failing)
    assert status(tmp_path)["planned"][failing]["why"] == (why if end == "failed" else None)
    assert [toy.asked for toy in plan] == [1] * (failing + 1) + [0] * (2 - failing)


def test_while_it_runs_the_file_says_so_as_it_does_after_a_kill(tmp_path: Path) -> None:
    plan = toys()
    seen: list[tuple[str, list[str]]] = []
    for toy in plan:
        toy.rows = Noting(toy.rows, lambda: seen.append((status(tmp_path)["state"], states(tmp_path))))
    run(runner_of(tmp_path), plan)
    assert seen == [
        ("running", ["running", "left", "left"]),
        ("running", ["done", "running", "left"]),
        ("running", ["done", "done", "running"]),
    ]


class Noting(list[dict[str, Any]]):
    """Rows that note when they are measured."""

    def __init__(self, rows: Any, note: Any) -> None:
        super().__init__(rows)
        self._note = note

    def __iter__(self) -> Any:
        self._note()
        self._note = lambda: None
        return super().__iter__()


def test_what_earlier_calls_finished_is_there_before_anything_is_measured(tmp_path: Path) -> None:
    plan = toys()
    plan[0].error = KeyboardInterrupt()
    plan[2].before = True
    runner = runner_of(tmp_path)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(runner, plan)
    runner.close(caught.value)
    assert runner.__dict__["kept"] == [["ode"]]
    assert states(tmp_path) == ["running", "left", "done"]
    plan[0].error = None
    assert run(runner_of(tmp_path), plan) == list(NAMES)
    assert plan[2].asked == 0


def test_rows_that_cannot_be_written_are_a_failure_of_their_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise UserError("the disk is full")

    runner = runner_of(tmp_path)
    monkeypatch.setattr(runner, "keep", full)
    with pytest.raises(UserError) as caught:
        run(runner, toys())
    runner.close(caught.value)
    assert states(tmp_path) == ["failed", "left", "left"]


def test_what_would_end_too_late_is_left_and_what_is_shorter_still_measured(tmp_path: Path) -> None:
    clock = Clock()

    @dataclass
    class Taking(Toy):
        def _measure(self) -> list[dict[str, Any]]:
            clock.now += self.work
            return super()._measure()

    plan = [
        Taking("a", name, [row(name, 1.0)], kind="k", work=seconds)
        for name, seconds in (("first", 10), ("long", 100), ("short", 20))
    ]
    runner = runner_of(tmp_path, clock)
    assert run(runner, plan, seconds=50.0) == ["first", "short"]
    runner.close(None)
    assert states(tmp_path) == ["done", "left", "done"]
    assert (status(tmp_path)["state"], status(tmp_path)["why"]) == ("stopped", "the time was up")


def test_before_anything_is_planned_no_file_is_written(tmp_path: Path) -> None:
    runner_of(tmp_path).close(UserError("there is no such model"))
    assert not list(tmp_path.iterdir())


def test_a_library_call_measures_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(run(Runner(), toys())) == 3
    captured = capsys.readouterr()
    assert not captured.err + captured.out


class Steady:
    """A tracker that notes the metrics of the rows that it is told."""

    def __init__(self, folder: Path, name: str, step: int) -> None:
        self.told: list[str] = []
        OPENED.append(self)

    def rows(self, rows: Sequence[dict[str, Any]]) -> None:
        self.told += [each["metric"] for each in rows]
        for each in rows:
            each.clear()  # which changes nothing for anybody else

    def file(self, path: Path) -> None:
        self.told.append(path.name)

    def close(self) -> None:
        self.told.append("closed")


class Tired(Steady):
    """One that raises at its second rows."""

    def rows(self, rows: Sequence[dict[str, Any]]) -> None:
        super().rows(rows)
        if len(self.told) > 1:
            raise ValueError("no network")


OPENED: list[Steady] = []


def test_measured_rows_and_pictures_are_told_to_trackers_and_one_that_raises_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    OPENED.clear()
    points = {"steady": SimpleNamespace(load=lambda: Steady), "tired": SimpleNamespace(load=lambda: Tired)}
    monkeypatch.setattr(trackers, "offers", lambda group: points)
    monkeypatch.setenv(trackers.VARIABLE, "steady,tired")
    plan = toys()
    plan[0].before = True
    plan.append(Toy("a", "more", [row("more", 2.0), row("last", 3.0)]))
    runner = runner_of(tmp_path)
    assert run(runner, plan) == [*NAMES, "more", "last"]
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "a.png").touch()
    runner.end_tracking()
    steady, tired = OPENED
    assert steady.told == ["nelbo", "ode", "more", "last", "a.png", "closed"]
    assert tired.told == ["nelbo", "ode"]
    assert capsys.readouterr().err.splitlines() == [
        "lsgm: tired tracks no further (ValueError: no network); what it follows goes on without"
    ]


def test_words_that_are_no_utf8_are_spelt_out_in_the_file(tmp_path: Path) -> None:
    runner = Kept(tmp_path, command=["lsgm", "eval", "caf\udce9"])
    plan = [Toy("caf\udce9", "quality", error=UserError("no caf\udce9"))]
    with pytest.raises(UserError) as caught:
        run(runner, plan)
    runner.close(caught.value)
    found = status(tmp_path)
    assert (found["command"][-1], found["why"], found["planned"][0]["model"]) == (
        "caf\\xe9",
        "no caf\\xe9",
        "caf\\xe9",
    )
