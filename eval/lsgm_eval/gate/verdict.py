r"""How far a value may be from its golden one: from recorded errors and a chance of a false alarm.

**Estimates.** R repeats with seeds of their own gave a mean m and the standard error s of one measurement,
with nu degrees of freedom. A further measurement y of the same model obeys

.. math:: \frac{y - m}{s \sqrt{1 + 1/R}} \sim t_\nu,

Student's predictive distribution (exact where measurements are Normal, which means over hundreds of images
and distances of a hundred samples are close to). A gate of k rows allows each |y - m| up to the quantile at
1 - a / 2k: by Bonferroni's inequality a gate of an unchanged model then fails with a chance of at most
a = 1e-4, however the rows depend on one another; a hundred gates with at most one in a hundred.

The noise of a bound is independent between images, so that s^2 = sum_i s_i^2 / N^2 from the spread s_i of
each image over the repeats, with nearly N (R - 1) degrees of freedom (Satterthwaite's, below): t is then 4.5
instead of the 7.8 of 11 degrees.

Importance sampled times can have weights without bound. A data-space model's bound was seen to be a hundred
nats of most draws and 700,000 of one in 6,000: a mean that no number of repeats knows the error of, which
either finds the freak among them, and then allows anything, or does not, and then cries wolf. So values of
images are cut at the `CUT` and 1 - `CUT` quantiles of all repeats, as golden means and as measured ones
(Winsorised means): what a thousandth of the draws does is left to the replays.

**Replays** are no estimates: only rounding moves them. What it does was seen by computing the same numbers
in other batches, with other threads and in float64 arithmetic; another processor sums in another order, and
errors of rounding then differ by small factors, not by orders of magnitude. `HEADROOM` times the largest
difference seen is allowed of an image, and `HEADROOM` times the mean difference of all: four of a float's 24
bits. That a change is told from rounding needs no more: 2 % of a weight moves terms by 1e-3 and more of their
size, and rounding by 1e-7.

**Drawn images** have levels that rounding turns over where a number lies on an edge: rarely and each by
itself, so that counts are Poisson's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, pdtrik, stdtrit

from lsgm.errors import UserError
from lsgm.files.names import shown
from lsgm.files.write import atomic_path
from lsgm_eval.gate.golden import EstimateRow, Golden, ImagesRow, ReplayRow, Row, default_golden, read_golden
from lsgm_eval.gate.measure import (
    Measured,
    Repeat,
    measure_estimates,
    measure_replays,
    open_subject,
    require_same,
    task_of,
)

Array = NDArray[np.float64]

FALSE_ALARM = 1e-4
"""Chance that a gate of an unchanged model fails at all."""
CUT = 1e-3
"""Share of images' values at either end of an estimate that are moved to where the others end."""
HEADROOM = 16.0
"""How much larger rounding may be elsewhere than where the golden rows were written."""
FLOAT32 = 2.0**-24
"""Relative rounding of one float32 number: what a row is known to at best."""


def predictive_margin(error: float, df: float, repeats: int, chance: float) -> float:
    r"""Return t_{df}(1 - chance) * error * sqrt(1 + 1 / repeats).

    ``chance`` is that of a further measurement beyond the mean of the repeats plus this margin, on one side.
    """
    return float(stdtrit(df, 1 - chance)) * error * math.sqrt(1 + 1 / repeats)


def paired_margin(differences: NDArray[Any], chance: float) -> float:
    """Return t_{N-1}(1 - chance) times the standard error of the mean of differences [N], N >= 2.

    Of images drawn from a population it covers the sampling of the images, and the noise of both values of
    every image, since both are in the differences.
    """
    x = np.asarray(differences, dtype=np.float64)
    return float(stdtrit(len(x) - 1, 1 - chance)) * float(x.std(ddof=1)) / math.sqrt(len(x))


def pooled_error(values: NDArray[Any]) -> tuple[float, float]:
    r"""Return the standard error of one measurement, and its degrees of freedom, from values [R, N].

    .. math:: s^2 = \frac{1}{N^2} \sum_i s_i^2, \qquad
        \nu = (R - 1) \frac{(\sum_i s_i^2)^2}{\sum_i s_i^4}

    with s_i^2 the variance of image i over R repeats: what the mean over N images, independent given the
    images, varies by (Satterthwaite, 1946). s_i^4 is itself estimated, too large by a factor
    (R + 1) / (R - 1), so that nu is on the small side, which widens the tolerance.
    """
    x = np.asarray(values, dtype=np.float64)
    repeats, count = x.shape
    variance = x.var(axis=0, ddof=1)
    total = float(variance.sum())
    if total == 0.0:
        return 0.0, float(repeats - 1)
    return math.sqrt(total) / count, (repeats - 1) * total**2 / float(np.square(variance).sum())


def repeat_error(values: NDArray[Any]) -> tuple[float, float]:
    """Return the standard deviation of repeated measurements [R] and its R - 1 degrees of freedom."""
    return float(np.std(values, ddof=1)), float(len(values) - 1)


