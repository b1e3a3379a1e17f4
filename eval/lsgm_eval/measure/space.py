"""Sample quality in one feature space: every statistic from what a pass has gathered, with its interval."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lsgm.errors import UserError
from lsgm.results.metrics import DISTANCES, families, families_of, metric_name, official_spaces
from lsgm_eval.features.extractor import Classifies, Extractor, Spatial, label_of
from lsgm_eval.metrics.frechet import (
    frechet_bias,
    frechet_distance,
    frechet_infinity,
    frechet_interval,
    frechet_note,
)
from lsgm_eval.metrics.intervals import Interval
from lsgm_eval.metrics.kernel import block_kernel_distance, kernel_distance
from lsgm_eval.metrics.memorisation import Memorisation, memorisation
from lsgm_eval.metrics.moments import FeatureStats, Moments
from lsgm_eval.metrics.precision_recall import StoredRows, density_coverage, precision_recall
from lsgm_eval.samples.collect import Gathered
from lsgm_eval.samples.reference import Reference
from lsgm_eval.task import SpaceSpec

KID_SIZE = 1000
"""Images in each of the subsets whose mean and spread tables print as KID."""


@dataclass(frozen=True)
class Space:
    """A feature space at hand: its network, the reference in it, and what else its statistics need."""

    spec: SpaceSpec
    extractor: Extractor
    reference: Reference
    floor: str = ""
    """A remark on how far held-out images are from the reference."""
    training: Callable[[], StoredRows] | None = None
    """Features of every training image, for memorisation."""
    held_out: Callable[[], NDArray[np.float32]] | None = None
    """Features of held-out images, for memorisation."""

    @property
    def name(self) -> str:
        """What follows the families in the names of its metrics."""
        name = self.spec.name or self.extractor.name
        stranger = name in official_spaces() and not getattr(self.extractor, "official", False)
        return f"{name}-unofficial" if stranger else name

    @property
    def label(self) -> str:
        """``name@sha256`` of the network, the extractor column of a result row."""
        return label_of(self.extractor)

    def metric(self, family: str) -> str:
        """Return what a family's number is called here."""
        return metric_name(family, self.name)

    def with_distances(self) -> Space:
        """Return the space with its distances alone, which is what a point of a curve or a floor is of."""
        kept = tuple(statistic for statistic in self.spec.statistics if statistic in DISTANCES)
        return replace(self, spec=replace(self.spec, statistics=kept or DISTANCES), floor="")


@dataclass(frozen=True)
class Finding:
    """One number of a model in a space; None where it cannot be told, for the reason that the note gives."""

    family: str
    interval: Interval | None
    note: str
    bare: float | None = None
    """The number where it has no interval."""
    bias: float | None = None
    """Estimated upward bias at this number of images; None where there is none, or it is not known."""

    @property
    def value(self) -> float | None:
        """The number, with an interval or without."""
        return self.interval.value if self.interval else self.bare


class Features:
    """A model's features and the reference's in one space: what a statistic is computed from."""

    def __init__(self, gathered: Gathered, space: Space) -> None:
        self.gathered, self.space, self.reference = gathered, space, space.reference
        self.moments, self.rows = gathered.stats.moments, gathered.stats.rows

    def needs_rows(self) -> None:
        """Raise UserError where either side is a file of mean and covariance."""
        for side, rows in (("the reference is", self.reference.stats.rows), ("the samples are", self.rows)):
            if not len(rows):
                raise UserError(
                    f"{side} a file of mean and covariance, which tells Frechet distances only: kernel "
                    "distances, precision and recall need the features of its images"
                )

    @cached_property
    def memorisation(self) -> Memorisation:
        """How close samples come to training images, by which neighbours are shown as well."""
        if self.space.training is None or self.space.held_out is None:
            raise UserError("the training and held-out images of the task are not at hand")
        return memorisation(self.rows, self.space.training(), self.space.held_out())

    @property
    def of_rows(self) -> str:
        """What a note says of a statistic of the rows kept; nothing where these are all."""
        total = self.moments.count
        return f"of {len(self.rows):,} of the {total:,} images" if len(self.rows) < total else ""


def measure_space(gathered: Gathered, space: Space) -> tuple[list[Finding], Memorisation | None]:
    """Return the findings of a space's statistics in order, and the neighbours behind ``memorised``.

    A statistic that cannot be told from these images is a finding without a value, whose note says why; one
    that the extractor has nothing for, such as classes or places, is none.
    """
    features = Features(gathered, space)
    findings: list[Finding] = []
    for statistic in space.spec.statistics:
        if not isinstance(space.extractor, _NEEDS.get(statistic, object)):
            continue
        try:
            findings += list(_measure_of(statistic)(features))
        except UserError as error:
            findings += [Finding(family, None, str(error)) for family in families_of(statistic)]
    known = features.__dict__.get("memorisation")
    return findings, known if isinstance(known, Memorisation) else None


def _frechet(found: Features) -> Iterable[Finding]:
    reference = found.reference.stats.moments
    singular = frechet_note(reference)
    notes = [frechet_note(found.moments), f"reference: {singular}" if singular else ""]
    yield _distance("frechet", found, found.gathered.stats, reference, notes)


