"""The rows of the benchmark of log-densities as a Markdown page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lsgm.bench.flow_costs import ERRORS
from lsgm.bench.tables import table

__all__ = ["page"]

Row = Mapping[str, Any]

_WAYS = ("way", "setting", "evaluations", "gradients", "seconds", "error of the number", "of its steps")
_EQUAL = (
    "error of",
    "reference at",
    "nats",
    "evaluations",
    "here",
    "reached by",
    "fewer",
    "gradients",
    "seconds",
)


def page(rows: Sequence[Row], *, about: str) -> str:
    """Return the machine, the comparison at equal error, and the table of all ways."""
    ways = [row for row in rows if row["what"] == "way"]
    equal = [row for row in rows if row["what"] == "equal"]
    first = ways[0]
    return "\n\n".join(
        [
            f"# Log-densities by probability flow: {first['on']}, batch of {first['batch_size']}",
            about,
            "## At equal error",
            table(_EQUAL, map(_equal, equal)),
            "The cheapest setting of this package whose error is not above that of the reference procedure. "
            "The last three columns are ratios, the reference's cost over this package's.",
            "## Every way",
            table(_WAYS, map(_way, ways)),
            "Per image: evaluations of the network, vector-Jacobian products through it, wall seconds "
            "(medians). Errors are RMS over images in nats: of the number with its probes' noise, and of its "
            "steps alone, where the truth's trace stands for the probes. "
            f"The truth's own standard error is {first['truth_error']:.2g} nats; an error that it would hide "
            "is not shown.",
        ]
    )


def _way(row: Row) -> list[str]:
    seconds = "–" if row["seconds"] is None else f"{row['seconds']:.3g}"
    cost = [f"{row[name]:.0f}" for name in ("evaluations", "gradients")]
    error = "–" if row["error"] is None else f"{row['error']:.2g}"
    return [row["way"], _setting(row), *cost, seconds, error, f"{row['step_error']:.1e}"]


def _equal(row: Row) -> list[str]:
    theirs, ours = row["reference"], row["own"]
    nats = theirs[row["at"]]
    head = [ERRORS[row["at"]], f"{theirs['tol']:.0e}", f"{nats:.2g}", f"{theirs['evaluations']:.0f}"]
    if ours is None:
        return [*head, "–", "no setting", "–", "–", "–"]
    ratios = [f"{row[f'{name}_ratio']:.1f}" for name in ("evaluations", "gradients", "seconds")]
    return [*head, f"{ours['evaluations']:.0f}", _setting(ours), *ratios]


def _setting(row: Row) -> str:
    where = f"{row['steps']} steps" if "steps" in row else f"tol {row['tol']:.0e}"
    return f"{where}, {row['probes']} probe{'s' if row['probes'] > 1 else ''}"
