"""Mean and covariance of features, streamed in float64, merged exactly over batches and shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsgm.errors import UserError

Array = NDArray[np.float64]


def finite(features: NDArray[Any], numbers: Array | NDArray[np.int64] | None = None) -> Array:
    """Return features [N, D] in float64.

    Raises UserError where one is NaN or infinite, naming the first such image by its place, or by its number
    in ``numbers`` [N].
    """
    x = np.asarray(features, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if bad.size:
        number = bad[0] if numbers is None else numbers[bad[0]]
        raise UserError(
            f"the features of image {number} are not finite ({bad.size} of {len(x)} images): check the "
            "images and the extractor's weights"
        )
    return x


@dataclass(frozen=True)
class Moments:
    """Count, sum [D] and centred scatter [D, D] of rows seen so far; memory does not depend on their number.

    The scatter sum_i (x_i - mean)(x_i - mean)^T is kept centred, because the difference of raw second moments
    cancels catastrophically when the mean is large beside the spread.
    """

    count: int
    total: Array
    scatter: Array

    @classmethod
    def empty(cls, dim: int) -> Moments:
        """Return the moments of no rows at all, the neutral element of `merge`."""
        return cls(0, np.zeros(dim), np.zeros((dim, dim)))

    @classmethod
    def of(cls, features: NDArray[Any]) -> Moments:
        """Return the moments of ``features`` [N, D]. Raises UserError where a feature is NaN or infinite."""
        if np.ndim(features) != 2:
            raise ValueError(f"features must have shape [N, D], not {np.shape(features)}")
        x = finite(features)
        total = x.sum(axis=0)
        centred = x - total / max(len(x), 1)
        return cls(len(x), total, centred.T @ centred)

    @classmethod
    def given(cls, mean: NDArray[Any], covariance: NDArray[Any], count: int) -> Moments:
        """Return the moments of ``count`` >= 2 rows by their mean [D] and unbiased covariance [D, D]."""
        if count < 2:
            raise ValueError(f"a covariance is of at least 2 rows, not {count}")
        mu, sigma = np.asarray(mean, dtype=np.float64), np.asarray(covariance, dtype=np.float64)
        return cls(count, mu * count, sigma * (count - 1))

    @classmethod
    def kept(cls, arrays: Mapping[str, NDArray[Any]], prefix: str = "") -> Moments:
        """Return the moments that `arrays` returned under these names."""
        total, scatter = arrays[f"{prefix}total"], arrays[f"{prefix}scatter"]
        return cls(int(arrays[f"{prefix}count"]), total, scatter)

    def arrays(self, prefix: str = "") -> dict[str, NDArray[Any]]:
        """Return the arrays from which `kept` makes the same moments, under their names after ``prefix``."""
        count = np.array(self.count, np.int64)
        return {f"{prefix}count": count, f"{prefix}total": self.total, f"{prefix}scatter": self.scatter}

    def merge(self, other: Moments) -> Moments:
        """Return the moments of the union: S = S_a + S_b + (n_a n_b / n) d d^T, d the difference of means.

        Pairwise update of Chan, Golub and LeVeque (1979); order and grouping matter only to rounding.
        """
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        shift = other.total / other.count - self.total / self.count
        between = np.outer(shift, shift) * (self.count * other.count / count)
        return Moments(count, self.total + other.total, self.scatter + other.scatter + between)

    @property
    def dim(self) -> int:
        """Number of features D."""
        return len(self.total)

    @property
    def mean(self) -> Array:
        """Mean [D]."""
        return self.total / self.count

    @property
    def covariance(self) -> Array:
        """Unbiased covariance [D, D] (divisor N - 1). Raises UserError for fewer than two rows."""
        if self.count < 2:
            raise UserError(f"a covariance needs at least 2 images and there are {self.count}: ask for more")
        return self.scatter / (self.count - 1)


@dataclass(frozen=True)
class FeatureStats:
    """What the metrics need of a set of images: moments of all, and the features of some, float32 [R, D]."""

    moments: Moments
    rows: NDArray[np.float32]
