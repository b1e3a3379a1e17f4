"""The metrics: what each is measured in, which way is better, what it is called and what it means.

One entry says all of it. To add a metric, write a module with an entry,

    MMD = Metric("mmd", "distance", False, "quality", "MMD", "what it is in '{space}'", in_space=True,
                 statistic="mmd", measured_by="my_package.mmd:measure")

and name it in the entry-point group ``lsgm.metrics``: ``mmd = "my_package.mmd:MMD"``, an entry or a tuple of
them. A metric of a row that no entry knows, from a newer version or of a plug-in that is not installed, is
shown under its own name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from lsgm.discovery import offers
from lsgm.errors import ConfigError, did_you_mean
from lsgm.results.row import Row


@dataclass(frozen=True)
class PublishedName:
    """The name under which the numbers of one feature space are published: FID only where it is FID."""

    space: str
    """Name of an extractor with its official weights."""
    name: str
    """Of the metric in rows: ``fid``."""
    label: str
    meaning: str


@dataclass(frozen=True)
class Metric:
    """One metric, or a family of them: one in each feature space."""

    name: str
    """As rows call it; of a family what stands before the space, ``frechet`` in ``frechet_glyphs``."""
    unit: str
    higher_is_better: bool | None
    """Which way is better; None: neither."""
    group: str
    """The heading under which it goes (`lsgm.results.row.GROUPS`)."""
    label: str
    meaning: str
    """What a reader must know; of a family with ``{space}`` in it."""
    in_space: bool = False
    """Whether it is a family of feature spaces."""
    published: tuple[PublishedName, ...] = ()
    statistic: str = ""
    """What a task calls the statistic that gives a family, perhaps with others."""
    headline: bool = False
    """Whether a model is known by this family; the others are details."""
    ranked: bool = True
    """Whether the better of two is an achievement: a size is a fact, and has no arrow and no winner."""
    measured_by: str = ""
    """Of a plug-in's family the function ``module:name`` that measures its statistic."""


_INCEPTION = "of Inception-v3 features by torch-fidelity's protocol"
_CLEAN = "of Inception-v3 features by clean-fid's protocol, which resizes otherwise than torch-fidelity"
_SMALL = "fewer samples raise it, so that it compares at the same n only"
_BETTER_LOW, _BETTER_HIGH = False, True


def _family(
    name: str,
    unit: str,
    better: bool | None,
    label: str,
    meaning: str,
    statistic: str,
    *published: PublishedName,
) -> Metric:
    """Return a family; without another name its own is what is published of it in the Inception's space."""
    published = published or (PublishedName("inception", name, label, meaning.format(space="inception")),)
    return Metric(name, unit, better, "quality", label, meaning, True, published, statistic)


