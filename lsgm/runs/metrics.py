"""metrics.jsonl: one JSON object per logged step, each step once, however often the run was resumed."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lsgm.errors import CheckpointError, ConfigError, UserError
from lsgm.files import write
from lsgm.files.limits import LINES
from lsgm.files.regular import read_bytes
from lsgm.files.text import parse_json
from lsgm.files.write import make_folder

__all__ = ["MetricsLog", "read_metrics", "tensorboard_writer"]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics file; a last line torn by a kill, and what else is no row, are left out.

    A row has a step that is a whole number and a stage that is a text; its other values are numbers, texts or
    None. Raises DataError for a file that cannot be read, or is too large.
    """
    if not os.path.lexists(path):
        return []
    rows: list[dict[str, Any]] = []
    for line in _lines(read_bytes(path, LINES)):
        try:
            row = parse_json(line, path)
        except UserError:
            continue
        if _is_row(row):
            rows.append(row)
    return rows


def _lines(content: bytes) -> Iterator[bytes]:
    """Yield the lines, of which one may be no text where a disk or a kill has damaged it."""
    return (line for line in content.split(b"\n") if line.strip())


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or type(row.get("step")) is not int or row["step"] < 0:
        return False
    if not isinstance(row.get("stage", ""), str):
        return False
    return all(value is None or isinstance(value, str | int | float) for value in row.values())


class MetricsLog:
    """Appends rows; on opening drops those after `step`, which the resumed run is about to write again."""

    def __init__(self, path: Path, step: int, *, tensorboard: bool = False) -> None:
        self._path = path
        self._board: Any = tensorboard_writer(path.parent / "tensorboard", step) if tensorboard else None
        try:
            kept = [row for row in read_metrics(path) if row["step"] <= step]
            write.replace_file(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
            self._file = write.open_append(path)
        except OSError as error:
            raise self._failed(error) from error

    def write(self, row: dict[str, Any]) -> None:
        """Append one row, at least ``step`` and ``stage``; numbers that are not finite become null."""
        clean = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        try:
            line = (json.dumps(clean) + "\n").encode()
            if self._file.write(line) != len(line):  # a full disk takes what it has room for
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise self._failed(error) from error
        try:
            for key, value in clean.items() if self._board is not None else ():
                if isinstance(value, int | float) and key != "step":
                    self._board.add_scalar(f"{row['stage']}/{key}", value, row["step"])
        except OSError as error:
            raise self._failed(error, self._path.parent / "tensorboard") from error

    def sync(self) -> None:
        """Wait until the rows are on the disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Close the file and the TensorBoard writer.

        Every row was flushed when it was written, and a failure told then: what closing says of it once more
        must not stand in the place of that.
        """
        with contextlib.suppress(OSError):
            self._file.close()
        if self._board is not None:
            with contextlib.suppress(OSError):
                self._board.close()

    def _failed(self, error: OSError, path: Path | None = None) -> CheckpointError:
        return CheckpointError(
            f"{path or self._path} could not be written ({error.strerror or error}); "
            f"the checkpoints are intact: {write.remedy(error)}, then run the same command again"
        )


def tensorboard_writer(directory: Path, step: int) -> Any:
    """Return a TensorBoard writer that goes on after `step`. Raises ConfigError where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "TensorBoard is not installed; run: python -m pip install 'lsgm-bench[tensorboard]', "
            "or train without it (metrics.jsonl holds the same numbers)"
        ) from error
    return SummaryWriter(str(make_folder(directory)), purge_step=step + 1)
