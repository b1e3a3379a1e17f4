"""The table on a terminal, drawn in place whatever else is printed; plain lines and silence elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest
from eval.live.boards import Clock, Toy, lines_of, row
from eval.live.fake_terminal import FakeTerminal

from lsgm.progress import bar
from lsgm_eval.live import Board, Lines, Screen, Terminal, measurement_table, open_screen


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> FakeTerminal:
    """A terminal of 80 columns and 24 lines."""
    for name, value in {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LSGM_PROGRESS", raising=False)
    return FakeTerminal()


@contextmanager
def shown(board: Board, terminal: FakeTerminal) -> Iterator[Terminal]:
    """Show a board on the terminal, which standard error and output are meanwhile."""
    # Not by a fixture: pytest puts its own streams in place between the fixtures and the test.
    with redirect_stderr(terminal), redirect_stdout(terminal):
        with Terminal(terminal, measurement_table) as screen:
            screen.show(board)
            yield screen
        assert sys.stderr is terminal is sys.stdout
    assert not terminal.hidden


def board_of(*names: str) -> Board:
    return Board("title", [Toy("a", name, column=name).entry for name in names], Clock())


def test_the_table_stays_where_it_is(terminal: FakeTerminal) -> None:
    board = board_of("nelbo", "ode")
    with shown(board, terminal) as screen:
        for entry in board.entries:
            board.begin(entry)
            screen.changed(entry)
            board.finish(entry, [row(f"{entry.measurement}_nats", 3.0, 0.1)])
            screen.changed(entry)
    assert terminal.seen == lines_of(measurement_table, board, 80)


def test_what_others_print_stands_above_the_table(terminal: FakeTerminal) -> None:
    board = board_of("nelbo")
    with shown(board, terminal):
        print("lsgm: image 3 failed", file=sys.stderr)
        print("half a ", end="")
        print("line\nand another")
        print("[bold]never ended", end="", file=sys.stderr)
        sys.stderr.flush()
    above = ["lsgm: image 3 failed", "half a line", "and another", "[bold]never ended"]
    assert terminal.seen == [*above, *lines_of(measurement_table, board, 80)]


def test_rows_that_go_elsewhere_stay_out_of_the_terminal(
    terminal: FakeTerminal, capsys: pytest.CaptureFixture[str]
) -> None:
    with redirect_stderr(terminal), Terminal(terminal, measurement_table) as screen:
        screen.show(board_of("nelbo"))
        print('{"row": 1}')
    assert capsys.readouterr().out == '{"row": 1}\n'
    assert not any("row" in line for line in terminal.seen)


def test_what_a_bar_would_show_is_told_and_leaves_no_trace(terminal: FakeTerminal) -> None:
    board = board_of("quality")
    shares = []
    with shown(board, terminal):
        board.begin(board.entries[0])
        with bar(total=4, desc="a: samples", unit="image") as progress:
            progress.mininterval = 0.0
            for _ in range(4):
                progress.update(1)
                assert board.progress is not None
                shares.append(board.progress.share)
        drawn = lines_of(measurement_table, board, 80)
    assert shares == [0.25, 0.5, 0.75, 1.0]
    assert drawn[-1].startswith("a: samples: 4/4 [")
    assert terminal.seen == lines_of(measurement_table, board, 80)
    assert not any("samples" in line for line in terminal.seen)


def test_the_seconds_go_on_while_nothing_happens(terminal: FakeTerminal) -> None:
    board = board_of("quality")
    board.clock = time.monotonic
    board.begun = time.monotonic() - 60
    with shown(board, terminal):
        board.begun -= 600
        deadline = time.monotonic() + 10
        while "11 min" not in terminal.seen[0] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "11 min" in terminal.seen[0]


def test_a_table_that_is_too_high_is_cut_while_it_is_redrawn_and_whole_in_the_end(
    terminal: FakeTerminal,
) -> None:
    board = Board("title", [Toy(f"model-{k}", "nelbo").entry for k in range(40)], Clock())
    with shown(board, terminal) as screen:
        screen.changed(board.entries[0])
        assert len(terminal.seen) == 24
        assert terminal.seen[-1].strip() == "..."
    assert sum(line.startswith("title") for line in terminal.seen) == 1
    assert len(terminal.seen) == 42


def test_elsewhere_there_is_a_line_for_each_measurement_and_no_escape(
    capsys: pytest.CaptureFixture[str],
) -> None:
    board = board_of("nelbo", "ode")
    with Lines() as screen:
        screen.show(board)
        for entry in board.entries:
            board.begin(entry)
            screen.changed(entry)
            board.finish(entry, [row(f"{entry.measurement}_nats", 3.0, 0.1)])
            screen.changed(entry)
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "lsgm: [1/2] a nelbo: nelbo_nats 3.00 ± 0.10; 0 s, 1 left, about 0 s",
        "lsgm: [2/2] a ode: ode_nats 3.00 ± 0.10; 0 s",
    ]
    assert "\x1b" not in captured.err
    assert not captured.out


@pytest.mark.parametrize(
    ("environment", "tty", "kind"),
    [
        ({}, True, Terminal),
        ({}, False, Lines),
        ({"TERM": "dumb"}, True, Lines),
        ({"LSGM_PROGRESS": "0"}, True, Screen),
        ({"RANK": "1"}, True, Screen),
        ({"RANK": "0"}, False, Lines),
    ],
)
def test_where_progress_is_shown(
    environment: dict[str, str], tty: bool, kind: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LSGM_PROGRESS", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", FakeTerminal() if tty else open(os.devnull, "w"))  # noqa: SIM115
    assert type(open_screen(measurement_table)) is kind
