"""The Frechet distance against closed forms, SciPy's matrix root and torch-fidelity."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import scipy.linalg
import torch
from oracles.distances import frechet_of_features

from lsgm_eval.features.published import ensure_torchvision
from lsgm_eval.metrics.frechet import (
    EPS,
    SMALL,
    _DistanceTo,
    _eigenvalues,
    _factor,
    _graded_error,
    _inner,
    _uniform_error,
    frechet_distance,
    frechet_note,
    frechet_to,
    transport_map,
)
from lsgm_eval.metrics.moments import Array, Moments

SQRTM_REPORTS = "disp" in inspect.signature(scipy.linalg.sqrtm).parameters


def world(seed: int, n: int = 400, dim: int = 24) -> Array:
    rng = np.random.default_rng(seed)
    return rng.normal(size=dim) + rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim)) / np.sqrt(dim)


def gaussian(mean: Array, covariance: Array, count: int = 1000) -> Moments:
    return Moments(count, mean * count, covariance * (count - 1))


def test_a_set_is_at_distance_zero_from_itself() -> None:
    x = world(0)
    assert frechet_distance(Moments.of(x), Moments.of(x)) == 0.0
    # The same rows in another order differ by rounding only: eps * trace, about 1e-13.
    assert frechet_distance(Moments.of(x), Moments.of(x[::-1])) < 1e-11


def test_commuting_gaussians_give_the_closed_form() -> None:
    rng = np.random.default_rng(2)
    rotation = scipy.linalg.qr(rng.normal(size=(9, 9)))[0]
    s, t = rng.uniform(0.1, 4, 9), rng.uniform(0.1, 4, 9)
    mu, nu = rng.normal(size=9), rng.normal(size=9)
    a = gaussian(mu, rotation @ np.diag(s**2) @ rotation.T)
    b = gaussian(nu, rotation @ np.diag(t**2) @ rotation.T)
    expected = ((mu - nu) ** 2).sum() + ((s - t) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)


def test_agrees_with_the_matrix_square_root_of_scipy() -> None:
    a, b = Moments.of(world(3)), Moments.of(world(4))
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    shift = a.mean - b.mean
    expected = shift @ shift + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_agrees_with_torch_fidelity() -> None:
    ensure_torchvision()
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    x, y = world(5), world(6)
    theirs = fid_statistics_to_metric(
        fid_features_to_statistics(torch.from_numpy(x)),
        fid_features_to_statistics(torch.from_numpy(y)),
        False,
    )
    ours = frechet_distance(Moments.of(x), Moments.of(y))
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


@pytest.mark.skipif(
    not SQRTM_REPORTS, reason="clean-fid 0.1.35 calls sqrtm(disp=False), which SciPy 1.18 took away"
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_agrees_with_clean_fid() -> None:
    ensure_torchvision()
    from cleanfid.fid import frechet_distance as theirs

    a, b = Moments.of(world(15)), Moments.of(world(16))
    expected = theirs(a.mean, a.covariance, b.mean, b.covariance)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_a_singular_covariance_agrees_with_torch_fidelity_and_is_said_to_be_one() -> None:
    ensure_torchvision()
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    x, y = world(17, n=20), world(18)
    statistics = [fid_features_to_statistics(torch.from_numpy(z)) for z in (x, y)]
    theirs = fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    few, many = Moments.of(x), Moments.of(y)
    # Their eigenvalues of the product that should be 0 are about eps, of which the roots are 1e-8 each.
    assert frechet_distance(few, many) == pytest.approx(theirs, rel=1e-6)
    assert "20 images in 24 dimensions, rank at most 19" in frechet_note(few)
    assert "upward bias is large" in frechet_note(few)
    assert frechet_note(many) == ""


def test_a_dead_feature_makes_the_covariance_singular() -> None:
    dead = world(19)
    dead[:, 3] = 0.0
    assert "features without spread among 24, rank at most 23" in frechet_note(Moments.of(dead))


def test_a_reference_factored_once_gives_every_distance() -> None:
    sets = [Moments.of(world(seed)) for seed in (20, 21, 22)]
    distance = frechet_to(sets[0])
    assert [distance(a) for a in sets] == [frechet_distance(a, sets[0]) for a in sets]


@pytest.mark.parametrize("accuracy", [1e-4, 1e-8, 1e-14])
@pytest.mark.parametrize("n", [10, 25, 400])
def test_eigenvalues_serve_within_the_accuracy_asked_for(n: int, accuracy: float) -> None:
    falling = np.logspace(0, -6, 24)  # variances over twelve orders of magnitude
    a, b = (Moments.of(world(seed, n=n) * falling) for seed in (23, 24))
    assert frechet_to(b, accuracy=accuracy)(a) == pytest.approx(frechet_distance(a, b), rel=accuracy + 1e-12)


def falling(seed: int, power: float, n: int = 800, dim: int = SMALL + 4) -> Array:
    """Features with variances k^-power along axes that are not those of the features."""
    axes = scipy.linalg.qr(np.random.default_rng(99).normal(size=(dim, dim)))[0]
    spread = np.arange(1, dim + 1) ** (-power / 2)
    return (np.random.default_rng(seed).normal(size=(n, dim)) * spread) @ axes


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0, 4.0, 8.0])
def test_many_dimensions_give_the_same_by_whichever_way_is_taken(power: float) -> None:
    a, b = Moments.of(falling(30, power)), Moments.of(1.1 * falling(31, power))
    exact = frechet_to(b, accuracy=0.0)(a)
    # 1e-7 is what the estimates may allow; they are twenty times above the error and more.
    assert frechet_distance(a, b) == pytest.approx(exact, rel=5e-9)


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0, 3.0])
def test_spectra_like_those_of_features_are_spared_singular_values(
    power: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = Moments.of(falling(30, power)), Moments.of(1.1 * falling(31, power))
    monkeypatch.setattr(_DistanceTo, "_by_singular_values", None)
    assert frechet_distance(a, b) > 0


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0, 4.0])
def test_either_estimate_of_the_rounding_of_eigenvalues_is_above_it(power: float) -> None:
    a, b = Moments.of(falling(32, power)), Moments.of(falling(33, power))
    factors = _factor(a), _factor(b)
    values = np.linalg.svd(factors[0].rows.T @ factors[1].rows, compute_uv=False)
    squared = np.maximum(_eigenvalues(_inner(a.covariance, factors[1])), 0.0)
    error = 2 * abs(np.sqrt(squared).sum() - values.sum())
    norms = np.linalg.norm(a.covariance) * np.linalg.norm(b.covariance)
    log_det = 2 * sum(np.linalg.slogdet(factor.rows)[1] for factor in factors)
    assert error < _uniform_error(squared, 10 * EPS * norms) + 4 * len(values) * EPS * values.sum()
    assert error < _graded_error(squared, float(log_det))


def nearly_singular(dim: int = SMALL + 4) -> Array:
    """Standard deviations that fall as 1 / k, and an eighth of them to 1e-7 of the largest."""
    spread = 1 / np.arange(1, dim + 1)
    spread[-dim // 8 :] = 1e-7
    return spread


def test_covariances_close_to_singular_are_spared_singular_values(monkeypatch: pytest.MonkeyPatch) -> None:
    rotation = scipy.linalg.qr(np.random.default_rng(50).normal(size=(SMALL + 4,) * 2))[0]
    s, t = nearly_singular(), 1.1 * nearly_singular()[np.r_[1, 0, 2 : SMALL + 4]]
    zero = np.zeros(SMALL + 4)
    a, b = (gaussian(zero, (rotation * each**2) @ rotation.T) for each in (s, t))
    exact = frechet_to(b, accuracy=0.0)(a)
    # They commute, so that the distance is known: 32 standard deviations of 1e-7 are 1e-8 off at the most.
    assert exact == pytest.approx(((s - t) ** 2).sum(), rel=1e-7)
    monkeypatch.setattr(_DistanceTo, "_by_singular_values", None)
    assert frechet_distance(a, b) == pytest.approx(exact, rel=1e-7)


def test_what_is_next_to_nothing_counts_where_axes_are_turned() -> None:
    dim, rng = SMALL + 4, np.random.default_rng(55)
    first = scipy.linalg.qr(rng.normal(size=(dim, dim)))[0]
    second = scipy.linalg.qr(first + 0.1 / np.sqrt(dim) * rng.normal(size=(dim, dim)))[0]
    s = nearly_singular()
    a, b = (gaussian(np.zeros(dim), (axes * s**2) @ axes.T) for axes in (first, second))
    exact = frechet_to(b, accuracy=0.0)(a)
    # 32 standard deviations of 1e-7 lie across axes along which the other has some 1e-2: 1e-8 each.
    assert frechet_distance(a, b) == pytest.approx(exact, rel=1e-7)


def test_a_spread_that_one_side_alone_has_is_not_cut_off() -> None:
    rotation = scipy.linalg.qr(np.random.default_rng(54).normal(size=(SMALL + 4,) * 2))[0]
    s, t, zero = nearly_singular(), nearly_singular(), np.zeros(SMALL + 4)
    s[-20:] = 3.0  # in directions where the other has next to none, but for what a root makes of it
    a, b = (gaussian(zero, (rotation * each**2) @ rotation.T) for each in (s, t))
    assert frechet_distance(a, b) == pytest.approx(((s - t) ** 2).sum(), rel=1e-7)


@pytest.mark.parametrize("n", [SMALL // 2, SMALL - 20])
def test_few_images_are_spared_singular_values_of_the_whole(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = falling(51, 1.0, n=n), 1.1 * falling(52, 1.0)
    expected = frechet_of_features(few, many)
    monkeypatch.setattr(_DistanceTo, "_by_singular_values", None)
    assert frechet_distance(Moments.of(few), Moments.of(many)) == pytest.approx(expected, rel=1e-7)


def test_pivots_make_a_factor_of_any_covariance() -> None:
    rng = np.random.default_rng(53)
    for n in (3, 40, 200):
        x = rng.normal(size=(n, 60)) @ rng.normal(size=(60, 60))
        factor, covariance = _factor(Moments.of(x)), Moments.of(x).covariance
        np.testing.assert_allclose(factor.rows @ factor.rows.T, covariance, atol=1e-12 * covariance.max())
        triangle = factor.rows[factor.order]
        assert np.array_equal(triangle, np.tril(triangle))
        found = np.sort(_eigenvalues(_inner(covariance, factor)))
        plain = np.linalg.eigvalsh(factor.rows.T @ covariance @ factor.rows)
        np.testing.assert_allclose(found, plain, atol=1e-11 * plain.max())


def test_eigenvalues_are_refused_where_their_rounding_would_show() -> None:
    # The same rows in another order: what is left of the distance is rounding, 1e-13 of the traces by
    # singular values, while roots of eigenvalues of this spectrum are off by 1e-10 and more.
    x = falling(34, 6.0)
    assert frechet_distance(Moments.of(x), Moments.of(x[::-1])) < 1e-12 * Moments.of(x).covariance.trace()


@pytest.mark.parametrize("n", [2, 40, SMALL])
def test_few_images_in_many_dimensions_are_measured_in_the_size_of_their_number(n: int) -> None:
    few, many = falling(35, 1.0, n=n), falling(36, 1.0)
    assert _factor(Moments.of(few)).rank == n - 1
    a, b = Moments.of(few), Moments.of(many)
    expected = frechet_of_features(few, many)  # by singular values of the rows themselves
    # Rank-deficient: pivots below eps of the largest are dropped, which is sqrt(eps) in the factor.
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-6)


def test_dead_features_among_many_agree_with_those_alive_alone() -> None:
    x, y = falling(37, 1.0), 1.2 * falling(38, 1.0)
    dead_x, dead_y = (np.insert(z, [0, 7, 100], 0.0, axis=1) for z in (x, y))
    expected = frechet_distance(Moments.of(x), Moments.of(y))
    assert frechet_distance(Moments.of(dead_x), Moments.of(dead_y)) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("n", [2, 10, 23])
def test_few_images_in_many_dimensions_give_the_same_through_the_small_matrix(n: int) -> None:
    x, y = world(7, n=n), world(8, n=11)
    whole = frechet_distance(Moments.of(x), Moments.of(y))
    # Rank-deficient: the full matrices decide which eigenvalues are 0 at eps, sqrt(eps) in the factor.
    assert frechet_of_features(x, y) == pytest.approx(whole, rel=1e-6)


def test_shards_and_batches_do_not_move_the_distance() -> None:
    x, reference = world(9), Moments.of(world(10))
    once = frechet_distance(Moments.of(x), reference)
    for shards in (1, 2, 7):
        union = Moments.empty(x.shape[1])
        for part in np.array_split(x, shards):
            union = union.merge(Moments.of(part))
        assert frechet_distance(union, reference) == pytest.approx(once, rel=1e-10)


def test_a_direction_without_spread_stays_real() -> None:
    flat = world(11)
    flat[:, 5] = 1.0
    d = frechet_distance(Moments.of(flat), Moments.of(world(12)))
    assert np.isfinite(d)
    assert d > 0


def test_transport_map_pushes_one_covariance_onto_the_other() -> None:
    a, b = Moments.of(world(13)), Moments.of(world(14))
    T = transport_map(a, b)
    np.testing.assert_allclose(T @ a.covariance @ T.T, b.covariance, rtol=1e-8, atol=1e-8)


def test_other_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="24 and 5 dimensions"):
        frechet_distance(Moments.of(world(0)), Moments.of(world(0, dim=5)))
