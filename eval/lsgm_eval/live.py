"""What a call measures and how far it is: a table redrawn on a terminal, elsewhere a line for each result."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self, TextIO

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lsgm.logs import log
from lsgm.progress import Progress, listening, silent
from lsgm.results import Row
from lsgm.results.row import pareto_front
from lsgm.results.status import State

HEADLINE = ("quality", "curve", "likelihood")
"""Groups of rows that a measurement is known by; costs and terms stand beside them."""


@dataclass
class Entry:
    """One measurement that is planned, and what has become of it."""

    model: str
    measurement: str
    column: str = ""
    """Under which it stands in a table of models; without one it is told beneath the table."""
    kind: str = ""
    work: float = 1.0
    """How much there is to do; seconds are in proportion to it among measurements of one kind and model."""
    state: State = "left"
    rows: list[Row] = field(default_factory=list)
    begun: float = 0.0
    seconds: float | None = None
    """Spent by this call; None for what is not measured, and for what an earlier call measured."""
    why: str | None = None


@dataclass
class Board:
    """All entries of a call, in the order in which they are planned."""

    title: str
    entries: list[Entry]
    clock: Callable[[], float] = time.monotonic
    begun: float = field(init=False)
    progress: Progress | None = None
    """Of what runs now, as its bar would show it."""
    _seen: tuple[str, float, float] | None = None
    """Title of that bar, and when which share was first seen: what an earlier call did took no time."""

    def __post_init__(self) -> None:
        self.begun = self.clock()

    @property
    def done(self) -> list[Entry]:
        """What is finished."""
        return [entry for entry in self.entries if entry.state == "done"]

    @property
    def left(self) -> list[Entry]:
        """What is not finished, what runs now included."""
        return [entry for entry in self.entries if entry.state != "done"]

    @property
    def elapsed(self) -> float:
        """Seconds since the call began."""
        return self.clock() - self.begun

    def begin(self, entry: Entry) -> None:
        """Note that an entry is being measured."""
        entry.state, entry.begun = "running", self.clock()
        self.progress = self._seen = None

    def finish(self, entry: Entry, rows: Iterable[Row]) -> None:
        """Note an entry's rows; one that was not begun comes from an earlier call."""
        if entry.state == "running":
            entry.seconds = self.clock() - entry.begun
        entry.state, entry.rows = "done", list(rows)
        self.progress = self._seen = None

    def watch(self, progress: Progress) -> None:
        """Note what a progress bar would show."""
        self.progress = progress
        if self._seen is None or self._seen[0] != progress.title:
            self._seen = (progress.title, self.clock(), progress.share)

    def expected(self, entry: Entry) -> float | None:
        """Return the seconds that it may take by the rate of its kind, of its own model where known."""
        alike = [each for each in self.entries if each.kind == entry.kind and each.seconds is not None]
        known = [each for each in alike if each.model == entry.model] or alike
        work = sum(each.work for each in known)
        return entry.work * sum(each.seconds or 0.0 for each in known) / work if work else None

    def seconds_left(self) -> tuple[float, bool] | None:
        """Return the seconds that what is left may take, and whether that is all of it.

        Of entries whose kind was not measured yet nothing is known; None where that is so of all of them.
        """
        known = [self._remaining(entry) for entry in self.left]
        told = [seconds for seconds in known if seconds is not None]
        return (sum(told), len(told) == len(known)) if told else None

    def _remaining(self, entry: Entry) -> float | None:
        if entry.state != "running":
            return self.expected(entry)
        if self._seen is not None and self.progress is not None and self.progress.share > self._seen[2]:
            _, since, first = self._seen
            return (1 - self.progress.share) * (self.clock() - since) / (self.progress.share - first)
        expected = self.expected(entry)
        return None if expected is None else max(0.0, expected - (self.clock() - entry.begun))


# Words of a measurement


def duration(seconds: float) -> str:
    """Return ``8 s``, ``3 min 05 s`` or ``2 h 07 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def with_error(value: float, low: float | None, high: float | None) -> str:
    """Return ``12.3 ± 0.4``: half of the interval to two digits, and the value to the same decimal place.

    Without an interval, or with one of no width, four digits stand alone.
    """
    half = 0.0 if low is None or high is None else (high - low) / 2
    if not 0 < half < math.inf:
        return f"{value:.4g}"
    decimals = max(0, 1 - math.floor(math.log10(half)))
    return f"{value:.{decimals}f} ± {half:.{decimals}f}"


def _value_words(row: Row) -> str:
    return "not measured" if row.value is None else with_error(row.value, row.ci_low, row.ci_high)


def count_words(row: Row) -> str:
    """Return how many images a row is of, ``1000 of 50000`` where these are not all; nothing if unknown."""
    n, n_of = row.n, row.n_of
    return "" if n is None else f"{n}" if n_of is None else f"{n} of {n_of}"


def headline(rows: Sequence[Row]) -> Row | None:
    """Return the row that a measurement is known by: its first one with a value, else its first one."""
    known = [row for row in rows if row.group in HEADLINE] or list(rows)
    return next((row for row in known if row.value is not None), known[0] if known else None)


def measured_line(board: Board, entry: Entry) -> str:
    """Return one line on a finished measurement, for a log."""
    earlier = ["measured before"] if any(row.value is not None for row in entry.rows) else []
    parts = earlier if entry.seconds is None else [duration(entry.seconds)]
    if left := len(board.left):
        parts += [f"{left} left", _time_left(board).removesuffix(" left")]
    beside = "; ".join(filter(None, (_told(entry), ", ".join(filter(None, parts)))))
    return f"[{len(board.done)}/{len(board.entries)}] {entry.model} {entry.measurement}: {beside}"


def _told(entry: Entry) -> str:
    """Return a measurement's headline with the evaluations and the time of an image where it drew any."""
    row = headline(entry.rows)
    if row is None:
        return "nothing to measure"
    cost = ""
    if row.group == "curve" and row.nfe_mean is not None and row.seconds is not None and row.n:
        cost = f"{row.nfe_mean:.4g} NFE, {1e3 * row.seconds / row.n:.3g} ms/image, "
    why = f" ({row.note})" if row.value is None and row.note else ""
    return f"{cost}{row.metric} {_value_words(row)}{why}"


