"""The one runner of all that measures: a step is taken from what earlier calls finished, or measured now.

What is finished is kept at once, told to the screen, to the status file and to whoever tracks rows: a call
that is ended anywhere goes on where it was.
"""

from __future__ import annotations

import contextlib
import io
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from lsgm.distributed import ALONE, World
from lsgm.errors import UserError
from lsgm.files.regular import listed
from lsgm.logs import log
from lsgm.results import Row
from lsgm.results.files import merge_rows, read_rows, write_rows
from lsgm.results.status import CallState, Planned, Status, now, write_status
from lsgm.trackers import Trackers, check_names, named
from lsgm_eval.cache import CellStore
from lsgm_eval.live import Board, Draw, Entry, Screen, open_screen
from lsgm_eval.run.manifest import MeasuringCall


@dataclass(frozen=True)
class Step:
    """One measurement: the smallest part of a call that is kept once it is finished.

    On several processes all of them call ``measure`` and ``finished``, and get the same rows.
    """

    model: str
    """The model's name, or ``a - b`` of two."""
    what: str
    measure: Callable[[], list[Row]]
    cell: Callable[[], str] | None = None
    """The key of all that its rows depend on, asked of the first process alone; None where they are not kept
    as a cell, because single images are, or because they take no time."""
    names: Sequence[str] = ()
    """Of its models."""
    again: Callable[[Row], Mapping[str, Any]] = lambda row: {}
    """What options of the call are others in the command that makes a row of it again."""
    files: Sequence[Path] = ()
    """What it writes beside its rows, without which its cell is none."""
    finished: Callable[[], list[Row] | None] = lambda: None
    """Of what is no cell its rows, where an earlier call measured them and nothing has changed since."""
    told: Callable[[list[Row]], list[Row]] = lambda rows: rows
    """What this call takes of the rows, which a cell may hold more of."""
    after: Callable[[], None] = lambda: None
    """What is cleared away once the rows are kept as a cell."""
    column: str = ""
    """Under which it stands in a table of models; without one it is told beneath the table."""
    kind: str = ""
    """Seconds are in proportion to ``work`` among steps of one kind and model."""
    work: float = 1.0


