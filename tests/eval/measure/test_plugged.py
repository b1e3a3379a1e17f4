"""A statistic of an installed package is measured beside the package's own."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from lsgm.errors import UserError
from lsgm.results import metrics
from lsgm.results.metrics import Metric
from lsgm_eval.measure import space
from lsgm_eval.measure.space import Features, Finding, Space, measure_space
from lsgm_eval.metrics.intervals import Interval
from lsgm_eval.metrics.moments import FeatureStats, Moments
from lsgm_eval.samples.collect import Gathered
from lsgm_eval.samples.reference import Reference
from lsgm_eval.task import SpaceSpec

SHIFT = Metric(
    *("shift", "distance", False, "quality", "Shift", "how far the means are apart in '{space}'"),
    in_space=True,
    statistic="shift",
    measured_by="plugged:measure",
)


class Net:
    name, sha256, dim, resize, image_shape = "net", "4" * 64, 3, "", (1, None, None)


def measure(found: Features) -> Iterable[Finding]:
    found.needs_rows()
    gap = float(np.linalg.norm(found.moments.mean - found.reference.stats.moments.mean))
    yield Finding("shift", Interval.normal(gap, 0.1), f"of {len(found.rows)} rows")


def stats(seed: int, count: int = 50) -> FeatureStats:
    rows = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    return FeatureStats(Moments.of(rows), rows)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Space:
    module = ModuleType("plugged")
    vars(module)["measure"] = measure
    monkeypatch.setitem(sys.modules, "plugged", module)
    monkeypatch.setattr(space, "families", lambda: metrics.families() | {"shift": SHIFT})
    known = metrics.families_of
    monkeypatch.setattr(space, "families_of", lambda name: ("shift",) if name == "shift" else known(name))
    spec: Any = replace(SpaceSpec("net"), statistics=("frechet",))
    object.__setattr__(spec, "statistics", ("frechet", "shift"))
    return Space(spec, Net(), Reference(stats(1), "5" * 64))  # type: ignore[arg-type]


def test_its_findings_stand_beside_ours(opened: Space) -> None:
    ours = stats(0)
    found, _ = measure_space(Gathered(ours), opened)
    assert [finding.family for finding in found] == ["frechet", "shift"]
    gap = np.linalg.norm(ours.moments.mean - opened.reference.stats.moments.mean)
    assert found[1].value == pytest.approx(gap)
    assert found[1].note == "of 50 rows"


def test_what_it_cannot_tell_is_a_finding_with_the_reason(opened: Space) -> None:
    moments_alone = Gathered(FeatureStats(stats(0).moments, np.empty((0, 3), np.float32)))
    found, _ = measure_space(moments_alone, opened)
    assert found[1].value is None
    assert found[1].note.startswith("the samples are a file of mean and covariance")


def test_a_metric_that_nothing_measures_is_named(opened: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = replace(SHIFT, measured_by="not_installed:measure")
    monkeypatch.setattr(space, "families", lambda: {"shift": gone})
    (_, found), _ = measure_space(Gathered(stats(0)), opened)
    assert "nothing here measures 'shift'" in found.note
    with pytest.raises(UserError, match="module:function of an installed package"):
        space._measure_of("shift")