# What both tables share: what runs, how much is done, for how long, and how long it may still take


def _head(board: Board, width: int) -> list[str]:
    done = f"{len(board.done)} of {len(board.entries)} done, {duration(board.elapsed)}"
    progress = ", ".join(filter(None, (done, _time_left(board))))
    whole = f"{board.title}: {progress}"
    if cell_len(whole) <= width:
        return [whole]
    return [board.title, *([progress] if cell_len(progress) <= width else [done, _time_left(board)])]


def _time_left(board: Board) -> str:
    """Return ``about 3 min 05 s left``, ``at least`` where the rate of something is not known, or nothing."""
    found = board.seconds_left()
    return f"{'about' if found[1] else 'at least'} {duration(found[0])} left" if found else ""


def _running_words(board: Board, entry: Entry) -> str:
    """Return the share and the seconds of what is measured now."""
    share = f"{100 * board.progress.share:.0f} %, " if board.progress is not None else ""
    return f"{share}{duration(board.clock() - entry.begun)}"


def _line(text: str) -> Text:
    """Return a line that is cut where it is too long.

    What a terminal would not print but obey, as an escape within a model's name, becomes a question mark.
    """
    text = text[:1000]  # no terminal is wider, and a name may have any length
    plain = "".join(letter if letter.isprintable() else "?" for letter in text)
    return Text(plain, no_wrap=True, overflow="ellipsis")


def _columns(lines: Sequence[Sequence[str]]) -> Table:
    """Return lines of cells in columns, two blanks apart."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for _ in lines[0] if lines else ():
        table.add_column(no_wrap=True, overflow="ellipsis")
    for line in lines:
        table.add_row(*map(_line, line))
    return table


def _width(lines: Sequence[Sequence[str]]) -> int:
    """Return how wide the lines are as columns."""
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    return sum(widths) + 2 * (len(widths) - 1)


def _shown(
    board: Board, width: int, above: Sequence[RenderableType], beside: Sequence[RenderableType] = ()
) -> Group:
    """Return a board's head, what is shown of it, and what its bar would show."""
    foot = [_line(f"{board.progress.title}: {board.progress.text}")] if board.progress else []
    return Group(*map(_line, _head(board, width)), *above, *beside, *foot)


# The table of a running evaluation: models down, measurements across


def measurement_table(board: Board, width: int) -> Group:
    """Return a table that ``width`` columns hold.

    A measurement is waiting, running with its share and its seconds, or a value with half of its interval.
    Where the table is too wide the measurements of a model stand one below the other.
    """
    columns = list(dict.fromkeys(entry.column for entry in board.entries if entry.column))
    models = list(dict.fromkeys(entry.model for entry in board.entries if entry.column))
    titles = [_title([entry for entry in board.entries if entry.column == column]) for column in columns]
    words = [
        [_cell_words(board, [e for e in board.entries if (e.model, e.column) == (m, c)]) for c in columns]
        for m in models
    ]
    lines = [["model", *titles], *([model, *line] for model, line in zip(models, words, strict=True))]
    table: list[RenderableType] = [_columns(lines)]
    if _width(lines) > width:
        table = []
        for model, line in zip(models, words, strict=True):
            cells = [("", title, cell) for title, cell in zip(titles, line, strict=True) if cell]
            table += [_line(model), _columns(cells)]
    return _shown(board, width, table, [_line(text) for text in _beside(board)])


def _title(entries: Sequence[Entry]) -> str:
    """Return the metric that a column's values are of, as soon as there is one."""
    if len({entry.measurement for entry in entries}) > 1:
        return entries[0].column
    rows = [headline(entry.rows) for entry in entries]
    return next((str(row.metric) for row in rows if row is not None), entries[0].column)