def rounding_of(values: NDArray[Any], others: list[NDArray[Any]]) -> tuple[float, float]:
    """Return the largest difference of an image, and the largest mean difference, from values [N].

    Neither is below the rounding of the values themselves, so that ways that agree by chance, as other
    batches often do to the last bit, promise nothing that another machine cannot keep.
    """
    x = np.abs(np.asarray(values, dtype=np.float64))
    gaps = [np.abs(np.asarray(other, dtype=np.float64) - values) for other in others]
    largest = max([FLOAT32 * float(x.max()), *(float(gap.max()) for gap in gaps)])
    mean = max([FLOAT32 * float(x.mean()), *(float(gap.mean()) for gap in gaps)])
    return largest, min(mean, largest)


def flips_allowed(seen: int, chance: float) -> int:
    """Return how many turned-over levels chance explains, given that ``seen`` were found once before.

    Poisson: the rate is at most the upper end of Garwood's (1936) interval for one count at confidence
    1 - chance / 2, chi2_{2 seen + 2}(1 - chance / 2) / 2, and a count of that rate exceeds what is returned
    with a chance of at most chance / 2.
    """
    rate = float(chdtri(2 * seen + 2, chance / 2)) / 2
    return math.ceil(float(pdtrik(1 - chance / 2, rate)))


# Golden rows against what was measured: which rows stand, which do not, and one sentence for each


@dataclass(frozen=True)
class Verdict:
    """What the gate says of one row."""

    row: str
    kind: str
    unit: str
    golden: float
    """Its value; of a replay the mean over images, of drawn images the mean level."""
    measured: float | None
    """The same of this model; None where it could not be measured or is not finite."""
    difference: float | None
    """What is compared with ``allowed``: of an estimate measured - golden, of a replay the largest difference
    of an image, or the mean one where that is what fails; of drawn images the levels turned over."""
    allowed: float
    passed: bool
    sentence: str
    """What was found, for a reader who sees nothing else."""


def judge(golden: Golden, measured: Measured, *, retrained: bool = False) -> list[Verdict]:
    """Return the verdict of every golden row, in their order.

    ``retrained`` is for a checkpoint trained anew, whose numbers are its own: replays are left out, and
    estimates fail only where they are worse, by more than chance explains over images as well.

    Raises UserError where there is a row that this version does not measure, and where none is left.
    """
    rows = {name: row for name, row in golden.rows.items() if isinstance(row, EstimateRow) or not retrained}
    if not rows:
        raise UserError("there are only replays among the golden rows, and none of a model trained anew")
    chance = FALSE_ALARM / len(rows)
    return [
        Verdict(name, row.kind, row.unit, row.value, *_judge(name, row, measured, chance, retrained))
        for name, row in rows.items()
    ]


Judgement = tuple[float | None, float | None, float, bool, str]
"""measured, difference, allowed, passed and sentence of a `Verdict`."""


def _judge(name: str, row: Row, measured: Measured, chance: float, retrained: bool) -> Judgement:
    if (why := measured.why_missing(name)) is not None:
        return None, None, 0.0, False, f"{name} could not be measured: {why}"
    kinds: dict[str, Mapping[str, Any]]
    kinds = {"replay": measured.replays, "images": measured.drawn, "estimate": measured.estimates}
    if name not in (found := kinds[row.kind]):
        raise UserError(
            f"the golden row '{name}' is not measured of this model by this version: use the version that "
            "wrote it, or write the rows again by --update --reason TEXT"
        )
    if isinstance(row, ReplayRow):
        return _replay(name, row, found[name])
    if isinstance(row, ImagesRow):
        return _images(name, row, found[name], chance)
    return _estimate(name, row, found[name], chance, retrained)


def _replay(name: str, row: ReplayRow, values: Any) -> Judgement:
    _require_count(name, len(row.values), len(values))
    gap = np.abs(values - np.asarray(row.values))
    largest, mean = float(gap.max()), float(gap.mean())
    wide, narrow = HEADROOM * row.largest, HEADROOM * row.mean
    by_largest = largest / wide >= mean / narrow
    worst, allowed = (largest, wide) if by_largest else (mean, narrow)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).argmax())
        return None, None, allowed, False, f"{name} is not finite at image {bad} of {len(values)}"
    passed = largest <= wide and mean <= narrow
    what = f"image {int(gap.argmax())} of {len(gap)}" if by_largest else f"the mean of {len(gap)} images"
    sentence = (
        f"{name} differs by {worst:.3g} {row.unit} at {what}, where rounding explains {allowed:.2g}"
        if not passed
        else f"{name} differs by at most {largest:.2g} {row.unit}, and rounding explains {wide:.2g}"
    )
    return float(values.mean()), worst, allowed, passed, sentence


