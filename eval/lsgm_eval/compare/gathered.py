"""Numbers of two runs paired image by image, or seed by seed, from what both runs have kept."""

from __future__ import annotations

import glob
import math
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsgm.errors import DataError, UserError
from lsgm.files.arrays import Arrays
from lsgm.files.names import file_name
from lsgm.results import Row
from lsgm.results.metrics import family_of
from lsgm_eval.cache import read_kept
from lsgm_eval.likelihood.store import METRIC, folder_tag, read_scores, scores_file
from lsgm_eval.metrics.difference import Comparison, Difference, compare_frechet, compare_kernel
from lsgm_eval.metrics.moments import FeatureStats
from lsgm_eval.samples.collect import Collector, arrays_under
from lsgm_eval.samples.reference import Reference, kept_references

__all__ = ["Shelf", "column_of", "paired_distance", "paired_likelihood"]

AGREES = 1e-6
"""Of a mean: what float32 numbers of single images lose when a row's mean of them is taken again."""

# Likelihoods, by the bounds of single images

METHOD = {name: method for method, name in METRIC.items()}
BOUND = re.compile(r"(nelbo|iw|ode_nll)_(nats|bpd)")
TERM = re.compile(r"(nelbo|iw|ode_nll)_term_([a-z_]+)(/\w+)?_nats")
VARIANT = re.compile(r"(-limit-\d+)?(-custom)?$")


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
) -> tuple[Difference, str] | str:
    """Return mean(B - A) over the images that both scored, in the rows' unit, and over how many that is.

    Else why it cannot be paired. A file counts as what a row was made of only where it is of the row's task,
    and bits, and its mean is the row's value.
    """
    column = column_of(str(rows[0].metric))
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
    gap = Difference.paired(a[in_a], b[in_b]).times(scale_a)
    return gap, f"paired over {len(common):,} images"


def _unit(nats: NDArray[Any], row: Row) -> float | None:
    """Return how many of a row's units a nat is, None where these are not the numbers behind the row.

    A nat is 1 / (D ln 2) bits per dimension, of images of a whole number D of sub-pixels.
    """
    mean, value, scale = float(np.mean(nats, dtype=np.float64)), row.number, 1.0
    if str(row.metric).endswith("_bpd") and value:
        scale = 1 / (max(round(mean / (value * math.log(2))), 1) * math.log(2))
    agrees = abs(mean * scale - value) <= AGREES * max(abs(value), scale)
    return scale if agrees else None


def _scores(folder: Path, model: str, method: str, row: Row) -> Arrays | None:
    """Return the arrays that a call has kept; None where they are gone, damaged, or of another protocol."""
    variant = VARIANT.search(str(row.task))
    protocol = variant[0] if variant else ""
    # Images that came by a path have their name in that of the file, those of a data set have not.
    for tag in (folder_tag(str(row.dataset)), ""):
        found = read_scores(scores_file(folder, model, method, tag + protocol))
        if found is None:
            continue
        said = {key: found.text(key) for key in ("task", "levels_sha256") if key in found}
        if all(row[key] in (None, value) for key, value in said.items()):
            return found
    return None


# Distances, by the features that were gathered of both models' images

FAMILIES = ("frechet", "kernel", "spatial_frechet")


class Shelf:
    """Reads what passes and the cache of references hold, each file once."""

    def __init__(self) -> None:
        self.passes = cache(_finished_pass)
        self.references = cache(lambda sha256, extractor: list(kept_references(sha256, extractor)))


def paired_distance(
    folders: tuple[Path, Path], models: tuple[str, str], rows: tuple[Row, Row], shelf: Shelf
) -> tuple[Difference, str] | str:
    """Return B's distance minus A's, of images of the same seeds, and how many; or why it is not paired.

    Features are those of the rows' extractor, the reference is that of the recorded sha256. Both recorded
    values must follow from them again: a file that is left over from another model or another call is never
    taken.
    """
    a, b = rows
    family, extractor = family_of(str(a.metric)), str(a.extractor)
    if family not in FAMILIES or a.group != "quality":
        return "unpaired"
    if a.seeds != b.seeds or a.seeds is None:
        return f"unpaired: other seeds, {a.seeds} and {b.seeds}"
    part, held = "spatial" if family == "spatial_frechet" else "features", list[FeatureStats]()
    for label, folder, model in zip("AB", folders, models, strict=True):
        found = _gathered(shelf.passes(folder, model), extractor, part)
        if found is None:
            return f"unpaired: what was gathered of the images of {label} is gone"
        held.append(found)
    references = shelf.references(str(a.reference_sha256), extractor)
    if not references:
        return "unpaired: the features of the reference are not in the cache"
    for reference in references:
        compared = _compared(family, held[0], held[1], reference)
        if compared is not None and _tells(compared, b, a):
            how = f"paired over {a.n:,} seeds" if a.n else "paired by seeds"
            return Difference.normal(compared.difference), how
    return "unpaired: what was gathered of the images gives other values than the rows"


def _compared(family: str, a: FeatureStats, b: FeatureStats, reference: Reference) -> Comparison | None:
    """Return B against A, None where features of the two and of the reference are not of one kind."""
    moments = reference.spatial if family == "spatial_frechet" else reference.stats.moments
    if moments is None or not a.moments.dim == b.moments.dim == moments.dim:
        return None
    try:
        if family == "kernel":
            return compare_kernel(b.rows, a.rows, reference.stats.rows, paired=True)
        return compare_frechet(b, a, moments, paired=True, biases=(0.0, 0.0))  # the rows know them
    except (UserError, ValueError):
        return None  # other numbers of images, or too few of them: not what the rows are of


def _tells(found: Comparison, first: Row, second: Row) -> bool:
    pairs = ((found.a, first["value"]), (found.b, second["value"]))
    return all(abs(value - float(row)) <= AGREES * max(abs(value), 1.0) for value, row in pairs)


def _finished_pass(folder: Path, model: str) -> list[Arrays]:
    """Return what every process of the pass over the headline's images has kept.

    Empty where there is no such file, where one is damaged, and where a pass was not finished.
    """
    name = file_name(model)
    alone = folder / "passes" / f"{name}.npz"
    parts = [alone] if alone.exists() else sorted(alone.parent.glob(f"{glob.escape(name)}-*-of-*.npz"))
    states = [state for path in parts if (state := read_kept(path, _finished)) is not None]
    return states if len(states) == len(parts) else []


def _finished(state: Arrays) -> Arrays:
    """Return the arrays of a pass that was finished. Raises DataError for one that was not."""
    done, count = int(state.take("done", "i", 0)), len(state.take("nfe", "f", 1))
    if done != count:
        raise state.refused(f"is of {done} of {count} images")
    return state


def _gathered(states: Sequence[Arrays], extractor: str, part: str) -> FeatureStats | None:
    """Return the union of what all processes hold of an extractor; None where they hold nothing that fits.

    A file of an earlier version has it by the extractor's place in its call, and counts as gone.
    """
    union: Collector | None = None
    try:
        for state in states:
            kept = Arrays(state.where, arrays_under(state, f"{extractor}/{part}"))
            collector = Collector(len(kept.take("total", "f", 1)))
            collector.load(kept)
            if collector.moments.count != int(state.take("done", "i", 0)):
                raise state.refused("has features of another number of images")
            if union is None:
                union = collector
            elif union.moments.dim == collector.moments.dim:
                union.merge(collector)
            else:
                raise state.refused("has features of another dimension than those of other processes")
    except (DataError, ValueError, LookupError, TypeError):
        return None  # also what arrays of another form make of themselves
    return union.stats() if union is not None else None