_FAMILIES = (
    _family(
        "frechet",
        "distance",
        _BETTER_LOW,
        "Fréchet",
        "Fréchet distance to the reference images in the feature space '{space}', plug-in estimate: "
        "comparable at the same n only, and not a FID",
        "frechet",
        PublishedName("inception", "fid", "FID", f"Fréchet distance {_INCEPTION}; {_SMALL}"),
        PublishedName(
            "inception-clean",
            "fid_clean",
            "FID (clean-fid)",
            f"Fréchet distance {_CLEAN}: the two FIDs do not compare with each other; {_SMALL}",
        ),
    ),
    _family(
        "kernel",
        "distance",
        _BETTER_LOW,
        "Kernel",
        "squared maximum mean discrepancy in the feature space '{space}' (polynomial, unbiased: may be < 0)",
        "kernel",
        PublishedName(
            "inception",
            "kid",
            "KID",
            f"squared maximum mean discrepancy {_INCEPTION}, over all pairs (unbiased: may be < 0)",
        ),
        PublishedName(
            "inception-clean",
            "kid_clean",
            "KID (clean-fid)",
            f"squared maximum mean discrepancy {_CLEAN}, over all pairs (unbiased: may be < 0)",
        ),
    ),
    _family(
        "inception_score",
        "score",
        _BETTER_HIGH,
        "Class score",
        "exp of the mean KL from the average class probabilities to an image's, classified by '{space}': "
        "knows no reference, and is not an Inception Score",
        "inception-score",
        PublishedName(
            "inception",
            "inception_score",
            "Inception Score",
            "exp of the mean KL from the average class probabilities to an image's, by Inception-v3 with "
            "torch-fidelity's protocol; it knows no reference",
        ),
    ),
    _family(
        "precision",
        "share",
        _BETTER_HIGH,
        "Precision",
        "share of samples that are nearer to some reference image than its own k-th neighbour is, in the "
        "feature space '{space}' (arXiv:1904.06991)",
        "precision-recall",
    ),
    _family(
        "recall",
        "share",
        _BETTER_HIGH,
        "Recall",
        "share of reference images that are nearer to some sample than its own k-th neighbour is, in the "
        "feature space '{space}' (arXiv:1904.06991)",
        "precision-recall",
    ),
    _family(
        "density",
        "ratio",
        _BETTER_HIGH,
        "Density",
        "number of reference images to which a sample is nearer than their k-th neighbour, over k, in the "
        "feature space '{space}' (arXiv:2002.09797): about 1 for the data itself, and it may exceed 1",
        "density-coverage",
    ),
    _family(
        "coverage",
        "share",
        _BETTER_HIGH,
        "Coverage",
        "share of reference images that have a sample nearer than their k-th neighbour, in the feature "
        "space '{space}' (arXiv:2002.09797)",
        "density-coverage",
    ),
    _family(
        "frechet_infinity",
        "distance",
        _BETTER_LOW,
        "Fréchet∞",
        "Fréchet distance in the feature space '{space}' extrapolated to infinitely many samples "
        "(arXiv:1911.07023), and not a FID",
        "frechet-infinity",
        PublishedName(
            "inception",
            "fid_infinity",
            "FID∞",
            "FID by torch-fidelity's protocol extrapolated to infinitely many samples (arXiv:1911.07023)",
        ),
    ),
    _family(
        "spatial_frechet",
        "distance",
        _BETTER_LOW,
        "Spatial Fréchet",
        "Fréchet distance of features that keep their place in the image, in the feature space '{space}', "
        "and not an sFID",
        "spatial-frechet",
        PublishedName(
            "inception",
            "sfid",
            "sFID",
            "Fréchet distance of Inception-v3 features that keep their place in the image (arXiv:2103.03841)",
        ),
    ),
    _family(
        "memorised",
        "share",
        None,
        "Memorised",
        "share of samples nearer to a training image than 1 in 100 held-out images is, less the share of "
        "held-out images, in the feature space '{space}': about 0 where nothing is copied",
        "memorisation",
    ),
)
"""Families of sample quality, in the order of a table's columns."""

_HEADLINE = ("frechet", "kernel", "inception_score")
DISTANCES = ("frechet", "kernel")
"""The statistics of a point of a curve, and of a space that names none."""

BOUNDS = {"nelbo": "NELBO", "iw": "IW bound", "ode_nll": "ODE NLL"}
"""Bounds on -log P(x) by the beginning of their metrics, in the order of a table."""
_BOUNDS = {
    "nelbo": "negative evidence lower bound per image, an upper bound on −log P(x)",
    "iw": "importance-weighted bound −log mean over K draws z of p(x, z) / q(z | x): "
    "its expectation is an upper bound on −log P(x) that falls as K grows",
    "ode_nll": "the bound with the prior's density taken from the probability-flow ODE",
}


def _bounds(bound: str) -> Iterable[Metric]:
    label, nats, better = BOUNDS[bound], "nats/image", _BETTER_LOW
    per_dimension = "the same, per dimension of the image"
    paired = "mean difference of the bound over the same images"
    yield Metric(f"{bound}_nats", nats, better, "likelihood", label, _BOUNDS[bound])
    yield Metric(f"{bound}_bpd", "bits/dim", better, "likelihood", label, per_dimension)
    yield Metric(f"paired_{bound}_nats", nats, better, "likelihood", f"paired {label}", paired)