def _images(name: str, row: ImagesRow, levels: Any, chance: float) -> Judgement:
    old = row.levels()
    _require_count(name, old.size, levels.size)
    if old.shape != levels.shape:
        raise UserError(
            f"the golden row '{name}' is of {list(old.shape)} images by sub-pixels and {list(levels.shape)} "
            "were measured: its shape was changed by hand; write the rows again by --update --reason TEXT"
        )
    turned, allowed = int((old != levels).sum()), flips_allowed(row.flips, chance)
    sentence = (
        f"{name}: {turned:,} of {old.size:,} sub-pixels of images drawn from the same seeds differ, where "
        f"rounding explains {allowed:,}"
    )
    return float(levels.mean()), turned, allowed, turned <= allowed, sentence


def _estimate(name: str, row: EstimateRow, found: Repeat, chance: float, retrained: bool) -> Judgement:
    """Judge an estimate on both sides, or one-sided that of a model trained anew.

    Where the golden row has its images, such a model is compared with it in pairs; else both measurements'
    seeds are allowed for, which for a distance are its sampled images.
    """
    value = found.value
    margin = predictive_margin(row.error, row.df, row.repeats, chance if retrained else chance / 2)
    alarm = f", at a chance of {FALSE_ALARM:g} of a false alarm of the gate"
    why = f"seeds explain {margin:.2g}" if retrained else f"other seeds explain {margin:.2g}{alarm}"
    if row.per_image and found.per_image is not None:
        _require_count(name, len(row.per_image), len(found.per_image))
        images = row.cut_values(found.per_image)
        value = float(images.mean())
        if retrained:
            margin = paired_margin(images - np.asarray(row.per_image), chance)
            why = f"images and seeds explain {margin:.2g}, in pairs over {len(images):,} images"
    if not math.isfinite(value):
        return None, None, margin, False, f"{name} is {value}"
    gap = value - row.value
    worse = -gap if row.higher_is_better else gap
    sentence = (
        f"{name} is {value:.6g} {row.unit} against {row.value:.6g}, {abs(gap):.3g} "
        f"{'better' if (gap > 0) == row.higher_is_better else 'worse'}; {why}"
    )
    return value, gap, margin, (worse if retrained else abs(gap)) <= margin, sentence


def _require_count(name: str, wanted: int, found: int) -> None:
    if wanted != found:
        raise UserError(
            f"the golden row '{name}' holds {wanted:,} numbers and {found:,} were measured: its plan was "
            "changed by hand; write the rows again by --update --reason TEXT"
        )


# The gate as one call, for the command and for pytest: a checkpoint, a golden file, and the verdicts


@dataclass(frozen=True)
class GateOutcome:
    """What the gate found of a checkpoint."""

    golden: Golden
    verdicts: tuple[Verdict, ...]
    remarks: tuple[str, ...]
    """What a reader must know beside the verdicts."""

    @property
    def failing(self) -> list[Verdict]:
        """The rows that do not stand."""
        return [verdict for verdict in self.verdicts if not verdict.passed]


def check(
    checkpoint: str,
    golden: Path | None = None,
    *,
    task: str = "",
    data: str = "",
    seeds: int = 0,
    retrained: bool = False,
    device: str = "cpu",
) -> GateOutcome:
    """Measure a checkpoint again and judge every golden row.

    ``seeds`` chooses the seeds of the estimates, which are never those that the golden rows were made with;
    replays have their own. ``task`` is a TOML file where the golden rows are of a task of one's own,
    ``data`` a folder or zip of images where they are of one.
    Raises UserError where the rows cannot be checked: no such file, another task version, other data.
    """
    rows = read_golden(golden or default_golden(Path(checkpoint)))
    subject, described = open_subject(checkpoint, task or task_of(rows), rows.plan, data=data, device=device)
    require_same(rows, subject, described)
    found = Measured()
    if not retrained:
        measure_replays(subject, found)
    measure_estimates(subject, found, repeat=rows.plan.repeats + seeds)
    remarks = []
    if subject.model.sha256 != rows.checkpoint_sha256:
        remarks.append(
            f"these weights, {subject.model.sha256[:12]}, are not those of the golden rows, "
            f"{rows.checkpoint_sha256[:12]}"
        )
    return GateOutcome(rows, tuple(judge(rows, found, retrained=retrained)), tuple(remarks))


def write_junit(path: Path, suite: str, verdicts: Sequence[Verdict]) -> None:
    """Write one test case for every verdict, atomically; a failing row's sentence is its message.

    A link at ``path`` is replaced, not followed. Raises DataError where the file cannot be written.
    """
    suite = shown(suite)
    failing = sum(not verdict.passed for verdict in verdicts)
    root = ElementTree.Element(
        "testsuite", name=suite, tests=str(len(verdicts)), failures=str(failing), errors="0"
    )
    for verdict in verdicts:
        case = ElementTree.SubElement(root, "testcase", classname=suite, name=shown(verdict.row))
        if not verdict.passed:
            ElementTree.SubElement(case, "failure", message=shown(verdict.sentence))
        else:
            ElementTree.SubElement(case, "system-out").text = shown(verdict.sentence)
    with atomic_path(path) as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)