def _spatial(found: Features) -> Iterable[Finding]:
    ours, theirs = found.gathered.spatial, found.reference.spatial
    if ours is None or theirs is None:
        side = "the reference" if theirs is None else "the file of samples"
        raise UserError(
            f"{side} was given without statistics of spatial features (mu_s, sigma_s): compute it from images"
        )
    kept = found.of_rows if len(ours.rows) and found.gathered.counted else ""
    yield _distance("spatial_frechet", found, ours, theirs, [frechet_note(ours.moments), kept])


def _distance(
    family: str, found: Features, ours: FeatureStats, reference: Moments, notes: list[str]
) -> Finding:
    """Return a Frechet distance with interval and bias; of a file of statistics there are none."""
    if not (len(ours.rows) and found.gathered.counted):
        said = "no interval: mean and covariance do not tell how the images scatter, or how many they are"
        return Finding(family, None, joined(said, *notes), frechet_distance(ours.moments, reference))
    bias = frechet_bias(ours.rows, reference, ours.moments.count)
    note = joined(f"upward bias at this n about {bias:.2g}, not subtracted", *notes)
    return Finding(family, frechet_interval(ours.moments, reference, ours.rows), note, bias=bias)


def _kernel(found: Features) -> Iterable[Finding]:
    found.needs_rows()
    rows, reference = found.rows, found.reference.stats.rows
    if min(len(rows), len(reference)) < 3:
        raise UserError("a kernel distance needs at least 3 images on each side: give more")
    interval = kernel_distance(rows, reference, within_y=found.reference.within)
    notes = ["unbiased", found.of_rows]
    if min(len(rows), len(reference)) >= KID_SIZE:
        blocks = block_kernel_distance(rows, reference, size=KID_SIZE)
        notes.append(
            f"mean and standard deviation over {blocks.subsets} subsets of {blocks.size:,}, as tables print "
            f"it: {blocks.mean:.4g} ± {blocks.deviation:.2g}"
        )
    yield Finding("kernel", interval, joined(*notes))


def _infinity(found: Features) -> Iterable[Finding]:
    fit = frechet_infinity(found.rows, found.reference.stats.moments)
    points = ", ".join(f"{point.value:.4g} at {point.count:,}" for point in fit.points)
    note = f"extrapolated to infinitely many images: {points}; by a parabola {fit.curved:.4g}"
    yield Finding("frechet_infinity", fit.interval, joined(note, found.of_rows))


def _score(found: Features) -> Iterable[Finding]:
    if found.gathered.classes is None:
        raise UserError("an Inception Score has ten splits and needs an image in each: ask for more images")
    score = found.gathered.classes.score()
    note = f"standard deviation over {len(score.splits)} splits, as tables print it: {score.deviation:.2g}"
    yield Finding("inception_score", score.interval, note)


def _precision(found: Features) -> Iterable[Finding]:
    note = _manifolds(found, 3)
    both = precision_recall(found.rows, found.reference.stats.rows, k=3, y_radii=found.reference.radii(3))
    return [Finding("precision", both.precision, note), Finding("recall", both.recall, note)]


def _density(found: Features) -> Iterable[Finding]:
    note = _manifolds(found, 5)
    both = density_coverage(found.rows, found.reference.stats.rows, k=5, y_radii=found.reference.radii(5))
    return [Finding("density", both.density, note), Finding("coverage", both.coverage, note)]


def _manifolds(found: Features, k: int) -> str:
    """Return what is said of both sides' manifolds, which need their rows."""
    found.needs_rows()
    return f"k = {k}, {len(found.rows):,} samples and {len(found.reference.stats.rows):,} reference images"


def _memorised(found: Features) -> Iterable[Finding]:
    near = found.memorisation
    note = (
        f"{near.share:.2%} of samples are nearer to a training image than {near.threshold:.4g}, less "
        f"{near.held_out_share:.2%} of held-out images; C_T = {near.c_t:.1f}, below -3 is copying; "
        f"nearer than a held-out image with probability {near.closer.value:.3f}"
    )
    yield Finding("memorised", near.excess, note)


_MEASURES: Mapping[str, Callable[[Features], Iterable[Finding]]] = {
    "frechet": _frechet,
    "kernel": _kernel,
    "frechet-infinity": _infinity,
    "spatial-frechet": _spatial,
    "inception-score": _score,
    "precision-recall": _precision,
    "density-coverage": _density,
    "memorisation": _memorised,
}


def _measure_of(statistic: str) -> Callable[[Features], Iterable[Finding]]:
    """Return what measures a statistic, a plug-in's by the name that its registered metric gives."""
    if statistic in _MEASURES:
        return _MEASURES[statistic]
    place = families()[families_of(statistic)[0]].measured_by
    module, _, name = place.partition(":")
    try:
        found: Callable[[Features], Iterable[Finding]] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"nothing here measures '{statistic}': its metric says measured_by='{place}', which must be the "
            "module:function of an installed package"
        ) from error
    return found


_NEEDS: Mapping[str, type] = {"inception-score": Classifies, "spatial-frechet": Spatial}


def joined(*notes: str) -> str:
    """Return remarks as one note, those that say something."""
    return "; ".join(note for note in notes if note)
