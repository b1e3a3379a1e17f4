"""How long the rest takes: by the rates of what was measured, and by what a bar shows."""

from __future__ import annotations

import pytest
from eval.live.boards import Clock, Toy

from lsgm.progress import Progress
from lsgm_eval.live import Board


def board_of(clock: Clock, *toys: Toy) -> Board:
    return Board("title", [toy.entry for toy in toys], clock)


def measured(board: Board, clock: Clock, number: int, seconds: float) -> None:
    board.begin(board.entries[number])
    clock.now += seconds
    board.finish(board.entries[number], [])


def test_seconds_are_in_proportion_to_the_work_of_the_same_kind() -> None:
    clock = Clock(1000.0)
    toys = [
        Toy("a", "x", kind="draw", work=10),
        Toy("a", "y", kind="draw", work=40),
        Toy("b", "z", kind="iw"),
    ]
    board = board_of(clock, *toys)
    assert board.seconds_left() is None
    measured(board, clock, 0, 5.0)
    assert board.elapsed == 5.0
    assert board.seconds_left() == (20.0, False)  # of iw nothing is known
    measured(board, clock, 1, 16.0)
    measured(board, clock, 2, 1.0)
    assert not board.left
    assert board.seconds_left() is None


def test_a_models_own_rate_counts_before_those_of_others() -> None:
    clock = Clock()
    board = board_of(clock, *(Toy(model, "x", kind="draw") for model in "abbc"))
    measured(board, clock, 0, 2.0)
    measured(board, clock, 1, 6.0)
    assert [board.expected(entry) for entry in board.entries[2:]] == [6.0, 4.0]


def test_what_earlier_calls_measured_says_nothing_about_rates() -> None:
    clock = Clock()
    board = board_of(clock, Toy("a", "x", kind="draw"), Toy("a", "y", kind="draw"))
    board.finish(board.entries[0], [])
    assert board.entries[0].seconds is None
    assert board.seconds_left() is None


def test_a_bar_tells_what_is_left_of_the_running_one_whatever_was_done_before() -> None:
    clock = Clock()
    board = board_of(clock, Toy("a", "x"))
    board.begin(board.entries[0])
    clock.now = 3.0
    board.watch(Progress("scores", 0.5, "50/100"))  # of an earlier call
    assert board.seconds_left() is None
    clock.now = 13.0
    board.watch(Progress("scores", 0.75, "75/100"))
    assert board.seconds_left() == (pytest.approx(10.0), True)
    board.watch(Progress("subsets", 0.1, "1/10"))  # another bar: its share is not that one's
    assert board.seconds_left() is None


def test_a_running_one_without_a_bar_is_expected_to_take_what_its_kind_takes() -> None:
    clock = Clock()
    board = board_of(clock, Toy("a", "x", kind="draw"), Toy("b", "x", kind="draw"))
    measured(board, clock, 0, 10.0)
    board.begin(board.entries[1])
    clock.now += 4.0
    assert board.seconds_left() == (6.0, True)
    clock.now += 60.0
    assert board.seconds_left() == (0.0, True)
