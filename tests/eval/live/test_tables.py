"""The tables of running commands as they stand on terminals of three widths, and lines for a log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from eval.live.boards import Clock, Toy, evaluation, row, sweep
from hypothesis import given
from hypothesis import strategies as st

from lsgm_eval.live.board import Board, Entry
from lsgm_eval.live.table import columns_of, measured_line, measurement_lines, sweep_lines

GOLDEN = Path(__file__).parent / "golden"
COMMANDS: dict[str, tuple[Callable[[Clock], Board], Callable[[Board, int], list[str]]]] = {
    "eval": (evaluation, measurement_lines),
    "nfe": (sweep, sweep_lines),
}


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_table_stands_as_its_golden_file(command: str, width: int) -> None:
    make, lines = COMMANDS[command]
    expected = (GOLDEN / f"{command}-{width}.txt").read_text(encoding="utf-8")
    assert "\n".join(lines(make(Clock()), width)) + "\n" == expected


@given(st.sampled_from(sorted(COMMANDS)), st.integers(20, 150))
def test_no_line_is_wider_than_the_terminal(command: str, width: int) -> None:
    make, lines = COMMANDS[command]
    assert max(map(columns_of, lines(make(Clock()), width))) <= width


@pytest.mark.parametrize("lines", [measurement_lines, sweep_lines])
def test_a_name_cannot_order_the_terminal_about(lines: Callable[[Board, int], list[str]]) -> None:
    board = Board("title", [Entry(Toy("\x1b[2Jevil\n", "quality").step)], Clock())
    text = "".join(lines(board, 80))
    assert "?[2Jevil?" in text
    assert text.isprintable()


def test_nothing_planned_is_a_title_alone() -> None:
    assert measurement_lines(Board("title", [], Clock()), 80) == ["title: 0 of 0 done, 0 s", "model"]


def test_a_failed_measurement_says_so() -> None:
    board = Board("title", [Entry(Toy("a", "quality").step)], Clock())
    board.entries[0].state = "failed"
    assert measurement_lines(board, 80)[-1].split() == ["a", "failed"]
    assert "quality failed" in sweep_lines(board, 80)[-1]


def test_higher_may_be_better_on_the_front() -> None:
    toys = [Toy("a", name, column="points") for name in ("x", "y", "z")]
    board = Board("title", [Entry(toy.step) for toy in toys], Clock())
    for entry, value, nfe in zip(board.entries, (0.5, 0.4, 0.6), (1, 2, 3), strict=True):
        about = {"sampler": entry.step.measurement, "nfe_mean": nfe, "higher_is_better": True}
        board.finish(entry, [row("coverage", value, 0.01, **about)])
    assert [line.split()[:3] for line in sweep_lines(board, 80)[-2:]] == [
        ["1", "lsgm", "x"],
        ["3", "lsgm", "z"],
    ]
    assert "0.600 ± 0.010" in sweep_lines(board, 80)[2]


def test_a_line_tells_the_value_the_seconds_and_what_is_left() -> None:
    clock = Clock()
    board = Board(
        "title", [Entry(Toy("a", name, kind="k").step) for name in ("nelbo", "iw", "ode", "old")], clock
    )
    first, second, third, old = board.entries
    board.finish(old, [row("old_nats", 3.0, 0.1)])
    assert measured_line(board, old) == "[1/4] a old: old_nats 3.00 ± 0.10; measured before, 3 left"
    board.begin(first)
    clock.now = 12.0
    board.finish(first, [row("nelbo_nats", 91.234, 0.45)])
    assert measured_line(board, first) == ("[2/4] a nelbo: nelbo_nats 91.23 ± 0.45; 12 s, 2 left, about 24 s")
    for entry in (second, third):
        board.begin(entry)
        board.finish(entry, [])
    board.entries[2].rows = [row("ode_nll_nats", None, note="a has no flow")]
    assert measured_line(board, second) == "[4/4] a iw: nothing to measure; 0 s"
    assert measured_line(board, third) == "[4/4] a ode: ode_nll_nats not measured (a has no flow); 0 s"
    third.seconds = None  # known without measuring
    assert measured_line(board, third) == "[4/4] a ode: ode_nll_nats not measured (a has no flow)"


def test_the_line_of_a_point_tells_its_cost() -> None:
    board = Board("title", [Entry(Toy("a", "heun(steps=5)").step)], Clock())
    about = {"group": "curve", "nfe_mean": 10.0, "seconds": 0.5, "n": 100}
    board.finish(board.entries[0], [row("fid", 12.0, 1.0, **about)])
    assert "heun(steps=5): 10 NFE, 5 ms/image, fid 12.0 ± 1.0;" in measured_line(board, board.entries[0])