def _reach() -> Iterable[Metric]:
    units = {"nfe": "evaluations/image", "seconds": "s/image", "flops": "FLOP/image"}
    for cost, unit in units.items():
        name, said = f"{cost}_to_reach", "what a quality costs per image"
        yield Metric(name, unit, _BETTER_LOW, "reach", name, said)
        for begin in ("speedup", "speedup_vs_reference"):
            name, said = f"{begin}_{cost}", "ratio of two models' costs at equal quality"
            yield Metric(name, "ratio", _BETTER_HIGH, "reach", name, said)


_OWN = (
    *(replace(family, headline=family.name in _HEADLINE) for family in _FAMILIES),
    *(metric for bound in BOUNDS for metric in _bounds(bound)),
    Metric(
        *("nfe", "evaluations", _BETTER_LOW, "cost", "NFE"),
        "evaluations of the score network per image, mean over images",
    ),
    Metric(
        *("seconds_per_1000", "s", _BETTER_LOW, "cost", "Time / 1,000"),
        "wall-clock seconds to draw 1,000 images on the machine of the run",
    ),
    Metric(
        *("parameters", "parameters", _BETTER_LOW, "cost", "Parameters"),
        "trained numbers of all networks",
        ranked=False,
    ),
    *_reach(),
)


# The registry: own metrics and those of plug-ins


@cache
def metrics() -> Mapping[str, Metric]:
    """Return all metrics by name: families in the order of a table's columns, bounds, costs, plug-ins'.

    Raises ConfigError where what a package offers is no metric, or has the name of another one.
    """
    found = {metric.name: metric for metric in _OWN}
    for name, point in offers("lsgm.metrics").items():
        offered = point.load()
        for metric in (offered,) if isinstance(offered, Metric) else offered:
            if not isinstance(metric, Metric) or metric.name in found:
                raise ConfigError(
                    f"the entry point '{name}' of lsgm.metrics, {point.value}, offers {metric!r:.80}: give a "
                    "Metric, or a tuple of them, whose names no other metric has"
                )
            found[metric.name] = metric
    return found


@cache
def families() -> Mapping[str, Metric]:
    """Return the families of feature spaces by name, in the order of a table's columns."""
    return {name: metric for name, metric in metrics().items() if metric.in_space}


@cache
def statistics() -> Mapping[str, tuple[str, ...]]:
    """Return what a task may ask for in a feature space: statistic -> the families that it gives."""
    found: dict[str, tuple[str, ...]] = {}
    for name, metric in families().items():
        found[metric.statistic or name] = (*found.get(metric.statistic or name, ()), name)
    return found


def require_statistic(name: str) -> str:
    """Return the name of a statistic. Raises ConfigError, with the nearest, where there is none of it."""
    if name not in statistics():
        near = did_you_mean(name, statistics()) or f"; there are {', '.join(statistics())}"
        raise ConfigError(f"there is no statistic '{name[:60]}'{near}")
    return name


def families_of(statistic: str) -> tuple[str, ...]:
    """Return the families of a statistic's rows, which stand before the name of the space."""
    return statistics()[statistic]


@cache
def _published() -> Mapping[str, tuple[Metric, PublishedName]]:
    return {each.name: (metric, each) for metric in families().values() for each in metric.published}


def official_spaces() -> set[str]:
    """Return the names of the extractors whose numbers are published under names of their own."""
    return {each.space for _, each in _published().values()}


def metric_name(family: str, space: str) -> str:
    """Return ``frechet_glyphs``, or ``fid`` where the space is the one that FID is defined in."""
    own = (each.name for each in families()[family].published if each.space == space)
    return next(own, f"{family}_{space}")


# What the name of a metric says


@dataclass(frozen=True)
class Named:
    """What the name of a metric says: ``frechet_infinity_glyphs`` is a family in a feature space."""

    family: str
    space: str
    label: str
    meaning: str
    official: bool
    """Whether it is what others publish under this label."""


def named(metric: str) -> Named | None:
    """Return family and space of a metric's name, or None where it is of no feature space.

    Of several families that a name begins with the longest is meant.
    """
    if metric in _published():
        family, own = _published()[metric]
        return Named(family.name, own.space, own.label, own.meaning, True)
    found = [family for family in families().values() if metric.startswith(f"{family.name}_")]
    if not found:
        return None
    family = max(found, key=lambda family: len(family.name))
    space = metric.removeprefix(f"{family.name}_")
    return Named(family.name, space, family.label, family.meaning.replace("{space}", space), False)


