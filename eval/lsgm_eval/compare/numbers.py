"""The numbers of two runs side by side: which rows are of one thing, and what B - A of these comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lsgm_eval.compare.gathered import Shelf, paired_distance, paired_likelihood
from lsgm_eval.compare.sides import Row, RunSide
from lsgm_eval.metrics.difference import Difference, holm

__all__ = [
    "LEVEL",
    "MEASURED_ON",
    "OTHERWISE",
    "Match",
    "NumberLine",
    "compare_numbers",
    "match_rows",
    "why_not",
]

SAME = (
    ("dataset", "data"),
    ("split", "split"),
    ("levels_sha256", "bits scored"),
    ("extractor", "extractor"),
    ("reference_sha256", "reference"),
)
"""What must agree in both rows, and what it is called."""
MEASURED_ON = ("dataset", "extractor", "reference_sha256")
"""Of which a folder may hold the same number several times."""
Key = Callable[[Row], tuple[Any, ...]]
SAMPLES = ("quality", "curve")
"""Groups of numbers that are biased by how many images they are of, or otherwise depend on it."""
LEVEL = 0.05
"""Chance of calling one or more of all compared numbers better or worse where none is."""
OTHERWISE = ", measured otherwise"
"""Follows `NumberLine.how` where the task has another sampler or estimator for A's model than for B's."""
UNJUDGED = ("parameters", "seconds")
"""How metrics begin that have a better side, and yet are no reason to fail."""


@dataclass(frozen=True)
class Match:
    """A row of A and the row of B that measures the same thing; None where there is none."""

    a: Row | None
    b: Row | None

    def __getitem__(self, key: str) -> Any:
        """Return what either row says, A's before B's."""
        row = self.a if self.a is not None else self.b
        return None if row is None else row[key]

    @property
    def rows(self) -> tuple[Row, Row] | None:
        """Both rows, where there are both."""
        return None if self.a is None or self.b is None else (self.a, self.b)


@dataclass(frozen=True)
class NumberLine:
    """One metric of a model of A and of one of B."""

    models: tuple[str, str]
    match: Match
    difference: Difference | None
    """B - A; None where the two do not compare."""
    how: str
    """``paired over 100 images``, ``unpaired: ...``, or why there is no difference."""
    p_holm: float | None = None
    """Chance of so large a difference among all compared numbers (`holm`); None where it is not judged."""

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return str(self.match["metric"])

    @property
    def hypothesis(self) -> str:
        """What the verdict is about; bits per dimension are nats, which count once."""
        key = [self.match[name] for name in ("task", "group", "target", "sampler")]
        return repr((self.models, self.metric.replace("_bpd", "_nats"), *key))

    @property
    def judged(self) -> bool:
        """Whether it can be better or worse.

        Terms of a bound are neither, and more parameters are no fault. Seconds are not judged either: their
        intervals are of the batches of one call, and another call on the same machine differs by more.
        """
        known = self.difference is not None and self.difference.p is not None
        return known and self.match["higher_is_better"] is not None and not self.metric.startswith(UNJUDGED)

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
        word = "better" if (gap.value > 0) == self.match["higher_is_better"] else "worse"
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
        _line(a, b, pair, match, shelf)
        for pair in models
        for match in match_rows(a.of(pair[0]), b.of(pair[1]))
    ]
    return _adjusted(lines)


def match_rows(a: Sequence[Row], b: Sequence[Row]) -> list[Match]:
    """Return the rows of two models side by side, A's in their order and then what B alone has.

    First rows of one task, metric, group, target and sampler meet that are of the same data, extractor and
    reference, and then those that are not, which `why_not` refuses. Of what is left, a single row on either
    side meets the other of its metric under another sampler, as a VAE, which needs none, meets a diffusion
    under one task; and then under another version or tier of the task, which is refused as well.
    """
    pairs: list[Match] = []
    left, right = list(a), list(b)
    for key in (_all_alike, _exactly, _but_for_sampler, _but_for_version):
        pairs += _meet(left, right, key)
    order = {id(row): place for place, row in enumerate(a)}
    pairs += [Match(row, None) for row in left]
    pairs.sort(key=lambda match: order[id(match.a)])
    return pairs + [Match(None, row) for row in right]


def why_not(match: Match, hardware: tuple[Any, Any] = (None, None)) -> str:
    """Return why no difference is told, or nothing where it is.

    ``hardware`` of either call decides over seconds.
    """
    if match.rows is None:
        return f"only in {'A' if match.b is None else 'B'}"
    a, b = match.rows
    if a.task != b.task:
        return f"another task: {a.task} and {b.task}"
    for key, name in SAME:
        if a[key] != b[key]:
            return f"other {name}: {_short(a[key])} and {_short(b[key])}"
    custom = str(a.task).endswith("-custom") or a.group == "curve"
    if custom and a.sampler != b.sampler:
        return f"other settings: {a.sampler} and {b.sampler}"
    if a.group in SAMPLES and a.n != b.n:
        return f"other numbers of images: {a.n} and {b.n}"
    if str(a.metric).startswith("seconds") and hardware[0] != hardware[1]:
        return "seconds of other machines"
    for label, row in (("A", a), ("B", b)):
        if row.value is None:
            why = str(row.note or "").split("; ")[0]
            return f"not measured in {label}" + (f": {why}" if why else "")
    return ""


def _line(a: RunSide, b: RunSide, models: tuple[str, str], match: Match, shelf: Shelf) -> NumberLine:
    if match.rows is None:
        return NumberLine(models, match, None, why_not(match))
    first, second = (side.manifest_of(row) for side, row in zip((a, b), match.rows, strict=True))
    if why := why_not(match, (first.hardware, second.hardware)):
        return NumberLine(models, match, None, why)
    difference, how = _difference((a, b), models, match.rows, shelf)
    known = [row.known_bias for row in match.rows]
    if known[0] is not None and known[1] is not None and difference.value:
        difference = difference.biased(known[1] - known[0])
    first_by, second_by = (row.sampler for row in match.rows)
    return NumberLine(models, match, difference, how + (OTHERWISE if first_by != second_by else ""))


def _difference(
    sides: tuple[RunSide, RunSide], models: tuple[str, str], rows: tuple[Row, Row], shelf: Shelf
) -> tuple[Difference, str]:
    a, b = rows
    folders = sides[0].place, sides[1].place
    if a.metric == "parameters":
        return Difference.exact(b.number - a.number), "exact"
    if a.value == b.value and a.checkpoint_sha256 == b.checkpoint_sha256 is not None:
        return Difference.exact(0.0), "the same weights gave the same value"
    if a.group in ("likelihood", "terms"):
        scored = paired_likelihood(folders, models, rows)
        if not isinstance(scored, str):
            return scored[0], f"paired over {scored[1]:,} images"
        how = scored
    else:
        drawn = paired_distance(folders, models, rows, shelf)
        if not isinstance(drawn, str):
            return drawn, f"paired over {a.n:,} seeds" if a.n else "paired by seeds"
        how = drawn
    ends = [_ends(row) for row in rows]
    if ends[0] is None or ends[1] is None:
        return Difference(b.number - a.number), "without intervals"
    return Difference.independent(a.number, ends[0], b.number, ends[1]), how


def _ends(row: Row) -> tuple[float, float] | None:
    low, high = row.ci_low, row.ci_high
    return None if low is None or high is None else (float(low), float(high))


def _adjusted(lines: Sequence[NumberLine]) -> list[NumberLine]:
    chances: dict[str, float] = {}
    for line in lines:
        if line.judged and line.difference is not None and line.difference.p is not None:
            chances[line.hypothesis] = max(line.difference.p, chances.get(line.hypothesis, 0.0))
    adjusted = holm(chances)
    return [replace(line, p_holm=adjusted[line.hypothesis]) if line.judged else line for line in lines]


def _meet(left: list[Row], right: list[Row], key: Key) -> list[Match]:
    """Take out of both lists the rows that alone on their side have a key, and return them together."""
    ours, theirs = _only(left, key), _only(right, key)
    found = [Match(row, theirs[name]) for name, row in ours.items() if name in theirs]
    taken = {id(row) for match in found for row in (match.a, match.b)}
    for rows in (left, right):
        rows[:] = [row for row in rows if id(row) not in taken]
    return found


def _only(rows: Sequence[Row], key: Key) -> dict[tuple[Any, ...], Row]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return {name: several[0] for name, several in found.items() if len(several) == 1}


def _all_alike(row: Row) -> tuple[Any, ...]:
    return (*_exactly(row), *(row[key] for key in MEASURED_ON))


def _exactly(row: Row) -> tuple[Any, ...]:
    return (*_but_for_sampler(row), row.sampler)


def _but_for_sampler(row: Row) -> tuple[Any, ...]:
    return (row.task, *_measured(row))


def _but_for_version(row: Row) -> tuple[Any, ...]:
    return (str(row.task).partition("@")[0], *_measured(row))


def _measured(row: Row) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("metric", "group", "target"))


def _short(value: Any) -> str:
    """Return a value with long hexadecimal digits cut to what tells them apart."""
    if value is None:
        return "none"
    return "@".join(part[:12] if len(part) == 64 else part for part in str(value).split("@"))
