"""Inception Score from class logits as a stream: two sums per split, in any batches and shards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from lsgm.errors import UserError
from lsgm_eval.metrics.intervals import Interval, replicate_interval
from lsgm_eval.metrics.moments import Array

SHUFFLE_SEED = 2020
SPLITS = 10
LOWEST = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class InceptionScore:
    """Mean of the splits' scores, its interval, and their standard deviation (divisor S) as tables print it.

    The interval is Student's over the splits. It covers the expectation of one split's score at its number
    of images: with fewer images a split scores lower, so that only equal protocols compare.
    """

    interval: Interval
    deviation: float
    splits: tuple[float, ...]


class ClassSums:
    """Sums of p log p (a number) and of p [C] per split, in float64, and which images they hold.

    ``count`` images in all are shuffled by ``seed`` and cut into ``splits`` as torch-fidelity does, which the
    position of an image decides alone. ``logits`` turns what arrives (features [B, D]) into class logits
    [B, C] and is left out where logits arrive.
    """

    def __init__(
        self,
        count: int,
        *,
        logits: Callable[[Any], Any] | None = None,
        splits: int = SPLITS,
        seed: int = SHUFFLE_SEED,
    ) -> None:
        if splits < 2 or count < splits:
            raise UserError(
                f"an Inception Score over {splits} splits needs at least 2 splits and an image in each, and "
                f"there are {count} images: ask for more"
            )
        self.count = count
        self._logits = logits
        self._split = _split_of(count, splits, seed)
        self._seen: NDArray[np.bool_] = np.zeros(count, np.bool_)
        self._entropy: Array = np.zeros(splits)
        self._classes: Array = np.zeros((splits, 0))

    def add(self, features: Any, index: NDArray[np.int64]) -> None:
        """Take a batch whose images stand at positions ``index`` [B], from 0, among all of them.

        Raises UserError where a logit is not finite, ValueError where a position is out of range.
        """
        logits = np.asarray(features if self._logits is None else self._logits(features), dtype=np.float64)
        position = np.asarray(index, dtype=np.int64)
        if position.size and not 0 <= position.min() <= position.max() < self.count:
            raise ValueError(f"positions up to {position.max()} are not among {self.count} images")
        if self._seen[position].any() or len(np.unique(position)) < len(position):
            raise ValueError("the class sums have seen an image of this batch before")
        bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if bad.size:
            raise UserError(f"the class logits of image {position[bad[0]]} are not finite: check the weights")
        log_p = log_softmax(logits, axis=1)
        p = np.exp(log_p)
        member = (self._split[position][None] == np.arange(len(self._entropy))[:, None]).astype(np.float64)
        self._seen[position] = True
        self._entropy += member @ (p * log_p).sum(axis=1)
        self._classes = _sum(self._classes, member @ p)

    def merge(self, other: ClassSums) -> None:
        """Take everything that another one has seen. Raises ValueError where it splits other images."""
        if not np.array_equal(self._split, other._split):
            raise ValueError("class sums over other splits cannot be merged")
        if (self._seen & other._seen).any():
            raise ValueError("both class sums have seen the same image")
        self._seen |= other._seen
        self._entropy += other._entropy
        self._classes = _sum(self._classes, other._classes)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the sums as arrays, from which `load` goes on."""
        return {"seen": self._seen.copy(), "entropy": self._entropy.copy(), "classes": self._classes.copy()}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Put back what `state` returned."""
        self._seen, self._entropy, self._classes = (
            state[name].copy() for name in ("seen", "entropy", "classes")
        )

    def score(self) -> InceptionScore:
        """Return exp(E KL(p(y|x) | p(y))) of each split, arXiv:1606.03498, and their mean with its interval.

        E KL = sum p log p / n - q . log q with q = sum p / n. Raises UserError while images are missing.
        """
        if (seen := int(self._seen.sum())) != self.count:
            raise UserError(f"an Inception Score of {self.count} images has seen {seen}: draw the others too")
        sizes = np.bincount(self._split)
        marginal = self._classes / sizes[:, None]
        log_q = np.log(np.maximum(marginal, LOWEST))  # a class of no weight counts 0 log 0 = 0
        scores = np.exp(self._entropy / sizes - (marginal * log_q).sum(axis=1))
        return InceptionScore(replicate_interval(scores), float(scores.std()), tuple(map(float, scores)))


def _split_of(count: int, splits: int, seed: int) -> NDArray[np.int16]:
    """Return the split [count] of every image: shuffled place j lies in split s with s N // S <= j."""
    starts = np.arange(1, splits) * count // splits
    split = np.empty(count, np.int16)
    split[np.random.RandomState(seed).permutation(count)] = np.searchsorted(
        starts, np.arange(count), side="right"
    )
    return split


def _sum(a: Array, b: Array) -> Array:
    return a + b if a.size and b.size else (a if a.size else b).copy()