def family_of(metric: str) -> str | None:
    """Return the family of a metric's name, or None where it is of no feature space."""
    found = named(metric)
    return found.family if found else None


@dataclass(frozen=True)
class Term:
    """What a metric like ``nelbo_term_negative_entropy/0_nats`` is a part of."""

    bound: str
    """Beginning of the bound's metrics, a key of ``BOUNDS``."""
    name: str
    """``negative_entropy``."""
    group: str | None
    """Latent group, ``0`` or ``top``; None for the term of all groups."""


def term_of(metric: str) -> Term | None:
    """Return which term of which bound a metric is, or None where it is none."""
    bound, found, rest = metric.partition("_term_")
    if not found:
        return None
    name, _, group = rest.removesuffix("_nats").partition("/")
    return Term(bound, name, group or None)


_TERM = re.compile(rf"({'|'.join(BOUNDS)})_term_[a-z_]+(/\w+)?_nats")
"""A part of a bound, of all latent groups or of one, as it is written."""


def entry_of(metric: str) -> Metric:
    """Return the entry of a metric that is measured here: of its family, or of the terms of a bound.

    Raises KeyError where there is none: what is written must be known.
    """
    if _TERM.fullmatch(metric):
        return Metric(metric, "nats/image", None, "terms", metric, "a term of the bound")
    return metrics()[family_of(metric.removeprefix("paired_")) or metric]


# How a metric is shown

UNKNOWN = "unknown to this version, and shown as it was written"
"""What is said of a metric in place of its meaning."""
_UNITS = {"nats/image": "nats", "nats per image": "nats", "bpd": "bits/dim", "bits per dimension": "bits/dim"}
_SAID = ("", "1", "evaluations", "distance", "score", "share", "ratio", "parameters", "nfe")
"""Units that the label says already."""


@dataclass(frozen=True)
class Shown:
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


def metric_of(row: Row) -> Shown:
    """Return how the metric of a row is shown; an unknown one under its own name."""
    single = row.metric.removeprefix("paired_")
    if single != row.metric and named(single):
        shown = metric_of(replace(row, metric=single))
        meaning = f"difference of two models: {shown.meaning}"
        return replace(shown, key=row.metric, label=f"paired {shown.label}", meaning=meaning)
    entry = metrics().get(row.metric)
    if entry is not None and entry.in_space:
        entry = None  # a family without its space says less than its name
    ranked, unit, space = entry is None or entry.ranked, entry.unit if entry else "", ""
    if (found := named(row.metric)) is not None:
        label, meaning, space = found.label, found.meaning, found.space
    elif (term := term_of(row.metric)) is not None:
        place = f", group {term.group}" if term.group else ""
        label = f"{BOUNDS.get(term.bound, term.bound)}: {term.name.replace('_', ' ')}{place}"
        meaning = "a term of the bound"
    else:
        label, meaning = (entry.label, entry.meaning) if entry else (row.metric, UNKNOWN)
    unit = row.unit if row.unit is not None else unit
    unit = "" if unit.lower() in _SAID else _UNITS.get(unit, unit)
    return Shown(row.metric, label, meaning, unit, row.higher_is_better if ranked else None, space)


def known_metrics(given: Sequence[str]) -> list[str]:
    """Return the names that this version knows: those of ``given`` it does, then all that have no space.

    Of metrics in a feature space, which are open, those in the spaces of ``given``.
    """
    spaces = dict.fromkeys(found.space for metric in given if (found := named(metric)) is not None)
    fixed = dict.fromkeys(
        [
            *(name for name, metric in metrics().items() if not metric.in_space and metric.group != "reach"),
            *_published(),
            *(f"{family}_{space}" for family in families() for space in spaces),
        ]
    )
    mine = [
        metric
        for metric in dict.fromkeys(given)
        if metric in fixed or metric in metrics() or term_of(metric) or named(metric.removeprefix("paired_"))
    ]
    return list(dict.fromkeys([*mine, *fixed]))
