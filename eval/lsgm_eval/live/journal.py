"""Measures step by step: what is finished is kept at once, shown, and noted in the status file."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from lsgm.errors import UserError
from lsgm_eval.live.board import Board, CallState, Entry, StatusFile, Step
from lsgm_eval.live.screen import Nothing, Screen, open_screen

__all__ = ["Journal", "Terminated", "measuring", "write_report"]

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


# Around a measuring command: signals, the status file's last word, and the report, also after a crash


@contextlib.contextmanager
def measuring(
    out: Path,
    command: Sequence[str],
    draw: Callable[[Board, int], list[str]],
    *,
    main: bool = True,
    report: Literal["yes", "no"] = "no",
) -> Iterator[Journal]:
    """Yield the journal of a command that measures into ``out``.

    However the block is left, ``out/status.json`` says how and why once something was planned, and the report
    of what is finished is written where one is wanted; an error goes on its way after that. SIGTERM ends the
    block as Ctrl-C does, with status 143. Processes other than the ``main`` one tell and write nothing.
    """
    if not main:
        yield Journal()
        return
    journal = Journal(open_screen(draw), StatusFile(out, command))
    try:
        with _terminable(), journal.screen:
            yield journal
    except BaseException as error:
        # The first error is the one to tell of, whatever the disk says to its being noted.
        with contextlib.suppress(UserError):
            journal.close(error)
        if report == "yes" and journal.board is not None:
            write_report(out)
        raise
    journal.close(None)
    if report == "yes":
        write_report(out)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM raise `Terminated` within the block; signals reach nothing but the main thread."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def write_report(out: Path) -> None:
    """Run ``lsgm report`` on a folder with results; say on standard error where the report is, or why not.

    Never raises: whatever is wrong with a report, the numbers are there and the exit status is theirs.
    """
    if not (out / "results.jsonl").exists():
        return
    from lsgm.cli import main

    # Its tables are not printed: they would be in the way of the rows, or of what went wrong.
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            status = main(["report", str(out), "--separate"])
        why = said.getvalue().strip().splitlines()[-1:] if status else []
    except Exception as error:
        status, why = 1, [f"{type(error).__name__}: {error}"]
    if status:
        reason = why[0].removeprefix("lsgm: ") if why else "the command failed"
        print(f"lsgm: no report: {reason}", file=sys.stderr)
    else:
        print(f"lsgm: report in {out / 'report.html'} and {out / 'report.md'}", file=sys.stderr)
