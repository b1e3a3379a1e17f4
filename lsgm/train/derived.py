"""Runs that no training made: one finished checkpoint in a directory that appears whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lsgm.errors import CheckpointError, ConfigError
from lsgm.files import write
from lsgm.files.shown import shown
from lsgm.kinds import recipe_from
from lsgm.train.checkpoint import save_checkpoint
from lsgm.train.rundir import Run

__all__ = ["refuse_existing", "write_derived_run"]


def refuse_existing(out: Path) -> None:
    """Raise CheckpointError where something, be it a dead link, is in the way of the directory to write."""
    try:
        out.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise CheckpointError(
            f"{shown(str(out))} cannot be written ({why}); give another directory"
        ) from None
    raise CheckpointError(
        f"{shown(str(out))} exists already; give a directory that does not, or remove it first"
    )


def write_derived_run(
    out: Path,
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    raw: Mapping[str, Tensor],
    ema: Mapping[str, Tensor],
    *,
    seed: int,
    dataset: Mapping[str, Any],
    argv: Sequence[str],
) -> Path:
    """Write ``out`` with config, manifest and one checkpoint without optimisers; return the checkpoint.

    ``state`` is the checkpoint's, which says where it comes from in its ``meta``. Raises CheckpointError
    where the directory exists or cannot be written; then nothing of it is there.
    """
    refuse_existing(out)
    _check(config)
    try:
        with write.directory(out) as temporary:
            run = Run(temporary)
            run.start(config, seed=seed, dataset=dataset, argv=argv)
            saved = save_checkpoint(run.checkpoints, state, raw, ema, {})
            (temporary / ".lock").unlink(missing_ok=True)
    except (OSError, CheckpointError, ConfigError) as error:
        # What is said of a run's files names the temporary folder that they were to lie in.
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        raise CheckpointError(
            f"{shown(str(out))} could not be written ({cause.strerror or cause}); {write.remedy(cause)} or "
            "choose another place"
        ) from error
    return out / saved.relative_to(temporary)


def _check(config: Mapping[str, Any]) -> None:
    """Raise CheckpointError for a recipe that no other command would read, before any of it is written."""
    try:
        recipe_from(config, "its settings")
    except ConfigError as error:
        raise CheckpointError(f"the model cannot be written as a run: {error}") from None
