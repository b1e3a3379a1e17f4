"""The extrapolated Frechet distance finds what infinitely many samples would show."""

from __future__ import annotations

import numpy as np
import pytest

from lsgm.errors import UserError
from lsgm_eval.metrics.frechet import frechet_distance, frechet_infinity
from lsgm_eval.metrics.moments import Array, Moments

DIM = 16
SCALE = np.linspace(0.2, 1.5, DIM)
REFERENCE = Moments(10**6, np.zeros(DIM), np.diag(SCALE**2) * (10**6 - 1))


def draw(seed: int, n: int, shift: float, scale: float) -> Array:
    return shift + scale * np.random.default_rng(seed).normal(size=(n, DIM)) * SCALE


def truth(shift: float, scale: float) -> float:
    return float(DIM * shift**2 + (((scale - 1) * SCALE) ** 2).sum())


@pytest.mark.parametrize(("n", "shift", "scale"), [(400, 0.3, 1.3), (400, 0.05, 1.05), (100, 0.0, 1.0)])
def test_interval_covers_the_distance_of_the_populations(n: int, shift: float, scale: float) -> None:
    expected, repeats = truth(shift, scale), 60
    found = [frechet_infinity(draw(seed, n, shift, scale), REFERENCE) for seed in range(repeats)]
    values = np.array([f.interval.value for f in found])
    covered = np.mean([f.interval.low <= expected <= f.interval.high for f in found])
    assert covered > 0.95 - 3 * np.sqrt(0.95 * 0.05 / repeats)
    # The plug-in is biased by many times what is left of it after the fit.
    plug_in = np.mean([f.points[0].value for f in found]) - expected
    noise = values.std() / np.sqrt(repeats)
    assert abs(values.mean() - expected) < 0.15 * plug_in + 3 * noise


def test_first_point_is_the_whole_set_and_the_line_goes_through_it() -> None:
    x = draw(0, 300, 0.2, 1.2)
    found = frechet_infinity(x, REFERENCE)
    assert [(p.count, p.subsets) for p in found.points[:3]] == [(300, 1), (150, 2), (100, 3)]
    assert found.points[0].value == pytest.approx(frechet_distance(Moments.of(x), REFERENCE), rel=1e-5)
    assert found.interval.value + found.slope / 300 == pytest.approx(found.points[0].value, rel=1e-12)
    assert found.interval.low < min(found.interval.value, found.curved)
    assert found.interval.high > max(found.interval.value, found.curved)


def test_the_slope_is_the_bias_of_gaussians() -> None:
    slopes = [frechet_infinity(draw(seed, 1600, 0.0, 1.0), REFERENCE).slope for seed in range(40)]
    # P = Q, variances v: the mean adds |dm|^2 with E = sum v / N, the covariance (Bures metric, first order)
    # sum_ij dS_ij^2 / (v_i + v_j) / 2 with E dS_ij^2 = v_i v_j (1 + [i = j]) / N.
    v = SCALE**2
    moved = np.outer(v, v) * (1 + np.eye(DIM)) / (v[:, None] + v)
    noise = np.std(slopes) / np.sqrt(40)
    assert abs(np.mean(slopes) - (v.sum() + moved.sum() / 2)) < 4 * noise + 0.05 * np.mean(slopes)


def test_the_seed_alone_decides_the_subsets() -> None:
    x = draw(1, 200, 0.1, 1.1)
    once, again, other = (frechet_infinity(x, REFERENCE, seed=seed) for seed in (1, 1, 2))
    assert once == again
    assert once.points[1] != other.points[1]


def test_too_few_images_for_the_law_are_refused() -> None:
    with pytest.raises(UserError, match=r"at least 20 images and 70 images give 3: ask for 80"):
        frechet_infinity(draw(0, 70, 0.0, 1.0), REFERENCE)
    assert len(frechet_infinity(draw(0, 80, 0.0, 1.0), REFERENCE).points) == 4
