"""Squared Frechet (2-Wasserstein) distance between Gaussians, in float64, real by construction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.linalg import lapack

from lsgm_eval.metrics.moments import Array, Moments

__all__ = ["frechet_distance", "frechet_note", "frechet_of_features", "frechet_to", "transport_map"]

EPS = float(np.finfo(np.float64).eps)
ROUNDING, MARGIN = 10.0, 100.0
ACCURACY = 1e-7
"""Part of the distance that rounding may take unasked, a tenth of what other packages agree to."""
SMALL = 256
"""Dimensions below which singular values cost nothing worth saving."""


def frechet_distance(a: Moments, b: Moments) -> float:
    """Return |mu_a - mu_b|^2 + tr(A) + tr(B) - 2 tr((A^1/2 B A^1/2)^1/2), squared units of the features.

    Dowson and Landau (1982); the FID of arXiv:1706.08500 when the features are Inception's. Never imaginary:
    with A = F F^T and B = G G^T the last trace is the sum of the singular values of F^T G, and of the roots
    of the eigenvalues of the symmetric G^T A G. See `frechet_to` for which of the two is computed.
    Raises ValueError where the dimensions differ, UserError where either has one row.
    """
    return frechet_to(b)(a)


def frechet_to(reference: Moments, *, accuracy: float | None = None) -> Callable[[Moments], float]:
    """Return the function a -> `frechet_distance` (a, ``reference``) that factors the reference only once.

    Eigenvalues of G^T A G cost a third of singular values of F^T G. But eps of the largest is all that they
    are known to, and a root makes that sqrt(eps) near 0. They serve where the error this leaves, by the
    lesser of two estimates below, is under ``accuracy`` times the distance; singular values, of which eps of
    the largest is the error itself, serve elsewhere: for distributions very close and spectra very steep.
    Unless given, ``accuracy`` is 1e-7, and 0 in few dimensions.

    Factors are Cholesky's. Those of covariances close to singular come from eigenvectors, and those of N <= D
    images from N - 1 pivots: what follows then has their size, as if from the N x N Gram matrix.
    """
    if accuracy is None:
        accuracy = ACCURACY if reference.dim >= SMALL else 0.0
    return _DistanceTo(reference, accuracy)


class _DistanceTo:
    def __init__(self, reference: Moments, accuracy: float) -> None:
        self.reference, self.accuracy = reference, accuracy
        self.cov, self.factor = reference.covariance, _factor(reference)
        self.norm = _norm(self.cov)

    def __call__(self, a: Moments) -> float:
        b = self.reference
        if a.dim != b.dim:
            raise ValueError(f"cannot compare features of {a.dim} and {b.dim} dimensions")
        cov_a = a.covariance
        if np.array_equal(a.mean, b.mean) and np.array_equal(cov_a, self.cov):
            return 0.0  # the same statistics: spare the caller the rounding of tr(A) - tr((A A)^1/2)
        found = self._by_eigenvalues(a, cov_a) if self.accuracy else None
        return found if found is not None else _from_factors(a.mean, _factor(a), b.mean, self.factor)

    def _by_eigenvalues(self, a: Moments, cov_a: Array) -> float | None:
        """Return the distance, or None where eigenvalues are not known well enough for it."""
        fewer = a.count - 1 < self.factor.shape[1]
        factor, middle = (_factor(a), self.cov) if fewer else (self.factor, cov_a)
        if not factor.size:
            return None
        squared = np.maximum(_eigenvalues(middle, factor), 0.0)
        shift = a.mean - self.reference.mean
        traces = float(np.trace(cov_a) + np.trace(self.cov))
        found = float(shift @ shift) + traces - 2 * float(np.sqrt(squared).sum())
        wanted = self.accuracy * found
        if _uniform_error(squared, ROUNDING * EPS * self.norm * _norm(cov_a)) < wanted:
            return found
        log_det = None if fewer else self._log_det(cov_a)
        return found if log_det is not None and _graded_error(squared, log_det) < wanted else None

    def _log_det(self, cov_a: Array) -> float | None:
        """Return log det(A B), or None where either is close to singular."""
        lower = _cholesky(cov_a) if _triangular(self.factor) else None
        if lower is None:
            return None
        return 2 * float(np.log(lower.diagonal()).sum() + np.log(self.factor.diagonal()).sum())


def _uniform_error(squared: Array, delta: float) -> float:
    """Return what twice the sum of roots gains where each of ``squared`` [rank] is ``delta`` larger.

    Pessimistic: it has every eigenvalue err by as much as the largest, and all of them the same way.
    """
    return 2 * float((np.sqrt(squared + delta) - np.sqrt(squared)).sum())


def _graded_error(squared: Array, log_det: float) -> float:
    """Return how far twice the sum of roots of eigenvalues is off, by the known logarithm of their product.

    Small eigenvalues of graded matrices, as Cholesky factors make them, are known far better than to eps of
    the largest. How well shows in r = sum log(lambda) - log_det, the sum of all relative errors, because the
    factors give the determinant independently. If errors move all roots alike, twice their sum moves by |r|
    times the roots' harmonic mean. That was the error found within a factor of 5, for variances k^-0.5 to
    k^-4, geometric, and of convolutional features of photographs; it is taken ``MARGIN`` times, and with the
    rounding of the sum itself.
    """
    if not squared.min() > 0:
        return np.inf
    roots = np.sqrt(squared)
    r = abs(float(np.log(squared).sum()) - log_det)
    return MARGIN * r / float((1 / roots).mean()) + ROUNDING * EPS * len(roots) * float(roots.sum())


def frechet_note(moments: Moments) -> str:
    """Return what a reader must know of a singular covariance and what is done about it, "" of another.

    With N <= D the rank is at most N - 1; above, the eigenvalues decide by the rule of `frechet_distance`.
    """
    dim, few = moments.dim, moments.count <= moments.dim
    rank = moments.count - 1 if few else _factor(moments).shape[1]
    if rank >= dim:
        return ""
    cause = f"{moments.count} images in {dim} dimensions" if few else f"features without spread among {dim}"
    return (
        f"the covariance is singular ({cause}, rank at most {rank}); nothing was added to it, and directions "
        "without spread count with spread 0" + ("; the upward bias is large" if few else "")
    )


def frechet_of_features(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Return `frechet_distance` of two feature sets [N, D] and [M, D], through N x M matrices where N, M < D.

    Centred features are themselves a factor of their covariance, so that few images in many dimensions never
    need a D x D matrix.
    """
    return _from_factors(*_mean_and_factor(x), *_mean_and_factor(y))


