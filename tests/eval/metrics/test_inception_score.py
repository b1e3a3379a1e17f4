"""The streamed Inception Score against torch-fidelity, closed forms and its own expectation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles.distances import inception_score

from lsgm.errors import UserError
from lsgm_eval.features.published import ensure_torchvision
from lsgm_eval.metrics.inception_score import ClassSums
from lsgm_eval.metrics.moments import Array


def logits(seed: int, n: int, classes: int = 20, sharp: float = 2.0) -> Array:
    return sharp * np.random.default_rng(seed).normal(size=(n, classes))


@pytest.mark.parametrize(("n", "splits", "seed"), [(1000, 10, 2020), (237, 10, 2020), (64, 3, 5)])
def test_agrees_with_torch_fidelity(n: int, splits: int, seed: int) -> None:
    ensure_torchvision()
    from torch_fidelity.metric_isc import isc_features_to_metric

    x = logits(0, n).astype(np.float32)
    theirs = isc_features_to_metric(torch.from_numpy(x), splits=splits, rng_seed=seed)
    ours = inception_score(x, splits=splits, seed=seed)
    assert ours.interval.value == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert ours.deviation == pytest.approx(theirs["inception_score_std"], rel=1e-6)
    assert len(ours.splits) == splits


def test_certain_and_even_classes_score_their_number_and_equal_images_score_one() -> None:
    sums = ClassSums(70, splits=2)
    in_split = [np.flatnonzero(sums._split == s) for s in range(2)]
    for rows in in_split:
        sums.add(1e4 * np.eye(7)[np.arange(35) % 7], rows)
    assert sums.score().splits == pytest.approx([7.0, 7.0], rel=1e-12)
    assert inception_score(np.tile(logits(1, 1), (50, 1))).splits == pytest.approx([1.0] * 10, rel=1e-12)


@pytest.mark.parametrize("batch", [1, 37, 256])
@pytest.mark.parametrize("shards", [1, 2, 7])
def test_batches_and_shards_do_not_move_the_score(batch: int, shards: int) -> None:
    x = logits(2, 300)
    whole, union = inception_score(x), ClassSums(300)
    for rank in range(shards):
        mine, part = np.arange(300)[rank::shards], ClassSums(300)
        for start in range(0, len(mine), batch):
            part.add(x[mine[start : start + batch]], mine[start : start + batch])
        union.merge(part)
    assert union.score().splits == pytest.approx(whole.splits, rel=1e-10)


def test_a_state_put_back_goes_on_as_if_nothing_had_happened() -> None:
    x, straight, first, second = logits(3, 120), *(ClassSums(120) for _ in range(3))
    first.add(x[:70], np.arange(70))
    second.load(first.state())
    for sums in (first, second):
        sums.add(x[70:], np.arange(70, 120))
    straight.add(x, np.arange(120))
    assert second.score() == first.score()
    assert second.score().splits == pytest.approx(straight.score().splits, rel=1e-12)


def test_logits_may_be_computed_from_features() -> None:
    rng = np.random.default_rng(4)
    features, weight = rng.normal(size=(60, 5)), rng.normal(size=(5, 8))
    sums = ClassSums(60, logits=lambda x: torch.from_numpy(x @ weight))
    sums.add(features, np.arange(60))
    assert sums.score() == inception_score(features @ weight)


def test_interval_covers_the_expected_score_of_a_split() -> None:
    found = [inception_score(logits(seed, 500)) for seed in range(300)]
    expectation = np.mean([score.interval.value for score in found])
    covered = np.mean([s.interval.low <= expectation <= s.interval.high for s in found])
    assert covered == pytest.approx(0.95, abs=0.04)  # 3 standard errors of 300 repeats


def test_missing_doubled_and_broken_images_are_named() -> None:
    x, sums = logits(5, 40), ClassSums(40)
    sums.add(x[:30], np.arange(30))
    with pytest.raises(UserError, match="of 40 images has seen 30"):
        sums.score()
    with pytest.raises(ValueError, match="seen an image of this batch before"):
        sums.add(x[29:], np.arange(29, 40))
    with pytest.raises(ValueError, match="not among 40"):
        sums.add(x[30:], np.arange(31, 41))
    with pytest.raises(ValueError, match="same image"):
        sums.merge(sums)
    with pytest.raises(ValueError, match="other splits"):
        sums.merge(ClassSums(41))
    x[33, 2] = np.inf
    with pytest.raises(UserError, match="image 33 are not finite"):
        sums.add(x[30:], np.arange(30, 40))
    with pytest.raises(UserError, match=r"10 splits .* there are 9 images"):
        ClassSums(9)
