"""Differences B - A of one number of two runs, with 95 % intervals: paired, independent, or exact."""

from __future__ import annotations

import glob
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtr, stdtrit

from lsgm.errors import DataError, UserError
from lsgm.files.arrays import Arrays
from lsgm.files.names import file_name
from lsgm.files.write import cache_dir
from lsgm_eval.cache import read_kept
from lsgm_eval.compare.sides import Row
from lsgm_eval.features.statistics import Collector, FeatureStats
from lsgm_eval.likelihood.rows import METRIC, folder_tag, scores_file
from lsgm_eval.likelihood.store import read_scores
from lsgm_eval.measure.difference import DOUBT, Comparison, beyond_bias, compare_frechet, compare_kernel
from lsgm_eval.metrics.intervals import NORMAL_95, Interval, difference_ends
from lsgm_eval.samples.reference import cached_reference
from lsgm_eval.spaces import family_of

__all__ = [
    "Difference",
    "Shelf",
    "column_of",
    "exact_difference",
    "holm",
    "independent_difference",
    "of_interval",
    "paired_distance",
    "paired_likelihood",
    "paired_mean",
]


@dataclass(frozen=True)
class Difference:
    """B - A, the ends of its 95 % interval, and the chance of one as large where there is none (two-sided).

    Ends and chance are None where nothing is known of the error.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None
    bias: float = 0.0
    """Estimated upward bias of B less that of A."""

    @property
    def apart(self) -> bool:
        """Whether 0 lies outside the interval, taken by itself."""
        return self.low is not None and self.high is not None and not self.low <= 0.0 <= self.high

    @property
    def sure(self) -> bool:
        """Whether the same can be said of what is left without the bias (`beyond_bias`)."""
        known = self.low is not None and self.high is not None
        return known and beyond_bias(self.value, self.low or 0.0, self.high or 0.0, self.bias)

    def biased(self, bias: float) -> Difference:
        """Return the difference of two estimates whose upward biases differ by ``bias``.

        Its chance is that of what is left without `DOUBT` times the bias, 1 where nothing is left.
        """
        left = self.value - DOUBT * bias
        arm = abs(self.value - ((self.low if self.value > 0 else self.high) or 0.0))
        p = self.p
        if p is not None and left * self.value <= 0:
            p = 1.0
        elif p is not None and arm > 0:
            p = max(p, 2 * float(ndtr(-abs(left) * NORMAL_95 / arm)))
        return replace(self, p=p, bias=bias)

    def times(self, scale: float) -> Difference:
        """Return the difference in another unit, one of the old being ``scale`` > 0 of the new."""
        low, high = (None if end is None else end * scale for end in (self.low, self.high))
        return replace(self, value=self.value * scale, low=low, high=high, bias=self.bias * scale)


def paired_mean(a: NDArray[Any], b: NDArray[Any]) -> Difference:
    """Return mean(b - a) over images [N] that both have, with Student's interval of N - 1 degrees of freedom.

    What an image does to both cancels. Raises ValueError for other than two equally long rows of 2 or more.
    """
    if np.ndim(a) != 1 or np.shape(a) != np.shape(b) or len(a) < 2:
        raise ValueError(f"paired values need one row each of 2 or more, not {np.shape(a)}, {np.shape(b)}")
    gap = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    mean, error, freedom = float(gap.mean()), float(gap.std(ddof=1) / math.sqrt(len(gap))), len(gap) - 1
    if error == 0:
        return exact_difference(mean)
    margin = float(stdtrit(freedom, 0.975)) * error
    return Difference(mean, mean - margin, mean + margin, 2 * float(stdtr(freedom, -abs(mean) / error)))


def independent_difference(
    a: float, ends_a: tuple[float, float], b: float, ends_b: tuple[float, float]
) -> Difference:
    """Return b - a from two values and the ends (low, high) of their 95 % intervals, errors independent.

    By `difference_ends`. Where both share a reference, or images, their errors go together and the interval
    is too wide rather than too narrow.
    """
    gap = b - a
    low, high = difference_ends(a, ends_a, b, ends_b)
    towards_zero = gap - low if gap > 0 else high - gap
    if gap == 0 or towards_zero == 0:
        p = float(gap == 0)
    else:
        p = 2 * float(ndtr(-abs(gap) * NORMAL_95 / towards_zero))
    return Difference(gap, low, high, p)


def of_interval(found: Interval) -> Difference:
    """Return a difference whose normal interval has been told already."""
    if found.standard_error == 0:
        return exact_difference(found.value)
    p = 2 * float(ndtr(-abs(found.value) / found.standard_error))
    return Difference(found.value, found.low, found.high, p)


def exact_difference(value: float) -> Difference:
    """Return a difference without any error, as that of two counts of parameters."""
    return Difference(value, value, value, float(value == 0))


def holm(chances: Mapping[str, float]) -> dict[str, float]:
    """Return the chances p adjusted for being many, by Holm (1979), under the names they came with.

    Sorted p_1 <= ... <= p_m become max over j <= i of min(1, (m - j + 1) p_j). Calling real what then lies
    below 5 % is wrong about one or more of them in at most 5 % of comparisons, however they depend on each
    other.
    """
    order: Sequence[str] = sorted(chances, key=lambda name: chances[name])
    adjusted, so_far = {}, 0.0
    for place, name in enumerate(order):
        so_far = max(so_far, min(1.0, (len(order) - place) * chances[name]))
        adjusted[name] = so_far
    return adjusted


# Bounds of single images that two runs have kept, by which their likelihoods are compared image by image

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


# Features that were gathered of two models' images, by which their distances are compared seed by seed

PAIRED = ("frechet", "kernel", "spatial_frechet")


@dataclass(frozen=True)
class _Set:
    """Features of a model's images, or of the reference."""

    pooled: FeatureStats
    spatial: FeatureStats | None


