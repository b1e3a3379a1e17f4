"""Memorisation: honest models are found ordinary about as often as they should be, copies are found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.stats import mannwhitneyu, norm

from lsgm.errors import UserError
from lsgm_eval.metrics.memorisation import excess_share, memorisation, three_sample_z
from lsgm_eval.metrics.moments import Array


def world(seed: int, n: int, dim: int = 5) -> Array:
    return np.random.default_rng(seed).normal(size=(n, dim))


def test_nearest_training_images_are_the_trees() -> None:
    samples, training = world(0, 60), world(1, 200)
    found = memorisation(samples, training, world(2, 100))
    distance, index = cKDTree(training).query(samples)
    np.testing.assert_allclose(found.distance, distance, rtol=1e-13)
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_array_equal(found.closest(7), np.argsort(distance)[:7])
    drawn = found.random(20, seed=4)
    assert len(set(drawn)) == 20
    np.testing.assert_array_equal(drawn, found.random(20, seed=4))


def test_z_is_the_mann_whitney_test() -> None:
    rng = np.random.default_rng(3)
    for samples, held_out in (
        (rng.gamma(2, size=70), rng.gamma(2.5, size=90)),
        (rng.integers(0, 5, 70).astype(float), rng.integers(0, 6, 90).astype(float)),  # many ties
    ):
        theirs = mannwhitneyu(
            samples, held_out, alternative="less", method="asymptotic", use_continuity=False
        )
        assert norm.cdf(three_sample_z(samples, held_out)) == pytest.approx(theirs.pvalue, rel=1e-10)
    assert three_sample_z(np.ones(5), np.ones(8)) == 0


def test_an_honest_model_has_a_standard_normal_z_and_the_quantile_as_share() -> None:
    training = world(4, 300)
    found = [memorisation(world(2 * s + 10, 200), training, world(2 * s + 11, 200)) for s in range(200)]
    z = np.array([one.c_t for one in found])
    # 200 values: the mean is known to 0.07, the standard deviation to 5 %.
    assert abs(z.mean()) < 4 / np.sqrt(200)
    assert z.std() == pytest.approx(1, abs=0.2)
    # The second of 200 ordered distances: a further one is below it with probability 2 / 201.
    assert {one.held_out_share for one in found} == {0.01}
    assert np.mean([one.share for one in found]) == pytest.approx(2 / 201, abs=4 * 0.01 / np.sqrt(200))
    # 95 % nominal, known to 1.5 points.
    assert np.mean([one.closer.low <= 0.5 <= one.closer.high for one in found]) > 0.90


def test_interval_of_closer_covers_another_worlds_probability() -> None:
    rng = np.random.default_rng(5)
    training = np.zeros((1, 1))
    # |x| of Normal worlds of scales s and 1 is a ratio of Cauchys: P(|s a| < |b|) = 2 arctan(1 / s) / pi.
    truth = 2 * np.arctan(1 / 0.6) / np.pi
    found = [
        memorisation(0.6 * rng.normal(size=(150, 1)), training, rng.normal(size=(120, 1))) for _ in range(300)
    ]
    assert np.mean([one.closer.low <= truth <= one.closer.high for one in found]) == pytest.approx(
        0.95, abs=0.04
    )


@pytest.mark.parametrize(
    ("samples", "held_out", "copied"),
    [(5000, 500, 0.0), (5000, 500, 0.2), (2000, 2000, 0.01), (500, 100, 0.0), (500, 100, 0.2)],
)
def test_the_excess_counts_the_error_of_the_threshold(samples: int, held_out: int, copied: float) -> None:
    """A model that copies a share p and is honest otherwise has P = p + (1 - p) P of held-out images."""
    rng = np.random.default_rng(6)
    repeats, covered = 400, 0
    for _ in range(repeats):
        # Distances to a training set of one image at 0.
        drawn = np.abs(rng.normal(size=samples) * (rng.random(samples) >= copied))
        ordinary = np.abs(rng.normal(size=held_out))
        threshold = float(np.quantile(ordinary, 0.01, method="inverted_cdf"))
        found = excess_share(drawn, ordinary, threshold)
        truth = copied * (1 - (2 * norm.cdf(threshold) - 1))
        covered += found.low <= truth <= found.high
    # 400 repeats have a standard error of 1.1 points; shares of few hits are covered more often than 95 %.
    assert covered / repeats > 0.95 - 4 * 0.011
    assert covered / repeats < 0.99 or held_out == 100


def test_an_honest_model_of_a_population_with_copies_has_no_excess() -> None:
    """Tied distances: a tenth of the population repeats training images, and so does the model."""
    rng = np.random.default_rng(7)
    repeats, covered = 300, 0
    for _ in range(repeats):
        drawn, held_out = (np.abs(rng.normal(size=n) * (rng.random(n) >= 0.1)) for n in (2000, 400))
        assert np.quantile(held_out, 0.01, method="inverted_cdf") == 0
        found = excess_share(drawn, held_out, 0.0)
        covered += found.low <= 0 <= found.high
    assert covered / repeats > 0.95 - 4 * 0.0126


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_a_model_that_copies_is_found(noise: float) -> None:
    training = world(7, 500)
    copied = training[np.random.default_rng(8).integers(0, 500, 100)] + noise * world(9, 100)
    found = memorisation(copied, training, world(10, 200))
    assert found.share == 1
    assert found.excess.value == pytest.approx(0.99)
    assert found.excess.low > 0.9
    assert found.closer.value > 0.99
    assert found.closer.low < 1
    assert found.c_t < -10


def test_copies_are_found_among_held_out_images_that_are_copies_too() -> None:
    training = world(11, 100)
    held_out = np.concatenate([training[:4], world(12, 96)])
    found = memorisation(training[:50], training, held_out)
    assert found.threshold == 0
    assert found.held_out_share == 0.04
    assert found.share == 1


def test_a_poor_fit_is_not_called_copying() -> None:
    found = memorisation(3 * world(13, 200), world(14, 500), world(15, 200))
    assert found.c_t > 10
    assert found.share == 0
    assert found.excess.low < found.excess.value == -0.01
    assert found.excess.high < 0.02


def test_too_few_images_and_impossible_quantiles_are_refused() -> None:
    x = world(0, 50)
    with pytest.raises(UserError, match=r"0\.01 needs at least 100 held-out images and there are 50"):
        memorisation(x, x, x)
    with pytest.raises(UserError, match="at least 2 samples"):
        memorisation(x[:1], x, x, quantile=0.1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        memorisation(x, x, x, quantile=1.0)
