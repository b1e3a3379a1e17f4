"""``status.json`` beside the rows: what a command set out to measure, and how far it came."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from lsgm.errors import ConfigError, DataError
from lsgm.files.names import brief, shown, spelt
from lsgm.files.regular import present
from lsgm.files.text import read_table, record_of
from lsgm.files.write import atomic_path

FILE_NAME = "status.json"
_FORMAT = 1
_REPAIR = "measure again, or remove the file"

CallState = Literal["running", "finished", "stopped", "failed"]
"""Of a call. It says ``running`` until the call says otherwise, which a killed one cannot."""
State = Literal["left", "running", "done", "failed"]
"""Of a measurement. ``running`` is what was being measured when the file was written: an interrupted
measurement stays so, since it was begun and goes on where it was."""

_ENDS = {
    "running": "was still running when this was written",
    "stopped": "was stopped",
    "failed": "failed",
    "finished": "came to its end",
}
_STATES = {"done": "done", "running": "begun", "left": "not begun", "failed": "failed"}
_LONGEST, _MOST = 10_000, 10_000
"""Letters of a text, and measurements or words of a command."""


@dataclass(frozen=True)
class Planned:
    """One measurement of one model."""

    model: str
    measurement: str
    state: str
    """A `State`."""
    why: str | None = None

    def __post_init__(self) -> None:
        _one_of(self.state, _STATES)
        _bounded(self.model, self.measurement, self.why)

    @property
    def said(self) -> str:
        """What has become of it."""
        return f"{_STATES[self.state]}{f' ({self.why})' if self.why else ''}"


@dataclass(frozen=True)
class Status:
    """How a command that measures went."""

    command: tuple[str, ...]
    state: str
    """A `CallState`."""
    planned: tuple[Planned, ...]
    why: str | None = None
    started: str | None = None
    updated: str | None = None
    """When this was last so, ISO 8601."""

    def __post_init__(self) -> None:
        _one_of(self.state, _ENDS)
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
    def outcome(self) -> str:
        """What happened, and what finishes it: a sentence whose subject, the command, is to be put before."""
        why = f": {self.why}" if self.why else ""
        when = f" ({self.updated})" if self.updated else ""
        rest = "the same command goes on where it ended"
        if self.left:
            rest = f"{len(self.left)} of {len(self.planned)} measurements are missing; {rest}"
        return f"{_ENDS[self.state]}{when}{why}. {rest[:1].upper()}{rest[1:]}."


def now() -> str:
    """Return the time, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_status(folder: Path, status: Status) -> None:
    """Write the file of a call, as of now, atomically. Raises DataError where that fails."""
    record = {
        "format": _FORMAT,
        "command": [spelt(word) for word in status.command],
        "state": status.state,
        "why": status.why and spelt(status.why),
        "started": status.started,
        "updated": now(),
        "planned": [
            asdict(each) | {"model": spelt(each.model), "why": each.why and spelt(each.why)}
            for each in status.planned
        ],
    }
    with atomic_path(folder / FILE_NAME) as temporary:
        temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


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


def _one_of(word: str, allowed: Iterable[str]) -> None:
    if word not in allowed:
        raise ConfigError(f"the state is {brief(word)}, not one of {', '.join(allowed)}")


def _bounded(*texts: str | None) -> None:
    for text in texts:
        if text is not None and len(text) > _LONGEST:
            raise ConfigError(
                f"it has a text of {len(text):,} letters, {brief(text)}; at most {_LONGEST:,} are read"
            )
