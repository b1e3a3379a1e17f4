"""What the metrics are called in a table, and what a reader must know to read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lsgm_reports.families import FAMILIES, OFFICIAL, named
from lsgm_reports.rows import Row

__all__ = ["BOUNDS", "GROUPS", "UNKNOWN", "Metric", "Term", "known_metrics", "metric_of", "term_of"]

GROUPS = ("quality", "likelihood", "terms", "cost", "curve", "reach")

BOUNDS = {"nelbo": "NELBO", "iw": "IW bound", "ode_nll": "ODE NLL"}
"""Bounds on -log P(x) by the beginning of their metrics, in the order of a table."""


@dataclass(frozen=True)
class Metric:
    """A metric as a column shows it."""

    key: str
    label: str
    meaning: str
    unit: str
    higher_is_better: bool | None
    space: str = ""
    """Feature space, where it has one."""

    @property
    def arrow(self) -> str:
        """↑, ↓, or nothing where neither direction is better."""
        return {True: " ↑", False: " ↓", None: ""}[self.higher_is_better]

    @property
    def head(self) -> str:
        """Label, unit and arrow."""
        return f"{self.label}{f' ({self.unit})' if self.unit else ''}{self.arrow}"


_KNOWN = {
    "nelbo_nats": ("NELBO", "negative evidence lower bound per image, an upper bound on −log P(x)"),
    "nelbo_bpd": ("NELBO", "the same, per dimension of the image"),
    "iw_nats": (
        "IW bound",
        "importance-weighted bound −log mean over K draws z of p(x, z) / q(z | x): "
        "its expectation is an upper bound on −log P(x) that falls as K grows",
    ),
    "iw_bpd": ("IW bound", "the same, per dimension of the image"),
    "ode_nll_nats": ("ODE NLL", "the bound with the prior's density taken from the probability-flow ODE"),
    "ode_nll_bpd": ("ODE NLL", "the same, per dimension of the image"),
    "paired_nelbo_nats": ("paired NELBO", "mean difference of the bound over the same images"),
    "paired_iw_nats": ("paired IW bound", "mean difference of the bound over the same images"),
    "paired_ode_nll_nats": ("paired ODE NLL", "mean difference of the bound over the same images"),
    "nfe": ("NFE", "evaluations of the score network per image, mean over images"),
    "seconds_per_1000": ("Time / 1,000", "wall-clock seconds to draw 1,000 images on the machine of the run"),
    "parameters": ("Parameters", "trained numbers of all networks"),
}
_UNITS = {"nats/image": "nats", "nats per image": "nats", "bpd": "bits/dim", "bits per dimension": "bits/dim"}
_SAID = ("", "1", "evaluations", "distance", "score", "share", "ratio", "parameters", "nfe")
"""Units that the label says already."""

_DEFAULT_UNITS = {
    "seconds_per_1000": "s",
    **{f"{bound}_nats": "nats" for bound in BOUNDS},
    **{f"{bound}_bpd": "bits/dim" for bound in BOUNDS},
}
_NEUTRAL = ("parameters",)
"""Sizes are facts, not achievements: no arrow, no winner."""


@dataclass(frozen=True)
class Term:
    """What a metric like ``nelbo_term_negative_entropy/0_nats`` is a part of."""

    bound: str
    """Beginning of the bound's metrics, a key of ``BOUNDS``."""
    name: str
    """``negative_entropy``."""
    group: str | None
    """Latent group, ``0`` or ``top``; None for the term of all groups."""


UNKNOWN = "unknown to this version, and shown as it was written"
"""What is said of a metric in place of its meaning."""

_COSTS = ("nfe", "seconds", "flops")


def _reach(metric: str) -> str:
    """Return what is said of costs at equal quality, "" of other metrics."""
    if metric in [f"{cost}_to_reach" for cost in _COSTS]:
        return "what a quality costs per image"
    ratios = [f"{begin}_{cost}" for begin in ("speedup", "speedup_vs_reference") for cost in _COSTS]
    return "ratio of two models' costs at equal quality" if metric in ratios else ""


def known_metrics(metrics: Sequence[str]) -> list[str]:
    """Return the names that this version knows: those of ``metrics`` it does, then all that have no space.

    Of metrics in a feature space, which are open, those in the spaces of ``metrics``.
    """
    spaces = dict.fromkeys(found.space for metric in metrics if (found := named(metric)) is not None)
    fixed = dict.fromkeys(
        [*_KNOWN, *OFFICIAL, *(f"{family}_{space}" for family in FAMILIES for space in spaces)]
    )
    mine = [
        metric
        for metric in dict.fromkeys(metrics)
        if metric in fixed or _reach(metric) or term_of(metric) or named(metric.removeprefix("paired_"))
    ]
    return list(dict.fromkeys([*mine, *fixed]))


def term_of(metric: str) -> Term | None:
    """Return which term of which bound a metric is, or None where it is none."""
    bound, found, rest = metric.partition("_term_")
    if not found:
        return None
    name, _, group = rest.removesuffix("_nats").partition("/")
    return Term(bound, name, group or None)


def metric_of(row: Row) -> Metric:
    """Return how the metric of a row is shown; an unknown one under its own name."""
    space = ""
    if row.metric.startswith("paired_") and named(row.metric.removeprefix("paired_")):
        single = metric_of(replace(row, metric=row.metric.removeprefix("paired_")))
        meaning = f"difference of two models: {single.meaning}"
        return replace(single, key=row.metric, label=f"paired {single.label}", meaning=meaning)
    if (found := named(row.metric)) is not None:
        label, meaning, space = found.label, found.meaning, found.space
    elif (term := term_of(row.metric)) is not None:
        place = f", group {term.group}" if term.group else ""
        label = f"{BOUNDS.get(term.bound, term.bound)}: {term.name.replace('_', ' ')}{place}"
        meaning = "a term of the bound"
    else:
        label, meaning = _KNOWN.get(row.metric) or (row.metric, _reach(row.metric) or UNKNOWN)
    unit = row.unit if row.unit is not None else _DEFAULT_UNITS.get(row.metric, "")
    unit = "" if unit.lower() in _SAID else _UNITS.get(unit, unit)
    better = None if row.metric in _NEUTRAL else row.higher_is_better
    return Metric(row.metric, label, meaning, unit, better, space)
