"""metrics.jsonl: one JSON object per logged step, each step once, however often the run was resumed."""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any

from lsgm.errors import CheckpointError, ConfigError
from lsgm.files import write

__all__ = ["MetricsLog", "read_metrics", "tensorboard_writer"]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics file; a last line torn by a kill is left out."""
    rows: list[dict[str, Any]] = []
    if path.exists():
        for line in path.read_bytes().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and "step" in row:
                rows.append(row)
    return rows


class MetricsLog:
    """Appends rows; on opening drops those after `step`, which the resumed run is about to write again."""

    def __init__(self, path: Path, step: int, *, tensorboard: bool = False) -> None:
        self._path = path
        self._board: Any = tensorboard_writer(path.parent / "tensorboard", step) if tensorboard else None
        try:
            kept = [row for row in read_metrics(path) if row["step"] <= step]
            write.replace_file(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise self._failed(error) from error

    def write(self, row: dict[str, Any]) -> None:
        """Append one row, at least ``step`` and ``stage``; numbers that are not finite become null."""
        clean = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        try:
            self._file.write(json.dumps(clean) + "\n")
            self._file.flush()
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
            "the checkpoints are intact: make room, then run the same command again"
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
    return SummaryWriter(str(directory), purge_step=step + 1)
