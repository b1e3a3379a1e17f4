"""Precision, recall, density, coverage: torch-fidelity's, by definition, and in known expectation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from lsgm.errors import UserError
from lsgm_eval.features.published import ensure_torchvision
from lsgm_eval.metrics.intervals import Interval, binomial_interval
from lsgm_eval.metrics.moments import Array
from lsgm_eval.metrics.precision_recall import density_coverage, precision_recall, radii


def world(seed: int, n: int, dim: int = 6, shift: float = 0.0, scale: float = 1.0) -> Array:
    return shift + scale * np.random.default_rng(seed).normal(size=(n, dim))


@pytest.mark.parametrize(
    ("n", "m", "shift", "scale"), [(200, 300, 0.0, 1.0), (300, 150, 0.5, 0.7), (90, 90, 3.0, 0.2)]
)
def test_precision_and_recall_agree_with_torch_fidelity(n: int, m: int, shift: float, scale: float) -> None:
    ensure_torchvision()
    from torch_fidelity.metric_prc import prc_features_to_metric

    x, y = world(0, n, shift=shift, scale=scale), world(1, m)
    theirs = prc_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), prc_neighborhood=3, prc_batch_size=64, verbose=False
    )
    ours = precision_recall(x, y)
    # Theirs are means of float32 zeros and ones.
    assert ours.precision.value == pytest.approx(theirs["precision"], abs=1e-6)
    assert ours.recall.value == pytest.approx(theirs["recall"], abs=1e-6)


def test_density_and_coverage_are_their_definitions() -> None:
    x, y = world(2, 120, shift=0.3), world(3, 80)
    within = np.sort(cdist(y, y), axis=1)[:, 5]
    inside = cdist(x, y) <= within
    ours = density_coverage(x, y)
    assert ours.density.value == pytest.approx(inside.sum() / (5 * 120), rel=1e-12)
    assert ours.coverage.value == pytest.approx(inside.any(axis=0).mean(), rel=1e-12)


def test_equal_worlds_have_density_1_and_the_coverage_of_the_paper() -> None:
    n, m, k = 60, 50, 5
    both = [density_coverage(world(2 * s, n, dim=3), world(2 * s + 1, m, dim=3)) for s in range(200)]
    expected = 1 - np.prod([(m - 1 - i) / (m + n - 1 - i) for i in range(k)])
    for values, truth in (
        ([one.density.value for one in both], 1.0),
        ([one.coverage.value for one in both], expected),
    ):
        # The mean of 200 values lies within 4 of its standard errors, but for 1 run in 16,000.
        assert abs(np.mean(values) - truth) < 4 * np.std(values) / np.sqrt(200)


def test_a_set_lies_on_its_own_manifold_and_a_far_one_on_none() -> None:
    y = world(4, 40)
    itself, far = precision_recall(y, y), precision_recall(y + 100, y)
    assert (itself.precision.value, itself.recall.value) == (1, 1)
    assert (far.precision.value, far.recall.value) == (0, 0)
    assert far.precision.high > 0
    assert far.recall.high > 0
    # Every ball holds its centre and, surface included, its k nearest: k + 1 of k.
    assert density_coverage(y, y).density.value == pytest.approx(6 / 5)
    assert density_coverage(y + 100, y).coverage.value == 0


def test_copies_of_an_image_make_balls_of_radius_zero_that_hold_it() -> None:
    y = np.repeat(world(5, 10, dim=40).astype(np.float32), 6, axis=0)
    assert (radii(y, 5) == 0).all()
    assert precision_recall(y[::6], y).precision.value == 1
    assert density_coverage(y[::6] + np.float32(1e-3), y).coverage.value == 0


def test_blocks_and_known_radii_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = world(6, 70, shift=0.4), world(7, 60)
    once = precision_recall(x, y), density_coverage(x, y)
    monkeypatch.setattr("lsgm_eval.metrics.precision_recall.ROWS", 13)
    monkeypatch.setattr("lsgm_eval.metrics.precision_recall.COLUMNS", 7)
    again = precision_recall(x, y, y_radii=radii(y, 3)), density_coverage(x, y, y_radii=radii(y, 5))
    assert again == once
    assert precision_recall(x, y, seed=1).recall.standard_error != once[0].recall.standard_error


def test_error_of_recall_is_that_of_subsets_computed_one_by_one() -> None:
    x, y = world(8, 50, shift=0.8), world(9, 400)
    rng = np.random.default_rng(3)
    left_out = [rng.permutation(50)[:10] for _ in range(64)]
    alone = [precision_recall(np.delete(x, rows, 0), y).recall.value for rows in left_out]
    error = precision_recall(x, y, seed=3).recall.standard_error  # the binomial one is far smaller
    assert error == pytest.approx(np.sqrt(4 * np.var(alone, ddof=1)), rel=1e-9)


def covered(intervals: list[Interval]) -> float:
    expectation = np.mean([i.value for i in intervals])
    return float(np.mean([i.low <= expectation <= i.high for i in intervals]))


@pytest.mark.parametrize(
    ("dim", "shift", "scale", "least"),
    [
        (16, 0.0, 1.2, 0.9),
        (4, 1.0, 0.5, 0.9),
        (2, 1.5, 0.5, 0.75),  # few large balls: the weak case of recall, kept in sight
    ],
)
def test_intervals_cover_the_expectation_at_this_n(
    dim: int, shift: float, scale: float, least: float
) -> None:
    reference = world(99, 120, dim)
    within = radii(reference, 3), radii(reference, 5)
    found: dict[str, list[Interval]] = {"precision": [], "recall": [], "density": [], "coverage": []}
    for s in range(150):
        x = world(1000 + s, 120, dim, shift, scale)
        pr = precision_recall(x, reference, y_radii=within[0], seed=s)
        dc = density_coverage(x, reference, y_radii=within[1], seed=s)
        for name, interval in zip(found, (pr.precision, pr.recall, dc.density, dc.coverage), strict=True):
            found[name].append(interval)
    # 95 % nominal; 150 repeats have a standard error of 1.8 points, and wider than nominal is allowed.
    shares = {name: covered(intervals) for name, intervals in found.items()}
    assert min(shares["precision"], shares["density"], shares["coverage"]) > 0.9, shares
    assert shares["recall"] > least, shares
    for name, intervals in found.items():
        width = np.mean([i.standard_error for i in intervals]) / np.std([i.value for i in intervals])
        assert 0.75 < width < 2.2, name


def test_binomial_interval_covers_at_least_nominal_at_every_share() -> None:
    from scipy.stats import binom

    for share in (0.003, 0.01, 0.2, 0.5, 0.97):
        inside = [i.low <= share <= i.high for i in (binomial_interval(h, 80) for h in range(81))]
        assert binom.pmf(np.arange(81)[inside], 80, share).sum() >= 0.95
    assert binomial_interval(0, 100).high == pytest.approx(1 - 0.025 ** (1 / 100))
    with pytest.raises(ValueError, match="not a share"):
        binomial_interval(3, 2)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(UserError, match="at least 10 images on each side and there are 9 and 30"):
        precision_recall(world(0, 9), world(1, 30))
    with pytest.raises(UserError, match="at least 16 images"):
        density_coverage(world(0, 30), world(1, 15), k=8)
