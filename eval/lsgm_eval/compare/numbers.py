"""The numbers of two runs side by side: which rows are of one thing, and what B - A of these comes to."""

from __future__ import annotations

import glob
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
from lsgm_eval.compare.sides import RunSide
from lsgm_eval.likelihood.store import METRIC, folder_tag, read_scores, scores_file
from lsgm_eval.metrics.difference import Comparison, Difference, compare_frechet, compare_kernel, holm
from lsgm_eval.metrics.moments import FeatureStats
from lsgm_eval.samples.collect import Collector, arrays_under
from lsgm_eval.samples.reference import Reference, kept_references

SAME = {
    "dataset": "data",
    "split": "split",
    "levels_sha256": "bits scored",
    "extractor": "extractor",
    "reference_sha256": "reference",
}
"""What must agree in both rows, and what it is called."""
MEASURED_ON = ("dataset", "extractor", "reference_sha256")
"""Of which a folder may hold the same number several times."""
MEASURED = ("metric", "group", "target")
MEETINGS = (
    ("task", *MEASURED, "sampler", *MEASURED_ON),
    ("task", *MEASURED, "sampler"),
    ("task", *MEASURED),
    ("task name", *MEASURED),
)
"""By what two rows meet that are the only ones of it on their sides, the closest first."""
SAMPLES = ("quality", "curve")
"""Groups of numbers that are biased by how many images they are of, or otherwise depend on it."""
LEVEL = 0.05
"""Chance of calling one or more of all compared numbers better or worse where none is."""
OTHERWISE = ", measured otherwise"
"""Follows `NumberLine.how` where the task has another sampler or estimator for A's model than for B's."""
UNJUDGED = ("parameters", "seconds")
"""How metrics begin that have a better side, and yet are no reason to fail."""
Pair = tuple[Row | None, Row | None]
"""A row of A and the row of B that measures the same thing; None where there is none."""


@dataclass(frozen=True)
class NumberLine:
    """One metric of a model of A and of one of B."""

    models: tuple[str, str]
    pair: Pair
    difference: Difference | None
    """B - A; None where the two do not compare."""
    how: str
    """``paired over 100 images``, ``unpaired: ...``, or why there is no difference."""
    p_holm: float | None = None
    """Chance of so large a difference among all compared numbers (`holm`); None where it is not judged."""

    def __getitem__(self, key: str) -> Any:
        """Return what either row says, A's before B's."""
        a, b = self.pair
        row = b if a is None else a
        return None if row is None else row[key]

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return str(self["metric"])

    @property
    def hypothesis(self) -> str:
        """What the verdict is about; bits per dimension are nats, which count once."""
        key = [self[name] for name in ("task", "group", "target", "sampler")]
        return repr((self.models, self.metric.replace("_bpd", "_nats"), *key))

    @property
    def judged(self) -> bool:
        """Whether it can be better or worse.

        Terms of a bound are neither, and more parameters are no fault. Seconds are not judged either: their
        intervals are of the batches of one call, and another call on the same machine differs by more.
        """
        known = self.difference is not None and self.difference.p is not None
        return known and self["higher_is_better"] is not None and not self.metric.startswith(UNJUDGED)

    @property
    def verdict(self) -> str:
        """``better`` and ``worse`` hold for all numbers together; ``leans`` is said of one by itself.

        ``may be bias``: the biases of both at this number of images differ by as much.
        """
        gap = self.difference
        if gap is None or gap.low is None:
            return ""
        if gap.value == gap.low == gap.high == 0:
            return "same"
        if self.metric.startswith("seconds"):
            return "not judged"
        if not gap.sure:
            return "may be bias" if gap.apart else "not told apart"
        if not self.judged:
            return "higher" if gap.value > 0 else "lower"
        word = "better" if (gap.value > 0) == self["higher_is_better"] else "worse"
        certain = self.p_holm is not None and self.p_holm < LEVEL
        return word if certain else f"leans {word}"


def compare_numbers(a: RunSide, b: RunSide, models: Iterable[tuple[str, str]]) -> list[NumberLine]:
    """Return a line for every metric of every pair of models, A's in their order and then B's own.

    Likelihoods are compared image by image and distances seed by seed where both folders hold what that
    takes; everything else by its recorded intervals as if independent, which is too wide where errors are
    shared. Chances are adjusted over all lines that can be better or worse.
    """
    shelf = Shelf()
    lines = [
        _line(a, b, pair, rows, shelf)
        for pair in models
        for rows in match_rows(a.by_model.get(pair[0], []), b.by_model.get(pair[1], []))
    ]
    chances: dict[str, float] = {}
    for line in lines:
        if line.judged and line.difference is not None and line.difference.p is not None:
            chances[line.hypothesis] = max(line.difference.p, chances.get(line.hypothesis, 0.0))
    adjusted = holm(chances)
    return [replace(line, p_holm=adjusted[line.hypothesis]) if line.judged else line for line in lines]


