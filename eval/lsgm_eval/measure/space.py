"""Sample quality in one feature space: every statistic from what a pass has gathered, with its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lsgm.errors import UserError
from lsgm_eval.features.extractor import Classifies, Extractor, Spatial
from lsgm_eval.features.statistics import FeatureStats
from lsgm_eval.metrics.frechet import frechet_distance, frechet_note
from lsgm_eval.metrics.frechet_infinity import frechet_infinity
from lsgm_eval.metrics.inception_score import ClassSums
from lsgm_eval.metrics.intervals import Interval, frechet_bias, frechet_interval, kernel_interval
from lsgm_eval.metrics.kernel import block_kernel_distance
from lsgm_eval.metrics.memorisation import Memorisation, memorisation
from lsgm_eval.metrics.moments import Moments
from lsgm_eval.metrics.precision_recall import density_coverage, precision_recall
from lsgm_eval.metrics.row_file import RowFile
from lsgm_eval.samples.gather import Pass
from lsgm_eval.samples.reference import Reference
from lsgm_eval.spaces import GIVES, OFFICIAL, SpaceSpec, Statistic, metric_name

__all__ = ["Finding", "Gathered", "Space", "measure_space"]

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
    training: Callable[[], NDArray[np.float32] | RowFile] | None = None
    """Features of every training image, for memorisation."""
    held_out: Callable[[], NDArray[np.float32]] | None = None
    """Features of held-out images, for memorisation."""

    @property
    def name(self) -> str:
        """What follows the families in the names of its metrics."""
        name = self.spec.name or self.extractor.name
        stranger = name in OFFICIAL and not getattr(self.extractor, "official", False)
        return f"{name}-unofficial" if stranger else name

    @property
    def label(self) -> str:
        """``name@sha256`` of the network, the extractor column of a result row."""
        return f"{self.extractor.name}@{self.extractor.sha256}"

    def metric(self, family: str) -> str:
        """Return what a family's number is called here."""
        return metric_name(family, self.name)


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


@dataclass(frozen=True)
class Gathered:
    """What one pass has gathered of a model's images in one space."""

    stats: FeatureStats
    """Without rows where the samples are a file of mean and covariance."""
    spatial: FeatureStats | None = None
    classes: ClassSums | None = None
    counted: bool = True
    """Whether it is known how many images the moments are of."""

    @classmethod
    def of(cls, found: Pass, extractor: Extractor) -> Gathered:
        """Return what a pass has of one extractor."""
        classes = found.others.get(extractor.name, {}).get("classes")
        return cls(
            found.stats[extractor.name],
            found.spatial.get(extractor.name),
            classes if isinstance(classes, ClassSums) else None,
        )


class _Job:
    """All that the statistics share, computed when the first of them asks."""

    def __init__(self, found: Gathered, space: Space) -> None:
        self.found, self.space, self.reference = found, space, space.reference
        self.stats, self.rows = found.stats, found.stats.rows

    def needs_rows(self) -> None:
        for side, rows in (("the reference is", self.reference.stats.rows), ("the samples are", self.rows)):
            if not len(rows):
                raise UserError(
                    f"{side} a file of mean and covariance, which tells Frechet distances only: kernel "
                    "distances, precision and recall need the features of its images"
                )

    @cached_property
    def memorisation(self) -> Memorisation:
        if self.space.training is None or self.space.held_out is None:
            raise UserError("the training and held-out images of the task are not at hand")
        return memorisation(self.rows, self.space.training(), self.space.held_out())


def measure_space(found: Gathered, space: Space) -> tuple[list[Finding], Memorisation | None]:
    """Return the findings of a space's statistics in order, and the neighbours behind ``memorised``.

    A statistic that cannot be told from these images is a finding without a value, whose note says why; one
    that the extractor has nothing for, such as classes or places, is none.
    """
    job = _Job(found, space)
    findings: list[Finding] = []
    for statistic in space.spec.statistics:
        if not isinstance(space.extractor, _NEEDS.get(statistic, object)):
            continue
        try:
            findings += _MEASURES[statistic](job)
        except UserError as error:
            findings += [Finding(family, None, str(error)) for family in GIVES[statistic]]
    known = job.__dict__.get("memorisation")
    return findings, known if isinstance(known, Memorisation) else None


def _frechet(job: _Job) -> list[Finding]:
    moments, reference = job.stats.moments, job.reference.stats.moments
    singular = frechet_note(reference)
    notes = [frechet_note(moments), f"reference: {singular}" if singular else ""]
    if not (len(job.rows) and job.found.counted):
        return [_bare("frechet", moments, reference, notes)]
    bias = frechet_bias(job.rows, reference, moments.count)
    notes.insert(0, _bias_note(bias))
    return [Finding("frechet", frechet_interval(moments, reference, job.rows), _joined(notes), bias=bias)]


