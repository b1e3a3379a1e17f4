"""Bounds of single images that two runs have kept, by which their likelihoods are compared image by image."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsgm.files.arrays import Arrays
from lsgm_eval.compare.differences import Difference, paired_mean
from lsgm_eval.compare.sides import Row
from lsgm_eval.measure.likelihood_rows import METRIC
from lsgm_eval.measure.paired import folder_tag, scores_file
from lsgm_eval.score_store import read_scores

__all__ = ["column_of", "paired_likelihood"]

METHOD = {name: method for method, name in METRIC.items()}
BOUND = re.compile(r"(nelbo|iw|ode_nll)_(nats|bpd)")
TERM = re.compile(r"(nelbo|iw|ode_nll)_term_([a-z_]+)(/\w+)?_nats")
VARIANT = re.compile(r"(-limit-\d+)?(-custom)?$")

AGREES = 1e-6
"""Of a mean: what float32 numbers of single images lose when a row's mean of them is taken again."""


def column_of(metric: str) -> tuple[str, str] | None:
    """Return the method and the array of a metric: ``nelbo_term_kl/0_nats`` is ("nelbo", "group_kl/0").

    None for metrics that are no mean over images.
    """
    if bound := BOUND.fullmatch(metric):
        return METHOD[bound[1]], "nats"
    if term := TERM.fullmatch(metric):
        kind = "group" if term[3] else "term"
        return METHOD[term[1]], f"{kind}_{term[2]}{term[3] or ''}"
    return None


def paired_likelihood(
    folders: tuple[Path, Path], models: tuple[str, str], rows: tuple[Row, Row]
) -> tuple[Difference, int] | str:
    """Return mean(B - A) over the images that both scored, in the rows' unit, and how many these are.

    Else why it cannot be paired. A file counts as what a row was made of only where it is of the row's task,
    and bits, and its mean is the row's value.
    """
    column = column_of(str(rows[0]["metric"]))
    if column is None:
        return "unpaired"
    method, name = column
    held = []
    for label, folder, model, row in zip("AB", folders, models, rows, strict=True):
        found = _scores(folder, model, method, row)
        if found is None or name not in found:
            return f"unpaired: the numbers of single images of {label} are gone"
        scale = _unit(found[name], row)
        if scale is None:
            return f"unpaired: the numbers of single images of {label} give another value than its row"
        held.append((found["rows"], found[name], scale))
    (rows_a, a, scale_a), (rows_b, b, scale_b) = held
    if scale_a != scale_b:
        return "unpaired: both scored images of other sizes"
    common, in_a, in_b = np.intersect1d(rows_a, rows_b, assume_unique=True, return_indices=True)
    if len(common) < 2:
        return "unpaired: both scored other images"
    return paired_mean(a[in_a], b[in_b]).times(scale_a), len(common)


def _unit(nats: NDArray[Any], row: Row) -> float | None:
    """Return how many of a row's units a nat is, None where these are not the numbers behind the row.

    A nat is 1 / (D ln 2) bits per dimension, of images of a whole number D of sub-pixels.
    """
    mean, value, scale = float(np.mean(nats, dtype=np.float64)), float(row["value"]), 1.0
    if str(row["metric"]).endswith("_bpd") and value:
        scale = 1 / (max(round(mean / (value * math.log(2))), 1) * math.log(2))
    agrees = abs(mean * scale - value) <= AGREES * max(abs(value), scale)
    return scale if agrees else None


def _scores(folder: Path, model: str, method: str, row: Row) -> Arrays | None:
    """Return the arrays that a call has kept; None where they are gone, damaged, or of another protocol."""
    variant = VARIANT.search(str(row["task"]))
    protocol = variant[0] if variant else ""
    # Images that came by a path have their name in that of the file, those of a data set have not.
    for tag in (folder_tag(str(row.get("dataset"))), ""):
        found = read_scores(scores_file(folder, model, method, tag + protocol))
        if found is None:
            continue
        said = {key: found.text(key) for key in ("task", "levels_sha256") if key in found}
        if all(row.get(key) in (None, value) for key, value in said.items()):
            return found
    return None
