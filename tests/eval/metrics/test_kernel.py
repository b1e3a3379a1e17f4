"""The kernel distance against a double loop, torch-fidelity, and its own unbiasedness."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lsgm.errors import UserError
from lsgm_eval.features.published import ensure_torchvision
from lsgm_eval.metrics.kernel import (
    block_kernel_distance,
    cubic_kernel,
    kernel_distance,
    within_sums,
)
from lsgm_eval.metrics.moments import Array


def world(seed: int, n: int, shift: float = 0.0, dim: int = 6) -> Array:
    return shift + np.random.default_rng(seed).normal(size=(n, dim))


def test_agrees_with_the_double_loop() -> None:
    x, y = world(0, 7), world(1, 5, shift=0.5)

    def k(a: Array, b: Array) -> float:
        return float((a @ b / 6 + 1) ** 3)

    xx = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    yy = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    assert kernel_distance(x, y).value == pytest.approx(xx + yy - 2 * xy, rel=1e-12)


def test_agrees_with_torch_fidelity() -> None:
    ensure_torchvision()
    from torch_fidelity.metric_kid import kernel_mmd

    x, y = world(2, 300), world(3, 300, shift=0.3)
    theirs = kernel_mmd(
        x, y, kid_kernel="poly", kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1
    )
    assert kernel_distance(x, y).value == pytest.approx(theirs, rel=1e-9)


def test_blocks_do_not_change_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = world(4, 50), world(5, 64)
    once = kernel_distance(x, y)
    monkeypatch.setattr("lsgm_eval.metrics.kernel.BLOCK", 7)
    again = kernel_distance(x, y)
    assert again.value == pytest.approx(once.value, rel=1e-10)
    assert again.standard_error == pytest.approx(once.standard_error, rel=1e-10)


def test_sums_of_the_reference_computed_beforehand_change_nothing() -> None:
    x, y = world(8, 20), world(9, 30)
    assert kernel_distance(x, y, within_y=within_sums(y)) == kernel_distance(x, y)


def test_error_is_the_leave_one_out_jackknife() -> None:
    x, y = world(6, 12), world(7, 9, shift=0.4)
    without_x = [kernel_distance(np.delete(x, i, 0), y).value for i in range(12)]
    without_y = [kernel_distance(x, np.delete(y, i, 0)).value for i in range(9)]
    variance = 11 * np.var(without_x) + 8 * np.var(without_y)
    assert kernel_distance(x, y).standard_error == pytest.approx(np.sqrt(variance), rel=1e-9)


def test_unbiased_and_negative_half_of_the_time_on_equal_worlds() -> None:
    values = [kernel_distance(world(2 * s, 60), world(2 * s + 1, 60)).value for s in range(300)]
    assert min(values) < 0
    # The mean of 300 unbiased values lies within 4 of its standard errors of 0, but for 1 run in 16,000.
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(300)


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.6])
def test_interval_covers_the_population_distance(shift: float) -> None:
    big_x, big_y = world(100, 4000), world(101, 4000, shift=shift)
    truth = 0.0 if shift == 0 else kernel_distance(big_x, big_y).value
    inside = []
    for s in range(200):
        interval = kernel_distance(world(200 + s, 150), world(500 + s, 200, shift=shift))
        inside.append(interval.low <= truth <= interval.high)
    # 95 % nominal; 200 repeats have a standard error of 1.5 points. Wider than nominal is allowed near P = Q.
    assert np.mean(inside) > 0.90


def test_kernel_is_cubic_and_too_few_images_are_refused() -> None:
    np.testing.assert_allclose(cubic_kernel(np.ones((1, 4)), np.ones((1, 4))), 8.0)
    with pytest.raises(ValueError, match="at least 3 images"):
        kernel_distance(world(0, 2), world(1, 10))


@pytest.mark.parametrize(("subsets", "size", "seed"), [(100, 40, 2020), (7, 150, 3)])
def test_subsets_of_kid_are_those_of_torch_fidelity(subsets: int, size: int, seed: int) -> None:
    ensure_torchvision()
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = world(10, 150, dim=32), world(11, 220, shift=0.2, dim=32)
    theirs = kid_features_to_metric(
        torch.from_numpy(x),
        torch.from_numpy(y),
        kid_subsets=subsets,
        kid_subset_size=size,
        rng_seed=seed,
        verbose=False,
    )
    ours = block_kernel_distance(x, y, subsets=subsets, size=size, seed=seed)
    assert ours.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
    assert ours.deviation == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-6)


def test_one_subset_of_everything_is_the_distance_of_all_pairs() -> None:
    x, y = world(12, 60), world(13, 60, shift=0.3)
    once = block_kernel_distance(x, y, subsets=3, size=60)
    assert once.mean == pytest.approx(kernel_distance(x, y).value, rel=1e-12)
    assert once.deviation < 1e-12  # only the order of the sums differs


def test_subsets_spread_around_the_distance_of_all_pairs() -> None:
    x, y = world(14, 300), world(15, 300, shift=0.3)
    pairs, subsets = kernel_distance(x, y), block_kernel_distance(x, y, subsets=400, size=30)
    # Subsets are unbiased given the samples: 4 standard errors of the mean of 400.
    assert abs(subsets.mean - pairs.value) < 4 * subsets.deviation / np.sqrt(400)


def test_fewer_images_than_a_subset_and_features_that_are_not_numbers_are_named() -> None:
    with pytest.raises(UserError, match=r"subsets of 1000 images .* from 50 and 60 images: ask for more"):
        block_kernel_distance(world(0, 50), world(1, 60))
    broken = world(0, 9)
    broken[4, 2] = np.nan
    for distance in (kernel_distance, lambda x, y: block_kernel_distance(x, y, size=5)):
        with pytest.raises(UserError, match="image 4 are not finite"):
            distance(broken, world(1, 9))
