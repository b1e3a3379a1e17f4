"""What a comparison of two sets of images gives: a few numbers, each with its interval and its counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lsgm.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Counts", "Distances", "Number"]


@dataclass(frozen=True)
class Counts:
    """How many images of how many a number is of, on either side; None where a file does not say."""

    samples: int | None
    samples_of: int | None
    """How many there are; None where a model draws as many as are wanted."""
    reference: int | None
    reference_of: int | None


@dataclass(frozen=True)
class Number:
    """A metric with its 95 % interval; ``value`` is None where ``note`` says why it cannot be told."""

    metric: str
    value: float | None
    low: float | None
    high: float | None
    counts: Counts
    note: str


@dataclass(frozen=True)
class Distances:
    """All numbers of one comparison, by their names: ``found["fid"].value``.

    ``rows`` are those that `lsgm fid --out` writes; ``not_measured`` says which feature spaces are not at
    hand and why.
    """

    reference: str
    samples: str
    numbers: tuple[Number, ...]
    rows: tuple[Mapping[str, Any], ...]
    not_measured: tuple[str, ...] = ()

    def __getitem__(self, metric: str) -> Number:
        """Return the number of that name. Raises UserError, which names those that there are."""
        found = next((number for number in self.numbers if number.metric == metric), None)
        if found is None:
            names = [number.metric for number in self.numbers]
            hint = did_you_mean(metric, names) or f"; there are {', '.join(names)}"
            raise UserError(f"no '{metric}' was measured{hint}")
        return found

    @property
    def value(self) -> float:
        """The first distance: FID by torch-fidelity's protocol, unless others were asked for.

        Raises UserError where nothing could be told, with the reason.
        """
        found = next((number.value for number in self.numbers if number.value is not None), None)
        if found is None:
            raise UserError(self.numbers[0].note if self.numbers else "nothing was measured")
        return found

    def row(self) -> dict[str, Any]:
        """Return all numbers flat: ``fid``, ``fid_low``, ``fid_high``, ..., and the counts of the first."""
        counts = self.numbers[0].counts
        flat: dict[str, Any] = {
            "reference": self.reference,
            "samples": self.samples,
            "n": counts.samples,
            "n_of": counts.samples_of,
            "reference_n": counts.reference,
            "reference_n_of": counts.reference_of,
        }
        for number in self.numbers:
            flat |= {
                number.metric: number.value,
                f"{number.metric}_low": number.low,
                f"{number.metric}_high": number.high,
            }
        return flat

    def frame(self) -> pd.DataFrame:
        """Return `row` as a frame of one row, for `pandas.concat`."""
        import pandas as pd

        return pd.DataFrame([self.row()])

    def table(self) -> list[str]:
        """Return aligned lines: metric, value, interval, and the images of either side."""
        cells = [("metric", "value", "95 % interval", "samples", "reference")]
        for number in self.numbers:
            value = "-" if number.value is None else f"{number.value:.5g}"
            interval = "" if number.low is None else f"{number.low:.5g} .. {number.high:.5g}"
            counts = number.counts
            cells.append(
                (
                    number.metric,
                    value,
                    interval,
                    _count(counts.samples, counts.samples_of),
                    _count(counts.reference, counts.reference_of),
                )
            )
        return _aligned(cells)

    def notes(self) -> list[str]:
        """Return what must be said: of all numbers once, then of each."""
        parts = {number.metric: number.note.split("; ") for number in self.numbers if number.note}
        shared = [
            part
            for part in next(iter(parts.values()), [])
            if len(parts) == len(self.numbers) and all(part in others for others in parts.values())
        ]
        own = {name: [p for p in dict.fromkeys(said) if p not in shared] for name, said in parts.items()}
        lines = [f"{name}: {'; '.join(said)}" for name, said in own.items() if said]
        return [*dict.fromkeys(shared), *lines]


def _count(n: int | None, of: int | None) -> str:
    if n is None:
        return "unknown"
    if of is None:
        return f"{n:,}"
    return f"all {n:,}" if n == of else f"{n:,} of {of:,}"


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[k]) for line in cells) for k in range(len(cells[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
