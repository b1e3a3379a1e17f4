"""What a call measures, how far it is, and how long the rest may take: what a screen shows of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from lsgm.progress import Progress
from lsgm.results import Row
from lsgm.results.status import State

__all__ = ["Board", "Entry"]


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
