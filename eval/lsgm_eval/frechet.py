"""Squared Frechet (2-Wasserstein) distance between Gaussians, in float64, real by construction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsgm_eval.moments import Array, Moments

__all__ = ["frechet_distance", "frechet_note", "frechet_of_features", "frechet_to", "transport_map"]

ROUNDING = 10.0


def frechet_distance(a: Moments, b: Moments) -> float:
    """Return |mu_a - mu_b|^2 + tr(A) + tr(B) - 2 tr((A^1/2 B A^1/2)^1/2), squared units of the features.

    Dowson and Landau (1982); the FID of arXiv:1706.08500 when the features are Inception's. Never imaginary:
    with A = F F^T and B = G G^T from symmetric eigendecompositions, the last trace is the sum of the singular
    values of F^T G. Raises ValueError where the dimensions differ, UserError where either has one row.
    """
    return frechet_to(b)(a)


def frechet_to(reference: Moments, *, accuracy: float = 0.0) -> Callable[[Moments], float]:
    """Return the function a -> `frechet_distance` (a, ``reference``) that factors the reference only once.

    With ``accuracy`` the last trace is taken from the eigenvalues of G^T A G, several times faster, wherever
    their rounding changes the distance by less than that part of it; elsewhere from singular values as ever.
    """
    cov_b = reference.covariance
    factor_b = _factor(cov_b)

    def distance(a: Moments) -> float:
        if a.dim != reference.dim:
            raise ValueError(f"cannot compare features of {a.dim} and {reference.dim} dimensions")
        cov_a = a.covariance
        if np.array_equal(a.mean, reference.mean) and np.array_equal(cov_a, cov_b):
            return 0.0  # the same statistics: spare the caller the rounding of tr(A) - tr((A A)^1/2)
        if accuracy and factor_b.size:
            squared = np.maximum(np.linalg.eigvalsh(factor_b.T @ cov_a @ factor_b), 0.0)
            common = np.sqrt(squared)
            shift = a.mean - reference.mean
            fast = float(shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * common.sum())
            # Eigenvalues are known to some eps of the largest, and the root makes that sqrt(eps) near 0.
            rounding = ROUNDING * np.finfo(np.float64).eps * squared.max()
            if 2 * float((np.sqrt(squared + rounding) - common).sum()) < accuracy * fast:
                return fast
        return _from_factors(a.mean, _factor(cov_a), reference.mean, factor_b)

    return distance


def frechet_note(moments: Moments) -> str:
    """Return what a reader must know of a singular covariance and what is done about it, "" of another.

    With N <= D the rank is at most N - 1; above, the eigenvalues decide by the rule of `frechet_distance`.
    """
    dim, few = moments.dim, moments.count <= moments.dim
    rank = moments.count - 1 if few else _factor(moments.covariance).shape[1]
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
    factor = _factor(b.covariance)
    values, vectors = np.linalg.eigh(factor.T @ a.covariance @ factor)
    kept = values > values.max(initial=0.0) * len(values) * np.finfo(np.float64).eps
    moved = factor @ vectors[:, kept]
    return np.asarray((moved / np.sqrt(values[kept])) @ moved.T)


def _factor(covariance: Array) -> Array:
    """Return F [D, rank] with F F^T = covariance; directions without spread are dropped."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > values.max(initial=0.0) * len(values) * np.finfo(np.float64).eps
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def _mean_and_factor(features: NDArray[Any]) -> tuple[Array, Array]:
    moments_cost_more = features.shape[0] < features.shape[1]
    if not moments_cost_more:
        moments = Moments.of(features)
        return moments.mean, _factor(moments.covariance)
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
