"""The stages in the order in which a model runs, and the run itself."""

from __future__ import annotations

import os
from pathlib import Path

from lsgm.conformance.folder import CHECKPOINT, Golden, read_folder
from lsgm.conformance.model import load
from lsgm.conformance.prior_stages import PRIOR
from lsgm.conformance.stages import Result, Tolerances, examine
from lsgm.conformance.step_stages import AVERAGES, GRADIENTS, TIMES
from lsgm.conformance.vae_stages import DECODE, VAE_EVAL
from lsgm.discovery import offers

__all__ = ["FAMILIES", "conform", "conform_folder"]

FAMILIES = (VAE_EVAL, PRIOR, DECODE, TIMES, AVERAGES, GRADIENTS)
"""Eval mode first: the training step moves the running statistics of batch normalisation."""


def conform_folder(folder: Path, tolerances: Tolerances) -> list[Result]:
    """Compare the model in a folder with the values beside it.

    A folder without `checkpoint.pt` is offered to the other importers: a module of the entry-point group
    ``lsgm.importers`` may have ``CHECKPOINT: str``, its file's name, and ``conform(folder, tolerances)``.
    Raises UserError, one sentence, where the folder is of none of them, incomplete or damaged.
    """
    if not os.path.lexists(folder / CHECKPOINT):
        for point in offers("lsgm.importers").values():
            importer = point.load()
            name = getattr(importer, "CHECKPOINT", None)
            if name is not None and os.path.lexists(folder / name):
                results: list[Result] = importer.conform(folder, tolerances)
                return results
    return conform(read_folder(folder), tolerances)


def conform(golden: Golden, tolerances: Tolerances) -> list[Result]:
    """Compare a folder's model with its values; raises UserError where they do not belong together."""
    return examine(golden, load(golden), FAMILIES, tolerances)
