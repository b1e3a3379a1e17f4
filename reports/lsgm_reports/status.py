"""``status.json`` beside the rows: what a command set out to measure, and how far it came."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsgm.errors import DataError
from lsgm_reports.blocks import Block, Bullets, Section, Text
from lsgm_reports.reproduce.copied import copied

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


@dataclass(frozen=True)
class Planned:
    """One measurement of one model."""

    model: str
    measurement: str
    state: str
    """done, running, left or failed."""
    why: str | None = None


@dataclass(frozen=True)
class Status:
    """How a command that measures went."""

    command: tuple[str, ...]
    state: str
    """running, finished, stopped or failed."""
    planned: tuple[Planned, ...]
    why: str | None = None
    updated: str = ""
    """When this was last so, ISO 8601."""

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
    return [read_status(path) for folder in folders if (path := folder / FILE_NAME).is_file()]


def read_status(path: Path) -> Status:
    """Return what a status file says.

    Raises DataError naming the file where it is no JSON, of another format, or lacks what it must have.
    """
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        if given["format"] != _FORMAT:
            raise _wrong(path, f"its format is {given['format']!r}, and this version reads {_FORMAT}")
        planned = tuple(_planned(path, each) for each in given["planned"])
        command = tuple(str(word) for word in given["command"])
        state = _one_of(path, given["state"], _STATES)
        return Status(command, state, planned, given.get("why"), str(given.get("updated") or ""))
    except (OSError, ValueError) as error:
        raise _wrong(path, str(error)) from None
    except KeyError as error:
        raise _wrong(path, f"the key {error} is missing") from None
    except (TypeError, AttributeError):
        raise _wrong(path, "it is not made as `lsgm eval` makes it") from None


def _planned(path: Path, given: Any) -> Planned:
    state = _one_of(path, given["state"], _PLANNED)
    return Planned(str(given["model"]), str(given["measurement"]), state, given.get("why"))


def _one_of(path: Path, word: Any, allowed: dict[str, str]) -> str:
    if word not in allowed:
        raise _wrong(path, f"the state is {word!r}, not one of {', '.join(allowed)}")
    return str(word)


def _wrong(path: Path, what: str) -> DataError:
    return DataError(f"cannot read {path}: {what}; measure again, or remove the file")


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
