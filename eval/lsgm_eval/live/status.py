"""``status.json`` beside the rows: what a command set out to measure and how far it came."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from lsgm.files.spelt import spelt
from lsgm.files.write import atomic_path
from lsgm_eval.live.board import Entry

__all__ = ["FILE_NAME", "FORMAT", "CallState", "StatusFile"]

FILE_NAME = "status.json"
FORMAT = 1
"""Version of the layout."""

CallState = Literal["running", "finished", "stopped", "failed"]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class StatusFile:
    """The file of one call. It says ``running`` until the call says otherwise, which a killed one cannot."""

    out: Path
    command: Sequence[str]
    started: str = field(default_factory=_now)

    def write(self, state: CallState, entries: Sequence[Entry], why: str | None = None) -> None:
        """Write the file, atomically. Raises DataError where that fails.

        Of what is planned, ``running`` is what was being measured when the file was written: an interrupted
        measurement stays so, since it was begun and goes on where it was.
        """
        planned = [
            {
                "model": spelt(entry.step.model),
                "measurement": entry.step.measurement,
                "state": entry.state,
                "why": entry.why and spelt(entry.why),
            }
            for entry in entries
        ]
        record = {
            "format": FORMAT,
            "command": [spelt(word) for word in self.command],
            "state": state,
            "why": why and spelt(why),
            "started": self.started,
            "updated": _now(),
            "planned": planned,
        }
        with atomic_path(self.out / FILE_NAME) as temporary:
            temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