class Shelf:
    """Reads what passes and the cache of references hold, each file once."""

    def __init__(self) -> None:
        self.sets = cache(_sets)
        self.references = cache(_references)


def paired_distance(
    folders: tuple[Path, Path], models: tuple[str, str], rows: tuple[Row, Row], shelf: Shelf
) -> Difference | str:
    """Return B's distance minus A's, of images of the same seeds, or why it cannot be paired.

    A pass's file does not say which feature space each of its parts is of. Those are taken from which,
    with a cached reference of the recorded sha256, both recorded values follow again: so that a file that is
    left over from another model or another call is never taken either.
    """
    a, b = rows
    family = family_of(str(a["metric"]))
    if family not in PAIRED or a.get("group") != "quality":
        return "unpaired"
    if a.get("seeds") != b.get("seeds") or a.get("seeds") is None:
        return f"unpaired: other seeds, {a.get('seeds')} and {b.get('seeds')}"
    held = [shelf.sets(folder, model) for folder, model in zip(folders, models, strict=True)]
    for label, sets in zip("AB", held, strict=True):
        if not sets:
            return f"unpaired: what was gathered of the images of {label} is gone"
    references = shelf.references(str(a.get("reference_sha256")))
    if not references:
        return "unpaired: the features of the reference are not in the cache"
    for ours, theirs in zip(*held, strict=False):
        for reference in references:
            found = _compared(family, ours, theirs, reference)
            if found is not None and _tells(found, b, a):
                return of_interval(found.difference)
    return "unpaired: what was gathered of the images gives other values than the rows"


def _compared(family: str, ours: _Set, theirs: _Set, reference: _Set) -> Comparison | None:
    """Return B against A, None where features of the two and of the reference are not of one space."""
    spatial = family == "spatial_frechet"
    a, b, r = ((s.spatial if spatial else s.pooled) for s in (ours, theirs, reference))
    if a is None or b is None or r is None or not a.moments.dim == b.moments.dim == r.moments.dim:
        return None
    try:
        if family == "kernel":
            return compare_kernel(b.rows, a.rows, r.rows, paired=True)
        return compare_frechet(b, a, r.moments, paired=True, biases=(0.0, 0.0))  # the rows know them
    except (UserError, ValueError):
        return None  # other numbers of images, or too few of them: not what the rows are of


def _tells(found: Comparison, first: Row, second: Row) -> bool:
    pairs = ((found.a, first["value"]), (found.b, second["value"]))
    return all(abs(value - float(row)) <= AGREES * max(abs(value), 1.0) for value, row in pairs)


def _sets(folder: Path, model: str) -> list[_Set]:
    """Return what the pass of the headline's images has gathered, one for each feature space in order.

    Empty where there is no such file, where one is damaged, and where a pass was not finished.
    """
    name = file_name(model)
    alone = folder / "passes" / f"{name}.npz"
    parts = [alone] if alone.exists() else sorted(alone.parent.glob(f"{glob.escape(name)}-*-of-*.npz"))
    states = [state for path in parts if (state := read_kept(path, _finished)) is not None]
    if not states or len(states) < len(parts):
        return []
    try:
        return [_set(states, k) for k in range(min(map(_branches, states)))]
    except DataError:
        return []


def _finished(state: Arrays) -> Arrays:
    """Return the arrays of a pass that was finished. Raises DataError for one that was not."""
    done, count = int(state.take("done", "i", 0)), len(state.take("nfe", "f", 1))
    if done != count:
        raise state.refused(f"is of {done} of {count} images")
    return state


def _branches(state: Arrays) -> int:
    return sum(name.endswith("/features/count") for name in state)


def _set(states: list[Arrays], branch: int) -> _Set:
    spatial = f"{branch}/spatial/count" in states[0]
    return _Set(
        _merged(states, f"{branch}/features/"), _merged(states, f"{branch}/spatial/") if spatial else None
    )


def _merged(states: list[Arrays], prefix: str) -> FeatureStats:
    """Return the union of what all processes of a pass hold under a prefix."""
    first, *others = (_collector(state, prefix) for state in states)
    for other in others:
        if other.moments.dim != first.moments.dim:
            raise DataError(f"the processes of a pass have gathered other features under {prefix}")
        first.merge(other)
    return first.stats()


def _collector(state: Arrays, prefix: str) -> Collector:
    collector = Collector(len(state.take(f"{prefix}total", "f", 1)))
    collector.load({n.removeprefix(prefix): state[n] for n in state if n.startswith(prefix)})
    if collector.moments.count != int(state.take("done", "i", 0)):
        raise state.refused("has features of another number of images")
    return collector


def _references(sha256: str) -> list[_Set]:
    """Return the cached features of the pixels with this sha256, in whatever spaces there are."""
    return list(_found(cache_dir() / "features", sha256))


def _found(folder: Path, sha256: str) -> Iterator[_Set]:
    def ours(arrays: Arrays) -> bool:
        return arrays.text("sha256") == sha256

    def whole(arrays: Arrays) -> _Set:
        spatial_dim = len(arrays.take("spatial_total", "f", 1)) if "spatial_total" in arrays else 0
        found = cached_reference(arrays, len(arrays.take("total", "f", 1)), spatial_dim)
        rows = found.stats.rows
        spatial = FeatureStats(found.spatial, rows[:0]) if found.spatial is not None else None
        return _Set(found.stats, spatial)

    for path in sorted(folder.glob("*.npz")):
        # A damaged one is named by `lsgm eval`, which makes it again.
        if read_kept(path, ours, names=("sha256",)) and (found := read_kept(path, whole)) is not None:
            yield found
