"""The numbers of two runs side by side: which rows are of one thing, and what B - A of these comes to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lsgm.results import Row
from lsgm_eval.compare.gathered import Shelf, paired_distance, paired_likelihood
from lsgm_eval.compare.sides import RunSide
from lsgm_eval.metrics.difference import Difference, holm

__all__ = ["LEVEL", "MEASURED_ON", "OTHERWISE", "NumberLine", "compare_numbers", "match_rows", "why_not"]

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
