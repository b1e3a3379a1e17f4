"""What the benchmarks shall reach, and what their rows say of it. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lsgm.progress import markdown_table


@dataclass(frozen=True)
class Target:
    """A bound on a number that some benchmark measures in one run."""

    says: str
    """What is compared with what."""
    limit: float
    unit: str = "×"
    """``×`` of a ratio, ``%`` of a share, whose limit is one of 1."""
    at_least: bool = True
    """Whether the limit is the least, or the most, that will do."""

    def met(self, value: float) -> bool:
        """Return whether a value will do."""
        return value >= self.limit if self.at_least else value <= self.limit

    def shown(self, value: float) -> str:
        """Return a value in the target's unit."""
        return f"{100 * value:.3g} %" if self.unit == "%" else f"{value:.3g} {self.unit}"

    @property
    def asked(self) -> str:
        """The limit in words."""
        return f"{'≥' if self.at_least else '≤'} {self.shown(self.limit)}"


TARGETS: dict[str, Target] = {
    "joint-step": Target("joint step, the paper's two backward passes over one", 1.6),
    "gpu-step": Target("GPU step, float32 eager with two backward passes over bfloat16 compiled", 2.5),
    "sampling-overhead": Target(
        "fixed-step sampling at batch ≥ 16, time outside of networks", 0.03, "%", at_least=False
    ),
    "adaptive-nll": Target(
        "adaptive NLL over the authors' procedure at equal measured error, seconds", 0.5, at_least=False
    ),
    "two-trainings": Target("training, two processes on two cores over one on one", 1.7),
    "two-evaluations": Target("evaluation, two processes on two cores over one on one", 1.8),
    "frechet": Target("Fréchet distance at d = 2048, eigvals of the product over this package", 4.0),
    "flat-memory": Target(
        "memory of a pass over 50,000 images over that of one over 1,000", 1.25, at_least=False
    ),
    "reading": Target("reading PNG files, a PIL loop over two workers", 1.8),
}
"""The targets by the words that rows name them by, in the order of their table."""


def towards(target: str, value: float, of: str, why: str = "") -> dict[str, Any]:
    """Return what a row says of a target: its ``value`` measured ``of`` what; ``why`` where it is missed.

    A row is merged with it: ``{**row, **towards("joint-step", 1.7, "cifar10-fid, batch 8")}``.
    """
    if target not in TARGETS:
        raise KeyError(f"there is no target '{target}'; there is {', '.join(TARGETS)}")
    return {"target": target, "target_value": value, "target_of": of, "target_why": why}


def verdicts(rows: Iterable[Mapping[str, Any]], *, every: bool = True) -> str:
    """Return the table of targets: what was asked, what rows measured, and whether that is met.

    With ``every`` a target that no row speaks of stands there as not measured.
    """
    found: dict[str, list[Mapping[str, Any]]] = {name: [] for name in TARGETS}
    for row in rows:
        if row.get("target") in found:
            found[row["target"]].append(row)
    lines = []
    for name, target in TARGETS.items():
        for row in found[name]:
            value, why = row["target_value"], row["target_why"]
            said = "met" if target.met(value) else "missed" + (why and f": {why}")
            lines.append([target.says, row["target_of"], target.asked, target.shown(value), said])
        if every and not found[name]:
            lines.append([target.says, "–", target.asked, "–", "not measured"])
    return markdown_table(["target", "of", "asked", "measured", ""], lines, 2)
