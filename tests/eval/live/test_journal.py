"""What is kept and noted of a call, however it ends, and wherever that is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from eval.live.boards import Clock, Toy, row

from lsgm.errors import UserError
from lsgm_eval.live.board import StatusFile
from lsgm_eval.live.journal import Journal, Terminated
from lsgm_eval.live.table import headline

NAMES = ("quality", "nelbo", "ode")


def toys(**changes: Any) -> list[Toy]:
    return [Toy("a", name, [row(name, 1.0)], **changes) for name in NAMES]


def status(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    return found


def journal_of(folder: Path, clock: Clock | None = None) -> Journal:
    return Journal(status=StatusFile(folder, ["lsgm", "eval", "ü b"]), clock=clock or Clock())


def states(folder: Path) -> list[str]:
    return [each["state"] for each in status(folder)["planned"]]


def test_rows_are_kept_one_measurement_after_the_other_and_in_the_end_in_order(tmp_path: Path) -> None:
    kept: list[list[str]] = []
    journal = journal_of(tmp_path)
    rows = journal.run(
        "title", [toy.step for toy in toys()], lambda rows: kept.append([r["metric"] for r in rows])
    )
    journal.close(None)
    assert kept == [["quality"], ["nelbo"], ["ode"], list(NAMES)]
    assert [row["metric"] for row in rows] == list(NAMES)
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
    kept: list[str] = []
    journal = journal_of(tmp_path)
    with pytest.raises(type(error)) as caught:
        journal.run("title", [toy.step for toy in plan], lambda rows: kept.extend(r["metric"] for r in rows))
    journal.close(caught.value)
    assert kept == list(NAMES[:failing])
    assert (status(tmp_path)["state"], status(tmp_path)["why"]) == (end, why)
    assert states(tmp_path) == ["done"] * failing + [there] + ["left"] * (2 - failing)
    assert status(tmp_path)["planned"][failing]["why"] == (why if end == "failed" else None)
    assert [toy.asked for toy in plan] == [1] * (failing + 1) + [0] * (2 - failing)


def test_while_it_runs_the_file_says_so_as_it_does_after_a_kill(tmp_path: Path) -> None:
    plan = toys()
    seen: list[tuple[str, list[str]]] = []
    for toy in plan:
        toy.rows = Noting(toy.rows, lambda: seen.append((status(tmp_path)["state"], states(tmp_path))))
    journal_of(tmp_path).run("title", [toy.step for toy in plan], lambda rows: None)
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
    kept: list[str] = []
    journal = journal_of(tmp_path)
    with pytest.raises(KeyboardInterrupt) as caught:
        journal.run("title", [toy.step for toy in plan], lambda rows: kept.extend(r["metric"] for r in rows))
    journal.close(caught.value)
    assert kept == ["ode"]
    assert states(tmp_path) == ["running", "left", "done"]
    plan[0].error = None
    rows = journal_of(tmp_path).run("title", [toy.step for toy in plan], lambda rows: None)
    assert [row["metric"] for row in rows] == list(NAMES)
    assert plan[2].asked == 0


def test_rows_that_cannot_be_written_are_a_failure_of_their_measurement(tmp_path: Path) -> None:
    def full(rows: list[dict[str, Any]]) -> None:
        raise UserError("the disk is full")

    journal = journal_of(tmp_path)
    with pytest.raises(UserError) as caught:
        journal.run("title", [toy.step for toy in toys()], full)
    journal.close(caught.value)
    assert states(tmp_path) == ["failed", "left", "left"]


def test_what_would_end_too_late_is_left_and_what_is_shorter_still_measured(tmp_path: Path) -> None:
    clock = Clock()

    def taking(rows: list[dict[str, Any]]) -> None:
        clock.now += sum(row["seconds"] for row in rows)

    plan = [
        Toy("a", name, [row(name, 1.0, seconds=seconds)], kind="k", work=seconds)
        for name, seconds in (("first", 10), ("long", 100), ("short", 20))
    ]
    journal = journal_of(tmp_path, clock)
    board_rows = journal.run("title", [toy.step for toy in plan], taking, seconds=50.0)
    journal.close(None)
    assert [(headline([row]) or {})["metric"] for row in board_rows] == ["first", "short"]
    assert states(tmp_path) == ["done", "left", "done"]
    assert (status(tmp_path)["state"], status(tmp_path)["why"]) == ("stopped", "the time was up")


def test_before_anything_is_planned_no_file_is_written(tmp_path: Path) -> None:
    journal_of(tmp_path).close(UserError("there is no such model"))
    assert not list(tmp_path.iterdir())


def test_a_library_call_measures_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(Journal().run("title", [toy.step for toy in toys()], lambda rows: None)) == 3
    captured = capsys.readouterr()
    assert not captured.err + captured.out


def test_words_that_are_no_utf8_are_spelt_out_in_the_file(tmp_path: Path) -> None:
    StatusFile(tmp_path, ["lsgm", "eval", "caf\udce9"]).write("failed", [], "no caf\udce9")
    found = json.loads((tmp_path / "status.json").read_text(encoding="utf-8"))
    assert (found["command"][-1], found["why"]) == ("caf\\xe9", "no caf\\xe9")