@dataclass
class Runner:
    """Runs the steps of one call; without a folder nothing is kept, and without a screen nothing told."""

    out: Path | None = None
    """Where ``results.jsonl`` and the cells lie."""
    world: World = ALONE
    screen: Screen = field(default_factory=Screen)
    command: Sequence[str] = ()
    """As it was typed, for ``status.json``; without one there is no such file."""
    clock: Callable[[], float] = time.monotonic
    call: MeasuringCall | None = None
    """What the manifests of the rows say of the call; without one the rows name none."""
    board: Board | None = None
    """Of the last plan; None before there is one, when nothing is told and no status is written."""
    _started: str = field(default_factory=now)
    _trackers: Trackers | None = None

    def run(
        self,
        title: str,
        steps: Sequence[Step],
        *,
        seconds: float | None = None,
        gone: Callable[[Row], bool] = lambda row: False,
    ) -> list[Row]:
        """Measure the steps and return their rows in the order of the plan.

        What earlier calls finished is taken first, all at once. The rows of every step are kept as soon as
        there are any, and all of them in the end; what ``gone`` says of the rows in the file goes then. After
        ``seconds``, or where a step would probably end later, it is left for another call, which all
        processes decide together.
        """
        entries = [Entry(step.model, step.what, step.column, step.kind, step.work) for step in steps]
        board = self.board = Board(title, entries, self.clock)
        self.screen.show(board)
        for step, entry in zip(steps, entries, strict=True):
            if (rows := self._finished(step)) is not None:
                self.keep(rows, gone)
                board.finish(entry, rows)
                self.screen.changed(entry)
        self._note("running")
        for step, entry in zip(steps, entries, strict=True):
            if entry.state == "done":
                continue
            if seconds is not None and self.world.on_main(partial(_too_late, board, entry, seconds)):
                entry.why = "the time was up"
                continue
            self._measure(board, step, entry, gone)
        rows = [row for entry in entries for row in entry.rows]
        self.keep(rows, gone)
        return rows

    def keep(self, rows: Sequence[Row], gone: Callable[[Row], bool] = lambda row: False) -> None:
        """Write rows to ``results.jsonl``, in the place of those that they measure again or that are gone."""
        if self.out is None or not self.world.main:
            return
        path = self.out / "results.jsonl"
        old = [row for row in (read_rows(path, keep=True) if path.exists() else []) if not gone(row)]
        write_rows(path, merge_rows(old, rows))

    def signed(
        self, rows: list[Row], names: Sequence[str], again: Callable[[Row], Mapping[str, Any]]
    ) -> list[Row]:
        """Return rows with the name of the manifest that says how just they are made again."""
        call = self.call
        if call is None:
            return rows
        found = self.world.on_main(lambda: [call.again(names, again(row)) for row in rows])
        return [replace(row, manifest=manifest) for row, manifest in zip(rows, found, strict=True)]

    def track(self, rows: Sequence[Row]) -> None:
        """Tell measured rows to the trackers of ``$LSGM_TRACK``, none of which can end the call."""
        if self.out is None or not self.world.main:
            return
        if self._trackers is None:
            self._trackers = Trackers.open(named([]), self.out, self.out.resolve().name)
        self._trackers.rows([dict(row) for row in rows])

    def end_tracking(self) -> None:
        """Tell the trackers the pictures, the figures and the page that the folder holds, and close them."""
        if self.out is None or not self._trackers:
            return
        pictures = [path for name in ("samples", "figures") for path in listed(self.out / name, "*.png")]
        for path in [*pictures, *listed(self.out, "report.html")]:
            self._trackers.file(path)
        self._trackers.close()

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

    def _finished(self, step: Step) -> list[Row] | None:
        """Return the rows of a step that an earlier call finished, or None."""
        if step.cell is None or self.out is None:
            rows = step.finished()
            return None if rows is None else self.signed(rows, step.names, step.again)
        rows = CellStore(self.out / "cells", self.world).get(step.cell)
        return None if rows is None else step.told(rows)

    def _measure(self, board: Board, step: Step, entry: Entry, gone: Callable[[Row], bool]) -> None:
        board.begin(entry)
        self.screen.changed(entry)
        self._note("running")
        try:
            if step.cell is None or self.out is None:
                rows = self.signed(step.measure(), step.names, step.again)
            else:
                rows = CellStore(self.out / "cells", self.world).rows(
                    step.cell, lambda: self.signed(step.measure(), step.names, step.again), step.files
                )
                self.world.on_main(step.after)
            rows = step.told(rows)
            self.keep(rows, gone)
        except Exception as error:
            entry.state, entry.why = "failed", _sentence(error)
            raise
        board.finish(entry, rows)
        self.screen.changed(entry)
        self._note("running")
        self.track(rows)

    def _note(self, state: CallState, why: str | None = None) -> None:
        if self.command and self.board is not None and self.out is not None:
            entries = self.board.entries
            planned = [Planned(entry.model, entry.measurement, entry.state, entry.why) for entry in entries]
            write_status(self.out, Status(tuple(self.command), state, tuple(planned), why, self._started))


def _too_late(board: Board, entry: Entry, seconds: float) -> bool:
    return board.elapsed + (board.expected(entry) or 0.0) > seconds


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())[:5000]
    if isinstance(error, UserError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# Around a measuring command: signals, the status file's last word, and the report, also after a crash


class Terminated(SystemExit):
    """The process was asked to end (SIGTERM); the exit status is that of a shell, 128 + 15."""

    def __init__(self) -> None:
        super().__init__(143)


@contextlib.contextmanager
def measuring(
    out: Path,
    command: Sequence[str],
    draw: Draw,
    *,
    world: World = ALONE,
    call: MeasuringCall | None = None,
    report: Literal["yes", "no"] = "no",
) -> Iterator[Runner]:
    """Yield the runner of a command that measures into ``out``.

    However the block is left, ``out/status.json`` says how and why once something was planned, and the report
    of what is finished is written where one is wanted; an error goes on its way after that. SIGTERM ends the
    block as Ctrl-C does, with status 143. Processes other than the first one tell and write nothing.
    """
    check_names(named([]))
    if not world.main:
        yield Runner(out, world, call=call)
        return
    runner = Runner(out, world, open_screen(draw), command, call=call)
    try:
        with _terminable(), runner.screen:
            yield runner
    except BaseException as error:
        # The first error is the one to tell of, whatever the disk says to its being noted.
        with contextlib.suppress(UserError):
            runner.close(error)
        if report == "yes" and runner.board is not None:
            write_report(out)
        runner.end_tracking()
        raise
    runner.close(None)
    if report == "yes":
        write_report(out)
    runner.end_tracking()


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
    from lsgm.cli import main  # here: the command line imports no command before it is asked for one

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
        log.warning(f"no report: {reason}")
    else:
        log.info(f"report in {out / 'report.html'} and {out / 'report.md'}")
