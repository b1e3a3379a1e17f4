"""Statistics of whole sets of features or logits, by other ways than the package goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lsgm_eval.features.extractor import Extractor
from lsgm_eval.metrics.inception_score import ClassSums, InceptionScore
from lsgm_eval.metrics.moments import FeatureStats, Moments

Array = NDArray[np.float64]


def frechet_of_features(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Return the Frechet distance of features [N, D] and [M, D] through their N x M matrix of inner products.

    Centred rows are themselves a factor of their covariance, so that none is ever made.
    """
    rows = [np.asarray(z, np.float64) for z in (x, y)]
    a, b = ((z - z.mean(axis=0)) / np.sqrt(len(z) - 1) for z in rows)
    shift = rows[0].mean(axis=0) - rows[1].mean(axis=0)
    common = float(np.linalg.svd(a @ b.T, compute_uv=False).sum())
    return max(float(shift @ shift + (a**2).sum() + (b**2).sum()) - 2 * common, 0.0)


def bootstrap_error(
    statistic: Callable[[Array], float], rows: NDArray[Any], *, repeats: int = 200, seed: int = 0
) -> float:
    """Return the standard deviation of ``statistic`` over seeded resamples of ``rows`` [N, D]."""
    rng = np.random.default_rng(seed)
    x = np.asarray(rows, dtype=np.float64)
    draws = [statistic(x[rng.integers(0, len(x), len(x))]) for _ in range(repeats)]
    return float(np.std(draws, ddof=1))


def inception_score(logits: NDArray[Any], *, splits: int = 10, seed: int = 2020) -> InceptionScore:
    """Return the score of class logits [N, C] that are all at hand."""
    sums = ClassSums(len(logits), splits=splits, seed=seed)
    for rows in np.array_split(np.arange(len(logits)), math.ceil(len(logits) / 4096)):
        sums.add(logits[rows], rows)
    return sums.score()


def stats_of(extractor: Extractor, batches: Iterable[Tensor]) -> FeatureStats:
    """Return the statistics of images that arrive in batches, uint8 [B, C, H, W]."""
    rows = np.concatenate([np.asarray(extractor(images)) for images in batches])
    return FeatureStats(Moments.of(rows), rows)
