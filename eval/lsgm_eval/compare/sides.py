"""One of the two runs: a training run's directory, a checkpoint, a folder of results, or all in one."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lsgm.errors import DataError, UserError, did_you_mean
from lsgm.files.shown import shown
from lsgm.progress import say
from lsgm_eval.compare.trainings import Training, read_training
from lsgm_eval.manifest import MadeCall, read_call
from lsgm_eval.rows import read_rows

__all__ = ["Row", "Side", "bias_of", "choose_models", "open_side", "trained_as"]

Row = dict[str, Any]
RESULTS = "results.jsonl"
BIAS = re.compile(r"upward bias at this n about (-?[0-9.]+(?:e[-+]?[0-9]+)?)")
NEEDED = {"task", "model", "metric", "value"}
MOST = 20
"""Names that a sentence lists."""


@dataclass(frozen=True)
class Side:
    """What a place holds."""

    place: Path
    training: Training | None
    rows: tuple[Row, ...]
    """Of single models; differences of two models are left out."""

    @cached_property
    def by_model(self) -> dict[str, list[Row]]:
        """The rows of every model."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row["model"], []).append(row)
        return found

    @property
    def models(self) -> list[str]:
        """The models that have rows, in their order."""
        return list(self.by_model)

    @cached_property
    def manifests(self) -> dict[str, MadeCall]:
        """The manifests that rows name, by id; one that is gone is missing, a damaged one is said to be."""
        found = {}
        for name in dict.fromkeys(row.get("manifest") for row in self.rows):
            try:
                read = read_call(self.place, name) if name else None
            except DataError as error:
                say(shown(f"{error}; without it, fewer things are compared"))
                continue
            if read is not None:
                found[str(name)] = read
        return found

    def of(self, model: str) -> list[Row]:
        """Return the rows of one model."""
        return self.by_model.get(model, [])

    def manifest_of(self, row: Row) -> MadeCall:
        """Return the manifest that a row names, empty where there is none."""
        return self.manifests.get(str(row.get("manifest"))) or MadeCall()


def bias_of(row: Row) -> float | None:
    """Return a row's estimated upward bias, which rows of before task versions 3 have in their note."""
    if row.get("bias") is not None:
        return float(row["bias"])
    found = BIAS.search(str(row.get("note") or ""))
    try:
        return float(found[1]) if found else None
    except ValueError:  # a note may say 1.2.3
        return None


def open_side(place: Path) -> Side:
    """Return what a folder holds.

    Raises UserError for a folder with neither a training run nor results, and what the readers of both say
    of damaged files.
    """
    if not os.path.isdir(place):
        raise UserError(f"{place} is no folder: give a training run, or a folder with {RESULTS}")
    _require_listed(place)
    training, results = read_training(place), place / RESULTS
    there = os.path.lexists(results)
    rows = read_rows(results) if there else []
    for number, row in enumerate(rows, start=1):
        if missing := NEEDED - row.keys():
            raise DataError(f"row {number} of {results} has no {min(missing)}: remove it or measure it again")
    if training is None and not rows:
        why = f"its {RESULTS} has no rows" if there else f"neither a training run nor {RESULTS}"
        raise UserError(
            f"there is nothing to compare in {place} ({why}): `lsgm train RECIPE --out DIR` makes a run, "
            "`lsgm eval TASK --model RUN --out DIR` makes results"
        )
    # A difference of two models is made anew from both.
    single = [row for row in rows if not str(row["metric"]).startswith("paired_")]
    return Side(place, training, tuple(single))


def _require_listed(place: Path) -> None:
    """Raise UserError for a folder that cannot be looked into, or has one below it that cannot.

    What lies there would be said not to exist.
    """
    folders = (place, *(place / name for name in ("checkpoints", "manifests", "passes", "per-image")))
    for folder in folders:
        if os.path.isdir(folder):
            try:
                with os.scandir(folder):
                    pass
            except OSError as error:
                raise UserError(
                    f"{folder} cannot be looked into ({error.strerror}): make it readable, and what is in it"
                ) from error


def choose_models(a: Side, b: Side, wanted: str = "") -> list[tuple[str, str]]:
    """Return which models of A are compared with which of B.

    ``wanted`` is a name that both have, or ``A=one,B=other``; without it those of equal names, else the one
    that each has. Empty where either holds no results. Raises UserError for unknown names, and where there
    is a choice to make.
    """
    if not (a.models and b.models):
        return []
    if wanted:
        return [_named(a, b, wanted)]
    common = [(name, name) for name in a.models if name in b.by_model]
    if common:
        return common
    if len(a.models) == len(b.models) == 1:
        return [(a.models[0], b.models[0])]
    raise UserError(
        f"no model of {a.place} ({_listed(a.models)}) bears the name of one of {b.place} "
        f"({_listed(b.models)}): name one of each, --model A={a.models[0]},B={b.models[0]}"
    )


def _listed(names: Sequence[str]) -> str:
    """Return names with commas between them; of many the first."""
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(names[:MOST]) + more


def _named(a: Side, b: Side, wanted: str) -> tuple[str, str]:
    first, found, second = wanted.partition(",B=")
    if found and first.startswith("A="):
        names = (first.removeprefix("A="), second)
    elif found or wanted.startswith(("A=", "B=")):
        raise UserError(f"--model is '{wanted}': give NAME, or A=NAME,B=NAME")
    else:
        names = (wanted, wanted)
    for side, name in zip((a, b), names, strict=True):
        if name not in side.models:
            hint = did_you_mean(name, side.models) or f"; it has {_listed(side.models)}"
            raise UserError(f"{side.place} has no results of a model '{name}'{hint}")
    return names


def trained_as(side: Side, model: str) -> Training | None:
    """Return how a model was trained: by the side's own folder, else by where its results say it lay.

    A folder that holds another run by now is not taken for it.
    """
    if side.training is not None:
        return side.training
    for row in side.of(model):
        for entry in side.manifest_of(row).models:
            if entry.path and entry.sha256 == row.get("checkpoint_sha256"):
                try:
                    found = read_training(_run_of(Path(entry.path)))
                except UserError:
                    continue  # what lies there by now is no run that can be read
                if found is not None and found.run_id == entry.run_id:
                    return found
    return None


def _run_of(path: Path) -> Path:
    """Return the run that a checkpoint lies in, or the folder itself."""
    run = path.parent.parent
    return run if path.parent.name == "checkpoints" and os.path.isfile(run / "config.toml") else path
