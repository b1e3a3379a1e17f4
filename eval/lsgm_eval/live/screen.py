"""Where progress is shown: a table redrawn in place on a terminal, a line per measurement elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Protocol, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live

from lsgm.files.names import shown
from lsgm.progress import Progress, listening, silent
from lsgm_eval.live.board import Board, Entry
from lsgm_eval.live.table import measured_line

__all__ = ["Draw", "Lines", "Nothing", "Screen", "Terminal", "open_screen"]

Draw = Callable[[Board, int], RenderableType]


class Screen(Protocol):
    """Shows a board; a context that is left when nothing more is measured."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    def show(self, board: Board) -> None:
        """Begin to show a board."""

    def changed(self, entry: Entry) -> None:
        """Show that an entry was begun, or is finished."""


def open_screen(draw: Draw) -> Screen:
    """Return this process's screen: none where LSGM_PROGRESS=0, and on every process but the first."""
    if silent():
        return Nothing()
    obeys = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return Terminal(sys.stderr, draw) if obeys else Lines()


class Nothing:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
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

    Progress bars draw nothing while it is shown: what they would show is told to the board.
    """

    def __init__(self, stream: TextIO, draw: Draw) -> None:
        self._console = Console(
            file=stream, force_terminal=True, color_system=None, markup=False, emoji=False, highlight=False
        )
        self._draw = draw
        self._board: Board | None = None
        self._over = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._live = self._over.enter_context(
            Live(
                console=self._console,
                get_renderable=self._drawn,
                refresh_per_second=2,
                # Rows that go to a file are no concern of the terminal.
                redirect_stdout=sys.stdout.isatty(),
            )
        )
        self._over.enter_context(listening(self._watch))
        return self

    def __exit__(self, *error: object) -> None:
        if self._board is not None:
            self._board.progress = None
        self._over.close()

    def show(self, board: Board) -> None:
        """Begin to draw a board."""
        self._board = board
        self._live.refresh()

    def changed(self, entry: Entry) -> None:
        """Draw the board anew."""
        self._live.refresh()

    def _watch(self, progress: Progress) -> None:
        if self._board is not None:
            self._board.watch(progress)

    def _drawn(self) -> RenderableType:
        return self._draw(self._board, self._console.width) if self._board is not None else Group()
