"""Where progress is shown: a table redrawn in place on a terminal, a line per measurement elsewhere."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TextIO

from lsgm.files.names import shown
from lsgm_eval.live.board import Board, Entry
from lsgm_eval.live.table import columns_of, measured_line

__all__ = ["Lines", "Nothing", "Screen", "Terminal", "open_screen"]

Draw = Callable[[Board, int], list[str]]

BAR = re.compile(r"\s*(?P<title>.*?):?\s+(?P<share>\d+)%\|[^|]*\|\s*(?P<rest>.*?)\s*$")
"""A bar as tqdm draws it, ``lsgm: samples:  40%|███▌ | 400/1000 [00:10<00:15, 39.1image/s]``."""

ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
ERASE_BELOW = "\x1b[J"
TICK = 0.5
"""Seconds between two drawings while nothing else happens."""


class Screen(Protocol):
    """Shows a board; a context that is left when nothing more is measured."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def show(self, board: Board) -> None:
        """Begin to show a board."""

    def changed(self, entry: Entry) -> None:
        """Show that an entry was begun, or is finished."""


def open_screen(draw: Draw) -> Screen:
    """Return this process's screen: none where LSGM_PROGRESS=0, and on every process but the first."""
    if os.environ.get("LSGM_PROGRESS") == "0" or os.environ.get("RANK", "0") != "0":
        return Nothing()
    obeys = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return Terminal(sys.stderr, draw) if obeys else Lines()


class Nothing:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, board: Board) -> None:
        """Show nothing."""

    def changed(self, entry: Entry) -> None:
        """Show nothing."""


class Lines(Nothing):
    """Writes a plain line to standard error for each finished measurement."""

    _board: Board | None = None

    def show(self, board: Board) -> None:
        """Begin to tell of a board."""
        self._board = board

    def changed(self, entry: Entry) -> None:
        """Tell of an entry that is finished."""
        if self._board is not None and entry.state == "done":
            print(f"lsgm: {shown(measured_line(self._board, entry))}", file=sys.stderr, flush=True)


class Terminal:
    """Draws the table in place; what anybody else prints meanwhile scrolls by above it.

    While it is shown standard error, and standard output where that is the terminal too, are replaced:
    lines go above the table, and a progress bar becomes the share of the running measurement.
    """

    def __init__(self, stream: TextIO, draw: Draw) -> None:
        self._stream, self._draw = stream, draw
        self._lock = threading.RLock()
        self._board: Board | None = None
        self._drawn: list[str] = []
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="lsgm-table", daemon=True)
        self._guards: dict[str, _Guard] = {}

    def __enter__(self) -> Self:
        for name in ("stderr", "stdout"):
            stream: TextIO = getattr(sys, name)
            if stream is self._stream or stream.isatty():
                self._guards[name] = _Guard(stream, self._above, self._bar)
                setattr(sys, name, self._guards[name])
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._ticker.join()
        for name, guard in self._guards.items():
            guard.close_line()
            if getattr(sys, name) is guard:
                setattr(sys, name, guard.stream)
        if self._board is not None:
            self._board.bar = ""
        self._redraw()
        self._drawn = []

    def show(self, board: Board) -> None:
        """Begin to draw a board."""
        with self._lock:
            self._board = board
        self._redraw()

    def changed(self, entry: Entry) -> None:
        """Draw the board anew."""
        self._redraw()

    def _tick(self) -> None:
        while not self._over.wait(TICK):
            self._redraw()

    def _redraw(self) -> None:
        with self._lock:
            if self._board is None:
                return
            width, height = shutil.get_terminal_size((80, 24))
            lines = self._draw(self._board, max(width - 1, 20))
            room = max(height - 2, 3)
            if len(lines) > room:
                lines = [*lines[: room - 1], f"... {len(lines) - room + 1} more lines"]
            self._put(self._erasure(width) + "".join(f"{line}\n" for line in lines))
            self._drawn = lines

    def _erasure(self, width: int) -> str:
        """Return what takes the cursor to where the table begins, and wipes it; lines may be wrapped."""
        rows = sum(max(1, -(-columns_of(line) // width)) for line in self._drawn)
        return f"\r\x1b[{rows}A{ERASE_BELOW}" if rows else ""

    def _above(self, stream: TextIO, text: str) -> None:
        """Print a line where the table begins, and the table below it."""
        with self._lock:
            self._put(self._erasure(shutil.get_terminal_size((80, 24)).columns))
            self._drawn = []
            stream.write(text)
            stream.flush()
        self._redraw()

    def _bar(self, text: str) -> None:
        with self._lock:
            if self._board is not None and (found := BAR.match(text)):
                title, share = found["title"], int(found["share"]) / 100
                self._board.watch(title, share, f"{title}: {found['rest']}")

    def _put(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class _Guard(io.TextIOBase):
    """A stream in the place of a terminal's: whole lines go to ``above``, what a bar draws to ``bar``."""

    def __init__(
        self, stream: TextIO, above: Callable[[TextIO, str], None], bar: Callable[[str], None]
    ) -> None:
        self.stream, self._above, self._bar = stream, above, bar
        self._pending = ""
        self._lock = threading.RLock()

    def write(self, text: str, /) -> int:
        """Take text; what a carriage return begins is a bar's, and blank lines are its way down."""
        with self._lock:
            *ended, begun = ESCAPE.sub("", text).replace("\r\n", "\n").split("\n")
            for piece in ended:
                self._take(piece)
                self.close_line()
            self._take(begun)
        return len(text)

    def _take(self, piece: str) -> None:
        if "\r" in piece:
            self._bar(piece.rstrip("\r").rpartition("\r")[2])
        else:
            self._pending += piece

    def close_line(self) -> None:
        """Print what was written since the last line feed."""
        line, self._pending = self._pending, ""
        if line.strip():
            self._above(self.stream, f"{line}\n")

    def flush(self) -> None:
        """Do nothing: whole lines are flushed as they come."""

    def isatty(self) -> bool:
        """Whether the stream is a terminal: as the one behind it."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """The number of the stream behind it, by which a bar finds the terminal's width."""
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream behind it, by which a bar knows which blocks it may draw."""
        return self.stream.encoding

    def writable(self) -> bool:
        """It is."""
        return True
