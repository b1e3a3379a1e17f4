"""The tables of running commands as they stand on terminals of three widths, and lines for a log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eval.live.boards import Clock, Toy, evaluation, lines_of, row, sweep
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from lsgm_eval.live import Board, measured_line, measurement_table, sweep_table

GOLDEN = Path(__file__).parent / "golden"
COMMANDS: dict[str, tuple[Callable[[Clock], Board], Any]] = {
    "eval": (evaluation, measurement_table),
    "nfe": (sweep, sweep_table),
}


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_table_stands_as_its_golden_file(command: str, width: int) -> None:
    make, table = COMMANDS[command]
    expected = (GOLDEN / f"{command}-{width}.txt").read_text(encoding="utf-8")
    assert "\n".join(lines_of(table, make(Clock()), width)) + "\n" == expected


@given(st.sampled_from(sorted(COMMANDS)), st.integers(20, 150))
def test_no_line_is_wider_than_the_terminal(command: str, width: int) -> None:
    make, table = COMMANDS[command]
    assert max(map(cell_len, lines_of(table, make(Clock()), width))) <= width


@pytest.mark.parametrize("table", [measurement_table, sweep_table])
def test_a_name_cannot_order_the_terminal_about(table: Any) -> None:
    board = Board("title", [Toy("\x1b[2Jevil\n", "quality").entry], Clock())
    text = "".join(lines_of(table, board, 80))
    assert "?[2Jevil?" in text
    assert text.isprintable()


def test_nothing_planned_is_a_title_alone() -> None:
    assert lines_of(measurement_table, Board("title", [], Clock()), 80) == [
        "title: 0 of 0 done, 0 s",
        "model",
    ]


def test_a_failed_measurement_says_so() -> None:
    board = Board("title", [Toy("a", "quality").entry], Clock())
    board.entries[0].state = "failed"
    assert lines_of(measurement_table, board, 80)[-1].split() == ["a", "failed"]
    assert "quality failed" in lines_of(sweep_table, board, 80)[-1]


def test_higher_may_be_better_on_the_front() -> None:
    toys = [Toy("a", name, column="points") for name in ("x", "y", "z")]
    board = Board("title", [toy.entry for toy in toys], Clock())
    for entry, value, nfe in zip(board.entries, (0.5, 0.4, 0.6), (1, 2, 3), strict=True):
        about = {"sampler": entry.measurement, "nfe_mean": nfe, "higher_is_better": True}
        board.finish(entry, [row("coverage", value, 0.01, **about)])
    assert [line.split()[:3] for line in lines_of(sweep_table, board, 80)[-2:]] == [
        ["1", "lsgm", "x"],
        ["3", "lsgm", "z"],
    ]
    assert "0.600 ± 0.010" in lines_of(sweep_table, board, 80)[2]


def test_a_line_tells_the_value_the_seconds_and_what_is_left() -> None:
    clock = Clock()
    board = Board("title", [Toy("a", name, kind="k").entry for name in ("nelbo", "iw", "ode", "old")], clock)
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
    board = Board("title", [Toy("a", "heun(steps=5)").entry], Clock())
    about = {"group": "curve", "nfe_mean": 10.0, "seconds": 0.5, "n": 100}
    board.finish(board.entries[0], [row("fid", 12.0, 1.0, **about)])
    assert "heun(steps=5): 10 NFE, 5 ms/image, fid 12.0 ± 1.0;" in measured_line(board, board.entries[0])


@given(st.text(max_size=40), st.integers(20, 60))
def test_a_line_of_any_text_fits_and_orders_nothing(text: str, width: int) -> None:
    board = Board(text, [Toy(text, "quality").entry], Clock())
    for line in lines_of(measurement_table, board, width):
        assert cell_len(line) <= width
        assert line.isprintable()


def test_a_name_of_any_length_is_clipped_at_once() -> None:
    lines = lines_of(measurement_table, Board("x" * 10**6, [], Clock()), 5)
    assert lines[0] == "xxxx…"
