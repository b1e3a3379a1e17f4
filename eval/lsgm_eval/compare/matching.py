"""Which rows of two models are of one thing, and whether they may be subtracted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lsgm_eval.compare.sides import Row

__all__ = ["MEASURED_ON", "Match", "match_rows", "why_not"]

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


@dataclass(frozen=True)
class Match:
    """A row of A and the row of B that measures the same thing; None where there is none."""

    a: Row | None
    b: Row | None

    def __getitem__(self, key: str) -> Any:
        """Return what either row says, A's before B's."""
        row = self.a if self.a is not None else self.b
        return (row or {}).get(key)

    @property
    def rows(self) -> tuple[Row, Row] | None:
        """Both rows, where there are both."""
        return None if self.a is None or self.b is None else (self.a, self.b)


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
    return (*_exactly(row), *(row.get(key) for key in MEASURED_ON))


def _exactly(row: Row) -> tuple[Any, ...]:
    return (*_but_for_sampler(row), row.get("sampler"))


def _but_for_sampler(row: Row) -> tuple[Any, ...]:
    return (row["task"], *_measured(row))


def _but_for_version(row: Row) -> tuple[Any, ...]:
    return (str(row["task"]).partition("@")[0], *_measured(row))


def _measured(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(key) for key in ("metric", "group", "target"))


def why_not(match: Match, hardware: tuple[Any, Any] = (None, None)) -> str:
    """Return why no difference is told, or nothing where it is.

    ``hardware`` of either call decides over seconds.
    """
    if match.rows is None:
        return f"only in {'A' if match.b is None else 'B'}"
    a, b = match.rows
    if a["task"] != b["task"]:
        return f"another task: {a['task']} and {b['task']}"
    for key, name in SAME:
        if a.get(key) != b.get(key):
            return f"other {name}: {_short(a.get(key))} and {_short(b.get(key))}"
    custom = str(a["task"]).endswith("-custom") or a.get("group") == "curve"
    if custom and a.get("sampler") != b.get("sampler"):
        return f"other settings: {a.get('sampler')} and {b.get('sampler')}"
    if a.get("group") in SAMPLES and a.get("n") != b.get("n"):
        return f"other numbers of images: {a.get('n')} and {b.get('n')}"
    if str(a["metric"]).startswith("seconds") and hardware[0] != hardware[1]:
        return "seconds of other machines"
    for label, row in (("A", a), ("B", b)):
        if row["value"] is None:
            why = str(row.get("note") or "").split("; ")[0]
            return f"not measured in {label}" + (f": {why}" if why else "")
    return ""


def _short(value: Any) -> str:
    """Return a value with long hexadecimal digits cut to what tells them apart."""
    if value is None:
        return "none"
    return "@".join(part[:12] if len(part) == 64 else part for part in str(value).split("@"))
