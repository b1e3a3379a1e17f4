"""Around a measuring command: signals, the status file's last word, and the report, also after a crash."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Literal

from lsgm.errors import UserError
from lsgm_eval.live.board import Board
from lsgm_eval.live.journal import Journal, Terminated
from lsgm_eval.live.screen import open_screen
from lsgm_eval.live.status import StatusFile

__all__ = ["measuring", "write_report"]


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