def match_rows(a: Sequence[Row], b: Sequence[Row]) -> list[Pair]:
    """Return the rows of two models side by side, A's in their order and then what B alone has.

    First rows of one task, metric, group, target and sampler meet that are of the same data, extractor and
    reference, and then those that are not, which `why_not` refuses. Of what is left, a single row on either
    side meets the other of its metric under another sampler, as a VAE, which needs none, meets a diffusion
    under one task; and then under another version or tier of the task, which is refused as well.
    """
    partner: dict[int, Row] = {}
    ours, theirs = list(a), list(b)
    for names in MEETINGS:
        first, second = _alone(ours, names), _alone(theirs, names)
        met = first.keys() & second.keys()
        partner |= {id(first[key]): second[key] for key in met}
        taken = {id(row) for key in met for row in (first[key], second[key])}
        ours, theirs = ([row for row in rows if id(row) not in taken] for rows in (ours, theirs))
    return [*((row, partner.get(id(row))) for row in a), *((None, row) for row in theirs)]


def _alone(rows: Sequence[Row], names: Sequence[str]) -> dict[tuple[Any, ...], Row]:
    """Return the rows that alone say what they say under some keys, by that."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = (row.task.partition("@")[0] if name == "task name" else row[name] for name in names)
        found.setdefault(tuple(key), []).append(row)
    return {key: several[0] for key, several in found.items() if len(several) == 1}


def why_not(a: Row | None, b: Row | None, hardware: tuple[Any, Any] = (None, None)) -> str:
    """Return why no difference is told of two rows, or nothing where it is.

    ``hardware`` of either call decides over seconds.
    """
    if a is None or b is None:
        return f"only in {'A' if b is None else 'B'}"
    if a.task != b.task:
        return f"another task: {a.task} and {b.task}"
    for key, name in SAME.items():
        if a[key] != b[key]:
            return f"other {name}: {_short(a[key])} and {_short(b[key])}"
    custom = a.task.endswith("-custom") or a.group == "curve"
    if custom and a.sampler != b.sampler:
        return f"other settings: {a.sampler} and {b.sampler}"
    if a.group in SAMPLES and a.n != b.n:
        return f"other numbers of images: {a.n} and {b.n}"
    if a.metric.startswith("seconds") and hardware[0] != hardware[1]:
        return "seconds of other machines"
    for label, row in (("A", a), ("B", b)):
        if row.value is None:
            why = (row.note or "").split("; ")[0]
            return f"not measured in {label}" + (f": {why}" if why else "")
    return ""


def _line(a: RunSide, b: RunSide, models: tuple[str, str], pair: Pair, shelf: Shelf) -> NumberLine:
    first, second = pair
    hardware = [
        side.ran_on(row).hardware if row is not None else None for side, row in zip((a, b), pair, strict=True)
    ]
    why = why_not(first, second, (hardware[0], hardware[1]))
    if why or first is None or second is None:
        return NumberLine(models, pair, None, why)
    difference, how = _difference((a.place, b.place), models, (first, second), shelf)
    if first.known_bias is not None and second.known_bias is not None and difference.value:
        difference = difference.biased(second.known_bias - first.known_bias)
    return NumberLine(models, pair, difference, how + (OTHERWISE if first.sampler != second.sampler else ""))


def _difference(
    folders: tuple[Path, Path], models: tuple[str, str], rows: tuple[Row, Row], shelf: Shelf
) -> tuple[Difference, str]:
    a, b = rows
    if a.metric == "parameters":
        return Difference.exact(b.number - a.number), "exact"
    if a.value == b.value and a.checkpoint_sha256 == b.checkpoint_sha256 is not None:
        return Difference.exact(0.0), "the same weights gave the same value"
    if a.group in ("likelihood", "terms"):
        found = paired_likelihood(folders, models, rows)
    else:
        found = paired_distance(folders, models, rows, shelf)
    if not isinstance(found, str):
        return found
    if None in (a.ci_low, a.ci_high, b.ci_low, b.ci_high):
        return Difference(b.number - a.number), "without intervals"
    ends = [(float(row.ci_low or 0.0), float(row.ci_high or 0.0)) for row in rows]
    return Difference.independent(a.number, ends[0], b.number, ends[1]), found


def _short(value: Any) -> str:
    """Return a value with long hexadecimal digits cut to what tells them apart."""
    if value is None:
        return "none"
    return "@".join(part[:12] if len(part) == 64 else part for part in str(value).split("@"))


# Pairs, image by image or seed by seed, from what both runs have kept

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
        found = _gathered(shelf.passes(folder, model, a.n or 0), extractor, part)
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


def _finished_pass(folder: Path, model: str, count: int) -> list[Arrays]:
    """Return what every process of the pass over the headline's ``count`` images has kept.

    Empty where there is no such file, where one is damaged, and where a pass was not finished.
    """
    name = file_name(model)
    alone = folder / "passes" / f"{name}.npz"
    parts = [alone] if alone.exists() else sorted(alone.parent.glob(f"{glob.escape(name)}-*-of-*.npz"))
    states = [state for path in parts if (state := read_kept(path, _of_images)) is not None]
    numbers = sorted(number for state in states for number in state.take("numbers", "i", 1).tolist())
    return states if len(states) == len(parts) and numbers == list(range(count)) else []


def _of_images(state: Arrays) -> Arrays:
    """Return the arrays of a pass that says of which images it is. Raises DataError for one that does not."""
    numbers, nfe = state.take("numbers", "i", 1), state.take("nfe", "f", 1)
    if len(numbers) != len(nfe):
        raise state.refused(f"is of {len(numbers)} images by number and {len(nfe)} by evaluations")
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
            if collector.moments.count != len(state.take("numbers", "i", 1)):
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