def _bare(family: str, moments: Moments, reference: Moments, notes: list[str]) -> Finding:
    """Return the distance of samples of which a file tells mean and covariance."""
    said = "no interval: mean and covariance do not tell how the images scatter, or how many they are"
    return Finding(family, None, _joined([said, *notes]), frechet_distance(moments, reference))


def _kernel(job: _Job) -> list[Finding]:
    job.needs_rows()
    reference = job.reference.stats
    if min(len(job.rows), len(reference.rows)) < 3:
        raise UserError("a kernel distance needs at least 3 images on each side: give more")
    interval = kernel_interval(job.rows, reference.rows, within_y=reference.within)
    notes = ["unbiased", _of_rows(job)]
    if min(len(job.rows), len(reference.rows)) >= KID_SIZE:
        blocks = block_kernel_distance(job.rows, reference.rows, size=KID_SIZE)
        notes.append(
            f"mean and standard deviation over {blocks.subsets} subsets of {blocks.size:,}, as tables print "
            f"it: {blocks.mean:.4g} ± {blocks.deviation:.2g}"
        )
    return [Finding("kernel", interval, _joined(notes))]


def _infinity(job: _Job) -> list[Finding]:
    found = frechet_infinity(job.rows, job.reference.stats.moments)
    points = ", ".join(f"{point.value:.4g} at {point.count:,}" for point in found.points)
    note = f"extrapolated to infinitely many images: {points}; by a parabola {found.curved:.4g}"
    return [Finding("frechet_infinity", found.interval, _joined([note, _of_rows(job)]))]


def _spatial(job: _Job) -> list[Finding]:
    ours, theirs = job.found.spatial, job.reference.spatial
    if ours is None or theirs is None:
        side = "the reference" if theirs is None else "the file of samples"
        raise UserError(
            f"{side} was given without statistics of spatial features (mu_s, sigma_s): compute it from images"
        )
    if not (len(ours.rows) and job.found.counted):
        return [_bare("spatial_frechet", ours.moments, theirs, [frechet_note(ours.moments)])]
    bias = frechet_bias(ours.rows, theirs, ours.moments.count)
    notes = [_bias_note(bias), frechet_note(ours.moments), _of_rows(job)]
    interval = frechet_interval(ours.moments, theirs, ours.rows)
    return [Finding("spatial_frechet", interval, _joined(notes), bias=bias)]


def _score(job: _Job) -> list[Finding]:
    if job.found.classes is None:
        raise UserError("an Inception Score has ten splits and needs an image in each: ask for more images")
    score = job.found.classes.score()
    note = f"standard deviation over {len(score.splits)} splits, as tables print it: {score.deviation:.2g}"
    return [Finding("inception_score", score.interval, note)]


def _precision(job: _Job) -> list[Finding]:
    job.needs_rows()
    k = 3
    found = precision_recall(job.rows, job.reference.stats.rows, k=k, y_radii=job.reference.radii(k))
    note = f"k = {k}, {len(job.rows):,} samples and {len(job.reference.stats.rows):,} reference images"
    return [Finding("precision", found.precision, note), Finding("recall", found.recall, note)]


def _density(job: _Job) -> list[Finding]:
    job.needs_rows()
    k = 5
    found = density_coverage(job.rows, job.reference.stats.rows, k=k, y_radii=job.reference.radii(k))
    note = f"k = {k}, {len(job.rows):,} samples and {len(job.reference.stats.rows):,} reference images"
    return [Finding("density", found.density, note), Finding("coverage", found.coverage, note)]


def _memorised(job: _Job) -> list[Finding]:
    found = job.memorisation
    note = (
        f"{found.share:.2%} of samples are nearer to a training image than {found.threshold:.4g}, less "
        f"{found.held_out_share:.2%} of held-out images; C_T = {found.c_t:.1f}, below -3 is copying; "
        f"nearer than a held-out image with probability {found.closer.value:.3f}"
    )
    return [Finding("memorised", found.excess, note)]


_MEASURES: Mapping[Statistic, Callable[[_Job], list[Finding]]] = {
    "frechet": _frechet,
    "kernel": _kernel,
    "frechet-infinity": _infinity,
    "spatial-frechet": _spatial,
    "inception-score": _score,
    "precision-recall": _precision,
    "density-coverage": _density,
    "memorisation": _memorised,
}


_NEEDS: Mapping[Statistic, type] = {"inception-score": Classifies, "spatial-frechet": Spatial}


def _bias_note(bias: float) -> str:
    return f"upward bias at this n about {bias:.2g}, not subtracted"


def _of_rows(job: _Job) -> str:
    total = job.stats.moments.count
    return f"of {len(job.rows):,} of the {total:,} images" if len(job.rows) < total else ""


def _joined(notes: list[str]) -> str:
    return "; ".join(note for note in notes if note)