def transport_map(a: Moments, b: Moments) -> Array:
    """Return the matrix T = G (G^T A G)^(-1/2) G^T that moves N(., A) onto N(., B) optimally, shape [D, D].

    I - T is the derivative of the squared distance with respect to A. Directions in which A has no spread
    have no derivative and get 0 (a pseudo-inverse).
    """
    factor = _factor(b)
    values, vectors = np.linalg.eigh(factor.T @ a.covariance @ factor)
    kept = values > values.max(initial=0.0) * len(values) * EPS
    moved = factor @ vectors[:, kept]
    return np.asarray((moved / np.sqrt(values[kept])) @ moved.T)


def _factor(moments: Moments) -> Array:
    """Return F [D, rank] with F F^T = covariance; directions without spread are dropped.

    Lower triangular where the covariance is far from singular.
    """
    covariance = moments.covariance
    if moments.count <= moments.dim:
        return _pivoted(covariance, moments.count - 1)
    lower = _cholesky(covariance)
    if lower is not None:
        return lower
    values, vectors = np.linalg.eigh(covariance)
    kept = values > values.max(initial=0.0) * len(values) * EPS
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def _cholesky(covariance: Array) -> Array | None:
    """Return the lower triangular factor [D, D], or None where pivots are of the size of rounding."""
    # A symmetric matrix is its own transpose, and LAPACK reads by columns.
    lower, failed = lapack.dpotrf(covariance.T, lower=1, clean=1)
    least = ROUNDING * len(covariance) * EPS * covariance.diagonal().max(initial=0.0)
    return np.asarray(lower) if not failed and np.square(lower.diagonal()).min() > least else None


def _pivoted(covariance: Array, most: int) -> Array:
    """Return the first columns, at most ``most``, of the Cholesky factor with the largest pivots first."""
    factor = np.zeros((len(covariance), 0))
    if covariance.any():
        found, order, rank, _ = lapack.dpstrf(covariance.T, lower=1)
        factor = np.zeros((len(covariance), min(rank, most)))
        factor[order - 1] = np.tril(found)[:, : factor.shape[1]]
    return factor


def _triangular(factor: Array) -> bool:
    return factor.shape[0] == factor.shape[1] and not factor[0, 1:].any()


def _eigenvalues(middle: Array, factor: Array) -> Array:
    """Return the eigenvalues of G^T S G for symmetric S ``middle`` [D, D] and ``factor`` G [D, rank]."""
    if _triangular(factor):
        # The lower triangle alone, at a quarter of the work of two products.
        inner, _ = lapack.dsygst(middle.T, factor, itype=2, lower=1)
    else:
        inner = factor.T @ middle @ factor
    # `evr` is the fastest of LAPACK's drivers where no vectors are asked for.
    return np.asarray(
        scipy.linalg.eigvalsh(inner, lower=True, driver="evr", overwrite_a=True, check_finite=False)
    )


def _norm(matrix: Array) -> float:
    return float(np.linalg.norm(matrix))


def _mean_and_factor(features: NDArray[Any]) -> tuple[Array, Array]:
    moments_cost_more = features.shape[0] < features.shape[1]
    if not moments_cost_more:
        moments = Moments.of(features)
        return moments.mean, _factor(moments)
    x = np.asarray(features, dtype=np.float64)
    mean = x.mean(axis=0)
    return mean, (x - mean).T / np.sqrt(len(x) - 1)


def _from_factors(mean_a: Array, factor_a: Array, mean_b: Array, factor_b: Array) -> float:
    # Singular values, not eigenvalues of the squared product: squaring would leave half the digits.
    overlap = factor_a.T @ factor_b
    common = float(np.linalg.svd(overlap, compute_uv=False).sum()) if overlap.size else 0.0
    shift = mean_a - mean_b
    squared = float(shift @ shift) + float((factor_a**2).sum()) + float((factor_b**2).sum()) - 2 * common
    return max(squared, 0.0)
