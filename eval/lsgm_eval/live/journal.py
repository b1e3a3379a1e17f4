"""Measures step by step: what is finished is kept at once, shown, and noted in the status file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lsgm.errors import UserError
from lsgm_eval.live.board import Board, Entry, Step
from lsgm_eval.live.screen import Nothing, Screen
from lsgm_eval.live.status import CallState, StatusFile

__all__ = ["Journal", "Terminated"]

Row = dict[str, Any]


class Terminated(SystemExit):
    """The process was asked to end (SIGTERM); the exit status is that of a shell, 128 + 15."""

    def __init__(self) -> None:
        super().__init__(143)


@dataclass
class Journal:
    """One call's progress. Without a screen and a file it measures in silence, as a library does."""

    screen: Screen = field(default_factory=Nothing)
    status: StatusFile | None = None
    clock: Callable[[], float] = time.monotonic
    board: Board | None = None
    """Of the last plan; None before there is one, when nothing is told and no file is written."""

    def run(
        self,
        title: str,
        steps: Sequence[Step],
        keep: Callable[[list[Row]], object],
        *,
        seconds: float | None = None,
        agree: Callable[[Callable[[], bool]], bool] = lambda decide: decide(),
    ) -> list[Row]:
        """Measure the steps and return their rows in the order of the plan.

        What earlier calls finished is taken first, all at once. ``keep`` gets the rows of every step as soon
        as there are any, and all of them in the end. After ``seconds``, or where a step would probably end
        later, it is left for another call; several processes decide that together by ``agree``.
        """
        board = self.board = Board(title, [Entry(step) for step in steps], self.clock)
        self.screen.show(board)
        for entry in board.entries:
            if (rows := entry.step.finished()) is not None:
                keep(rows)
                board.finish(entry, rows)
                self.screen.changed(entry)
        self._note("running")
        for entry in board.left:
            if seconds is not None and agree(partial(_too_late, board, entry, seconds)):
                entry.why = "the time was up"
                continue
            self._measure(board, entry, keep)
        rows = [row for entry in board.entries for row in entry.rows]
        keep(rows)
        return rows

    def close(self, error: BaseException | None) -> None:
        """Say in the status file how the call ended: by an error or an interruption, or by itself."""
        if self.board is None:
            return
        left = [entry.why for entry in self.board.left if entry.why]
        if error is None:
            self._note(*(("stopped", left[0]) if left else ("finished", None)))
        elif isinstance(error, KeyboardInterrupt):
            self._note("stopped", "interrupted from the keyboard")
        elif isinstance(error, Terminated):
            self._note("stopped", "ended by SIGTERM")
        else:
            self._note("failed", _sentence(error))

    def _measure(self, board: Board, entry: Entry, keep: Callable[[list[Row]], object]) -> None:
        board.begin(entry)
        self.screen.changed(entry)
        self._note("running")
        try:
            rows = entry.step.measure()
            keep(rows)
        except Exception as error:
            entry.state, entry.why = "failed", _sentence(error)
            raise
        board.finish(entry, rows)
        self.screen.changed(entry)
        self._note("running")

    def _note(self, state: CallState, why: str | None = None) -> None:
        if self.status is not None and self.board is not None:
            self.status.write(state, self.board.entries, why)


def _too_late(board: Board, entry: Entry, seconds: float) -> bool:
    return board.elapsed + (board.expected(entry.step) or 0.0) > seconds


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
