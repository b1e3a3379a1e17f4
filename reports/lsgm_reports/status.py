"""``status.json`` beside the rows: what a command set out to measure, and how far it came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lsgm.errors import ConfigError, DataError
from lsgm.files.names import brief, shown
from lsgm.files.text import read_table, record_of
from lsgm_reports.blocks import Block, Bullets, Section, Text
from lsgm_reports.places import present
from lsgm_reports.reproduce.apart import copied

__all__ = ["FILE_NAME", "Planned", "Status", "find_statuses", "not_finished", "read_status"]

FILE_NAME = "status.json"
_FORMAT = 1
_STATES = {
    "running": "was still running when this was written",
    "stopped": "was stopped",
    "failed": "failed",
    "finished": "came to its end",
}
_PLANNED = {"done": "done", "running": "begun", "left": "not begun", "failed": "failed"}
_LONGEST, _MOST = 10_000, 10_000
"""Letters of a text, and measurements or words of a command."""


@dataclass(frozen=True)
class Planned:
    """One measurement of one model."""

    model: str
    measurement: str
    state: str
    """done, running, left or failed."""
    why: str | None = None

    def __post_init__(self) -> None:
        _one_of(self.state, _PLANNED)
        _bounded(self.model, self.measurement, self.why)


@dataclass(frozen=True)
class Status:
    """How a command that measures went."""

    command: tuple[str, ...]
    state: str
    """running, finished, stopped or failed."""
    planned: tuple[Planned, ...]
    why: str | None = None
    updated: str | None = None
    """When this was last so, ISO 8601."""

    def __post_init__(self) -> None:
        _one_of(self.state, _STATES)
        _bounded(*self.command, self.why, self.updated)
        if max(len(self.planned), len(self.command)) > _MOST:
            raise ConfigError(f"it has more than {_MOST:,} measurements, or words of its command")

    @property
    def left(self) -> list[Planned]:
        """What is not done."""
        return [each for each in self.planned if each.state != "done"]

    @property
    def unfinished(self) -> bool:
        """Whether it did not come to its end, or something is missing at its end."""
        return self.state != "finished" or bool(self.left)

    @property
    def typed(self) -> str:
        """The command as one types it, or why none is shown: one from a folder may say anything."""
        found = copied(self.command)
        return f"`{found.line}`" if found.line else f"A command that is not shown ({found.why})"

    @property
    def sentence(self) -> str:
        """What happened, and what finishes it."""
        why = f": {self.why}" if self.why else ""
        when = f" ({self.updated})" if self.updated else ""
        rest = "the same command goes on where it ended"
        if self.left:
            rest = f"{len(self.left)} of {len(self.planned)} measurements are missing; {rest}"
        return f"{self.typed} {_STATES[self.state]}{when}{why}. {rest[:1].upper()}{rest[1:]}."


def find_statuses(folders: Sequence[Path]) -> list[Status]:
    """Return what lies in folders of results, in their order. Raises DataError as `read_status`."""
    return [read_status(path) for folder in folders if present(path := folder / FILE_NAME)]


def read_status(path: Path) -> Status:
    """Return what a status file says.

    Raises DataError naming the file where it is no JSON, of another format, or lacks what it must have.
    """
    given = read_table(path, repair=_REPAIR)
    if given.get("format") != _FORMAT:
        its = brief(given.get("format"))
        raise DataError(
            f"{shown(str(path))}: its format is {its}, and this version reads {_FORMAT}; {_REPAIR}"
        )
    return record_of(Status, given, path, repair=_REPAIR)


_REPAIR = "measure again, or remove the file"


def _one_of(word: str, allowed: dict[str, str]) -> None:
    if word not in allowed:
        raise ConfigError(f"the state is {brief(word)}, not one of {', '.join(allowed)}")


def _bounded(*texts: str | None) -> None:
    for text in texts:
        if text is not None and len(text) > _LONGEST:
            raise ConfigError(
                f"it has a text of {len(text):,} letters, {brief(text)}; at most {_LONGEST:,} are read"
            )


def not_finished(statuses: Sequence[Status]) -> Section | None:
    """Return what is missing of commands that did not come to their end, or None where all did."""
    blocks: list[Block] = []
    for status in statuses:
        if status.unfinished:
            blocks.append(Text(status.sentence))
            lines = [f"{each.model}, {each.measurement}: {_said(each)}" for each in status.left]
            blocks += [Bullets(lines)] if lines else []
    return Section("Not finished", blocks) if blocks else None


def _said(each: Planned) -> str:
    return f"{_PLANNED[each.state]}{f' ({each.why})' if each.why else ''}"
