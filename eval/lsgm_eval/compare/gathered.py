"""Features that were gathered of two models' images, by which their distances are compared seed by seed."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lsgm.errors import DataError, UserError
from lsgm.files.arrays import Arrays
from lsgm.files.cache import cache_dir
from lsgm.files.names import file_name
from lsgm_eval.compare.differences import Difference, of_interval
from lsgm_eval.compare.sides import Row
from lsgm_eval.comparisons import Comparison, compare_frechet, compare_kernel
from lsgm_eval.features import Collector, FeatureStats
from lsgm_eval.kept import read_kept
from lsgm_eval.reference import cached_reference
from lsgm_eval.spaces import family_of

__all__ = ["Shelf", "paired_distance"]

PAIRED = ("frechet", "kernel", "spatial_frechet")

AGREES = 1e-6
"""Of a distance: what the same images in other batches, merged otherwise, move it by at most (float32)."""


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