def _cell_words(board: Board, entries: Sequence[Entry]) -> str:
    """Return what stands in a cell: of several measurements how many are done."""
    if not entries:
        return ""
    running = next((entry for entry in entries if entry.state == "running"), None)
    if len(entries) == 1:
        (entry,) = entries
        row = headline(entry.rows)
        waits = {"left": "waiting", "failed": "failed", "done": "nothing to measure", "running": ""}
        return _value_words(row) if row else _running_words(board, entry) if running else waits[entry.state]
    done = f"{sum(entry.state == 'done' for entry in entries)}/{len(entries)}"
    failed = ["failed"] * any(entry.state == "failed" for entry in entries)
    return ", ".join([done, *([_running_words(board, running)] if running else []), *failed])


def _beside(board: Board) -> list[str]:
    """Return a line for what is of no single model: the differences of pairs."""
    entries = [entry for entry in board.entries if not entry.column]
    if not entries:
        return []
    running = next((entry for entry in entries if entry.state == "running"), None)
    now = f", now {running.model}: {_running_words(board, running)}" if running else ""
    done = sum(entry.state == "done" for entry in entries)
    return [f"differences of pairs: {done} of {len(entries)}{now}"]


# The table of a running sweep: how far each model is, its best point, and the front of all points so far


def sweep_table(board: Board, width: int) -> Group:
    """Return two tables of ``width`` columns: models with their points, and the front over the evaluations.

    The front holds the points that no other one, of any model, equals or beats in both evaluations and
    quality. Where a table is too wide its last columns are left out.
    """
    models = list(dict.fromkeys(entry.model for entry in board.entries))
    lines = [("model", "points", "best so far", "at", "now"), *(_progress(board, model) for model in models)]
    rows = [row for entry in board.done if (row := headline(entry.rows))]
    below: list[RenderableType] = []
    if front := _front(rows):
        title = _line(f"front so far, {rows[0]['metric']}:")
        below = [title, _columns(_fitted([("NFE", "model", "sampler", "value"), *front], width))]
    return _shown(board, width, [_columns(_fitted(lines, width))], below)


def _progress(board: Board, model: str) -> tuple[str, ...]:
    mine = [entry for entry in board.entries if entry.model == model]
    rows = [row for entry in mine if (row := headline(entry.rows)) and row.value is not None]
    best = min(rows, key=lambda row: row.loss, default=None)
    done = f"{sum(entry.state == 'done' for entry in mine)}/{len(mine)}"
    return (
        model,
        done,
        *((_value_words(best), best.sampler or "") if best else ("", "")),
        _now(board, mine),
    )


def _now(board: Board, entries: list[Entry]) -> str:
    for entry in entries:
        if entry.state == "running":
            return f"{entry.measurement} {_running_words(board, entry)}"
        if entry.state == "failed":
            return f"{entry.measurement} failed"
    return "waiting" if any(entry.state == "left" for entry in entries) else "done"


def _front(rows: list[Row]) -> list[tuple[str, ...]]:
    known = [row for row in rows if row.value is not None and row.nfe_mean is not None]
    numbers = pareto_front([row.nfe_mean or 0.0 for row in known], [row.loss for row in known])
    return [
        (f"{row.nfe_mean:.4g}", row.model, row.sampler or "", _value_words(row))
        for row in (known[number] for number in numbers)
    ]


def _fitted(lines: list[tuple[str, ...]], width: int) -> list[tuple[str, ...]]:
    """Return lines without their last cells where they are too wide: what is first says most."""
    fitting = range(len(lines[0]), 2, -1)
    count = next((count for count in fitting if _width([line[:count] for line in lines]) <= width), 2)
    return [line[:count] for line in lines]


# Where progress is shown: a table redrawn in place on a terminal, a line per measurement elsewhere

Draw = Callable[[Board, int], RenderableType]


class Screen:
    """Shows a board, this one nothing of it; a context that is left when nothing more is measured."""

    _board: Board | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def show(self, board: Board) -> None:
        """Begin to show a board."""
        self._board = board

    def changed(self, entry: Entry) -> None:
        """Show that an entry was begun, or is finished."""


def open_screen(draw: Draw) -> Screen:
    """Return this process's screen: none where LSGM_PROGRESS=0, and on every process but the first."""
    if silent():
        return Screen()
    obeys = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return Terminal(sys.stderr, draw) if obeys else Lines()


class Lines(Screen):
    """Writes a plain line to standard error for each finished measurement."""

    def changed(self, entry: Entry) -> None:
        """Tell of an entry that is finished."""
        if self._board is not None and entry.state == "done":
            log.info(measured_line(self._board, entry))


class Terminal(Screen):
    """Draws the table in place; what anybody else prints meanwhile scrolls by above it.

    Progress bars draw nothing while it is shown: what they would show is told to the board.
    """

    def __init__(self, stream: TextIO, draw: Draw) -> None:
        self._console = Console(
            file=stream, force_terminal=True, color_system=None, markup=False, emoji=False, highlight=False
        )
        self._draw = draw
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
        super().show(board)
        self._live.refresh()

    def changed(self, entry: Entry) -> None:
        """Draw the board anew."""
        self._live.refresh()

    def _watch(self, progress: Progress) -> None:
        if self._board is not None:
            self._board.watch(progress)

    def _drawn(self) -> RenderableType:
        return self._draw(self._board, self._console.width) if self._board is not None else Group()
