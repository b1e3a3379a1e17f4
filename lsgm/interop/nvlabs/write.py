"""Write an imported model as a run directory, whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lsgm.interop.nvlabs.convert import Native
from lsgm.interop.nvlabs.read import Official
from lsgm.models.load import checkpoint_meta
from lsgm.structure import to_dict
from lsgm.train.derived import write_derived_run
from lsgm.train.position import Position

__all__ = ["write_run"]


def write_run(
    out: Path, official: Official, native: Native, source: dict[str, Any], argv: Sequence[str]
) -> Path:
    """Write ``out`` with config, manifest and one checkpoint; return the checkpoint's directory.

    ``source`` says where the model comes from and goes into the checkpoint's meta under ``imported``. Raises
    CheckpointError where the directory exists or cannot be written; then nothing is there.
    """
    stage = "stage1" if official.prior is None else "stage2"
    dataset = native.recipe.data.dataset
    # Nothing can go on from here: the authors' optimisers are not translated.
    position = Position(
        step=official.step, stage=stage, stage_step=official.step, stage_done=True, finished=True
    )
    meta = {**checkpoint_meta(native.recipe, native.pixels, dataset), "imported": source}
    state = {**position.as_dict(), "ema_updates": official.step, "meta": meta}
    return write_derived_run(
        out,
        to_dict(native.recipe),
        state,
        native.raw,
        native.ema,
        seed=native.recipe.seed,
        dataset={"name": dataset},
        argv=argv,
    )
