"""Squared Frechet (2-Wasserstein) distance between Gaussians, in float64, real by construction.

Beside it its interval and its bias at the number of images, and what it is at infinitely many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.linalg import lapack

from lsgm.errors import UserError
from lsgm.progress import bar
from lsgm_eval.metrics.intervals import NORMAL_95, Interval
from lsgm_eval.metrics.moments import Array, Moments

EPS = float(np.finfo(np.float64).eps)
ROUNDING, MARGIN = 10.0, 100.0
ACCURACY = 1e-7
"""Part of the distance that rounding may take unasked, a tenth of what other packages agree to."""
LEAST_SHARE = 0.4
"""Part of all dimensions that a rank has where `dsygst` of a square triangle costs less than products."""
SMALL_PIVOT = 1e-8
"""Part of the largest pivot, a variance, below which those of a covariance close to singular are cut off."""
SMALL = 256
"""Dimensions below which singular values cost nothing worth saving."""
PARTITIONS = (1, 2, 3, 4, 5, 6, 8, 10)
"""Numbers of subsets that the images are dealt into, one level of the fit each."""


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

    Factors are Cholesky's, with the largest pivots first where a covariance is close to singular. Those of
    N <= D images have N - 1 pivots: what follows then has their size, as if from the N x N Gram matrix.
    """
    if accuracy is None:
        accuracy = ACCURACY if reference.dim >= SMALL else 0.0
    return _DistanceTo(reference, accuracy)


class _DistanceTo:
    def __init__(self, reference: Moments, accuracy: float) -> None:
        self.reference, self.accuracy = reference, accuracy
        self.cov = reference.covariance
        self.factor = _factor(reference, self.cov)
        self.norm = float(np.linalg.norm(self.cov))

    def __call__(self, a: Moments) -> float:
        b = self.reference
        if a.dim != b.dim:
            raise ValueError(f"cannot compare features of {a.dim} and {b.dim} dimensions")
        cov_a = a.covariance
        if np.array_equal(a.mean, b.mean) and np.array_equal(cov_a, self.cov):
            return 0.0  # the same statistics: spare the caller the rounding of tr(A) - tr((A A)^1/2)
        found = self._by_eigenvalues(a, cov_a) if self.accuracy else None
        return self._by_singular_values(a) if found is None else found

    def _by_singular_values(self, a: Moments) -> float:
        # Not by eigenvalues of the squared product: squaring would leave half the digits.
        factor, shift = _factor(a), a.mean - self.reference.mean
        overlap = factor.rows.T @ self.factor.rows
        common = float(np.linalg.svd(overlap, compute_uv=False).sum()) if overlap.size else 0.0
        traces = float((factor.rows**2).sum()) + float((self.factor.rows**2).sum())
        return max(float(shift @ shift) + traces - 2 * common, 0.0)

    def _by_eigenvalues(self, a: Moments, cov_a: Array) -> float | None:
        """Return the distance, or None where eigenvalues are not known well enough for it."""
        factor, middle, other, cov_other = self.factor, cov_a, a, cov_a
        if a.count - 1 < factor.rank:
            factor, middle, other, cov_other = _factor(a, cov_a), self.cov, self.reference, self.cov
        if not factor.rank:
            return None
        inner, kept = _inner(middle, factor), _kept(factor)
        split = _split(inner, kept) if kept < factor.rank else None
        squared = np.maximum(_eigenvalues(inner[:kept, :kept]), 0.0)
        common, missed = float(np.sqrt(squared).sum()), 0.0
        if split is not None:
            # The roots of the rest, and how far both parts are off beside one another: see `_split`.
            least = max(float(squared.min()), EPS**2)
            missed = split.spread / least * (math.sqrt(least) + split.roots)
            common += split.roots
        shift = a.mean - self.reference.mean
        traces = float(np.trace(cov_a) + np.trace(self.cov))
        found = float(shift @ shift) + traces - 2 * common
        wanted = self.accuracy * found - missed
        if _uniform_error(squared, ROUNDING * EPS * self.norm * float(np.linalg.norm(cov_a))) < wanted:
            return found
        if split is None:
            log_det = _log_det(_factor(other, cov_other), factor) if kept == factor.rank else None
        else:
            log_det = split.log_det
        return found if log_det is not None and _graded_error(squared, log_det) < wanted else None


def _kept(factor: _Factor) -> int:
    """Return how many columns a factor has without its last pivots, where few are next to nothing.

    Eigenvalues of a whole product are not known there: the root of eps of the largest is 1e-8 of it.
    """
    pivots = np.square(factor.rows[factor.order[: factor.rank], range(factor.rank)])
    kept = int((pivots > SMALL_PIVOT * pivots.max()).sum())
    falling = bool((pivots[kept:] <= SMALL_PIVOT * pivots.max()).all())
    return kept if falling and factor.rank - kept <= factor.rank // 4 else factor.rank


class _Split(NamedTuple):
    """What a symmetric M = [[A, B], [B^T, D]] with a tiny D tells beside the eigenvalues of A."""

    roots: float
    """Sum of the roots of the eigenvalues of S = D - B^T A^-1 B."""
    spread: float
    """Trace of D."""
    log_det: float
    """Logarithm of det(A)."""


def _split(inner: Array, kept: int) -> _Split | None:
    """Return the parts of a matrix whose lower triangle is given, None where A is singular to rounding.

    The largest eigenvalues of M are above those of A (Cauchy), in sum by no more than tr D; the others are
    below those of S. As det M = det A det S, they are so by a factor of exp(-tr D / min eig A) at the least.
    """
    root, failed = lapack.dpotrf(inner[:kept, :kept], lower=1, clean=1)
    if failed:
        return None
    beside = scipy.linalg.solve_triangular(root, inner[kept:, :kept].T, lower=True, check_finite=False)
    rest = inner[kept:, kept:]
    rest = np.tril(rest) + np.tril(rest, -1).T
    values = np.linalg.eigvalsh(rest - beside.T @ beside)
    roots = float(np.sqrt(np.maximum(values, 0.0)).sum())
    return _Split(roots, float(np.trace(rest)), 2 * float(np.log(root.diagonal()).sum()))


def _log_det(left: _Factor, right: _Factor) -> float | None:
    """Return log det(G^T F F^T G) of the factors F ``left`` and G ``right``, None where it is singular.

    By triangles alone, which no eigenvalue has gone through: where both factors are square their own, else
    that of F^T G.
    """
    if left.rank < right.rank:
        return None
    if left.rank == right.rank == len(left.rows):
        pivots = np.concatenate([np.abs(each.rows[each.order].diagonal()) for each in (left, right)])
    else:
        overlap = left.rows.T @ right.rows
        triangle, _, _, _ = lapack.dgeqrf(overlap, overwrite_a=True)
        pivots = np.abs(triangle.diagonal())
    return 2 * float(np.log(pivots).sum()) if pivots.all() else None


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
    rank = moments.count - 1 if few else _factor(moments).rank
    if rank >= dim:
        return ""
    cause = f"{moments.count} images in {dim} dimensions" if few else f"features without spread among {dim}"
    return (
        f"the covariance is singular ({cause}, rank at most {rank}); nothing was added to it, and directions "
        "without spread count with spread 0" + ("; the upward bias is large" if few else "")
    )


def frechet_interval(model: Moments, reference: Moments, rows: NDArray[Any]) -> Interval:
    """Return the plug-in Frechet distance and the interval of its expectation at N = model.count.

    Infinitesimal jackknife (delta method): one image x moves the distance by psi(x) / N with

        psi(x) = 2 (mu - nu) . (x - mu) + (x - mu)^T (I - T) (x - mu) - tr((I - T) Sigma),

    T the optimal transport map from model to reference, whose statistics are fixed as part of the task. The
    standard error is std(psi) / sqrt(N), the interval `Interval.of_distance`. ``rows`` [R, D] are the model's
    features or a uniform sample of them. Towards P = Q the first order vanishes and the error is overstated.
    """
    psi = frechet_influence(model, reference, rows)
    error = float(psi.std(ddof=1) / np.sqrt(model.count))
    interval = Interval.of_distance(frechet_distance(model, reference), error)
    return replace(interval, low=max(interval.low, 0.0))


def frechet_influence(model: Moments, reference: Moments, rows: NDArray[Any]) -> Array:
    """Return psi of `frechet_interval` for every row of features [R, D], up to its constant, shape [R]."""
    x = np.asarray(rows, dtype=np.float64) - model.mean
    slope = np.eye(model.dim) - transport_map(model, reference)
    return np.asarray(2 * x @ (model.mean - reference.mean) + np.einsum("nd,nd->n", x @ slope, x))


def transport_map(a: Moments, b: Moments) -> Array:
    """Return the matrix T = G (G^T A G)^(-1/2) G^T that moves N(., A) onto N(., B) optimally, shape [D, D].

    I - T is the derivative of the squared distance with respect to A. Directions in which A has no spread
    have no derivative and get 0 (a pseudo-inverse).
    """
    factor = _factor(b).rows
    values, vectors = np.linalg.eigh(factor.T @ a.covariance @ factor)
    kept = values > values.max(initial=0.0) * len(values) * EPS
    moved = factor @ vectors[:, kept]
    return np.asarray((moved / np.sqrt(values[kept])) @ moved.T)


def frechet_bias(rows: NDArray[Any], reference: Moments, count: int, *, groups: int = 20) -> float:
    """Return the estimated upward bias of the plug-in at N = ``count``, by the delete-group jackknife.

    (g - 1) (mean_j d_(-j) - d) estimates the c / R of the R given rows; the bias at N is R / N times that.
    Of a singular covariance, N <= D, the bias follows no such law and is most of the distance. What it may be
    is returned: all but |mu - nu|^2 - tr(Sigma) / N, the distance of the means without bias.
    """
    x = np.asarray(rows, dtype=np.float64)
    distance = frechet_to(reference, accuracy=1e-8)
    if count <= x.shape[1]:
        whole = Moments.of(x)
        shift, spread = whole.mean - reference.mean, float(np.trace(whole.covariance))
        return distance(whole) - float(shift @ shift) + spread / count
    groups = min(groups, len(x))
    parts = [Moments.of(x[j::groups]) for j in range(groups)]
    without = [distance(reduce(Moments.merge, parts[:j] + parts[j + 1 :])) for j in range(groups)]
    bias = (groups - 1) * (float(np.mean(without)) - distance(reduce(Moments.merge, parts)))
    return bias * len(x) / count


@dataclass(frozen=True)
class FitPoint:
    """The mean Frechet distance over ``subsets`` disjoint subsets of about ``count`` images each."""

    count: int
    subsets: int
    value: float


@dataclass(frozen=True)
class FrechetInfinity:
    """The intercept of the line value = intercept + slope / N, its interval and the points it was fitted to.

    ``curved`` is the intercept of a parabola through the same points: how far the law of 1 / N is to be
    trusted.
    """

    interval: Interval
    slope: float
    curved: float
    points: tuple[FitPoint, ...]


def frechet_infinity(
    features: NDArray[Any],
    reference: Moments,
    *,
    partitions: Sequence[int] = PARTITIONS,
    smallest: int | None = None,
    seed: int = 2020,
) -> FrechetInfinity:
    """Return the Frechet distance of features [N, D] to ``reference`` at N -> infinity, arXiv:1911.07023.

    The plug-in at n images is d + c / n + O(n^-2). For each k of ``partitions`` all images are dealt into k
    disjoint random subsets, whose mean distance belongs to 1 / n = k / N. As every level holds every image,
    they share their first-order error, and what they do not share has a variance in proportion to k - 1.
    The best line therefore goes through the whole set and weighs the others by 1 / (k - 1). Partitions with
    subsets below ``smallest`` (default 1.2 D, as a singular covariance follows another law) are left out.

    The interval covers d, with the reference's statistics fixed: 1.96 times the delta method's error of the
    whole set (`frechet_interval`) and the second-order error seen in the residuals, beyond both the line's
    and the parabola's intercept. Near P = Q it may reach below 0, as the estimate may. Raises UserError
    where fewer than four sizes are left.
    """
    x = np.asarray(features, dtype=np.float64)
    total = len(x)
    floor = math.ceil(1.2 * x.shape[1]) if smallest is None else smallest
    levels = [k for k in sorted(set(partitions) | {1}) if total // k >= max(floor, 2)]
    if len(levels) < 4:
        raise UserError(
            f"an extrapolated Frechet distance fits at least four sizes of subsets of at least {floor} "
            f"images and {total} images give {len(levels)}: ask for {4 * floor} images"
        )
    distance, points, rng = frechet_to(reference, accuracy=1e-5), [], np.random.default_rng(seed)
    with bar(total=sum(levels), desc="Frechet distance of subsets", unit="subset") as progress:
        for k in levels:
            values = []
            for subset in np.array_split(rng.permutation(total), k):
                values.append(distance(Moments.of(x[subset])))
                progress.update()
            points.append(FitPoint(total // k, k, float(np.mean(values))))
    whole = points[0].value
    step, curved, unshared = _fit(np.array(levels[1:]), np.array([p.value - whole for p in points[1:]]))
    first_order = float(frechet_influence(Moments.of(x), reference, x).var(ddof=1)) / total
    error = float(np.sqrt(first_order + unshared))
    margin = NORMAL_95 * error
    ends = (whole - step, whole - curved)
    interval = Interval(whole - step, min(ends) - margin, max(ends) + margin, error)
    return FrechetInfinity(interval, step * total, whole - curved, tuple(points))


def _fit(k: NDArray[np.int64], rise: Array) -> tuple[float, float, float]:
    """Return how far line and parabola fall from k = 1 to 0, and the line's variance from what is off both.

    Least squares with weights 1 / (k - 1) of rise = b (k - 1), and of rise = b (k - 1) + c (k^2 - 1).
    """
    excess = k - 1.0
    step = float(rise.sum() / excess.sum())
    weight = 1 / np.sqrt(excess)
    terms = np.stack([excess, k**2 - 1.0], axis=1)
    coefficients, *_ = np.linalg.lstsq(terms * weight[:, None], rise * weight, rcond=None)
    off = (rise - terms @ coefficients) * weight
    unshared = float(off @ off) / (len(k) - 2)
    return step, float(coefficients.sum()), unshared * (1 + 1 / float(excess.sum()))


class _Factor(NamedTuple):
    """F [D, rank] with F F^T = covariance; in another order of its rows it is lower triangular."""

    rows: Array
    order: NDArray[np.int64]
    """By which they are taken then; in it the pivots fall, unless it is the order of the features."""

    @property
    def rank(self) -> int:
        """Number of columns."""
        return int(self.rows.shape[1])


def _factor(moments: Moments, covariance: Array | None = None) -> _Factor:
    """Return the factor of a covariance, where it is at hand; directions without spread are dropped."""
    covariance = moments.covariance if covariance is None else covariance
    if moments.count > moments.dim:
        lower = _cholesky(covariance)
        if lower is not None:
            return _Factor(lower, np.arange(moments.dim))
    return _pivoted(covariance, min(moments.count - 1, moments.dim))


def _cholesky(covariance: Array) -> Array | None:
    """Return the lower triangular factor [D, D], or None where a pivot is close to the size of rounding."""
    # A symmetric matrix is its own transpose, and LAPACK reads by columns.
    lower, failed = lapack.dpotrf(covariance.T, lower=1, clean=1)
    if failed:
        return None
    pivots = np.square(lower.diagonal())
    least = ROUNDING * len(covariance) * EPS * covariance.diagonal().max(initial=0.0)
    return np.asarray(lower) if pivots.min() > max(least, SMALL_PIVOT * pivots.max()) else None


def _pivoted(covariance: Array, most: int) -> _Factor:
    """Return the first columns, at most ``most``, of the Cholesky factor with the largest pivots first."""
    if not covariance.any():
        return _Factor(np.zeros((len(covariance), 0)), np.arange(len(covariance)))
    found, order, rank, _ = lapack.dpstrf(covariance.T, lower=1)
    factor = np.zeros((len(covariance), min(rank, most)))
    factor[order - 1] = np.tril(found)[:, : factor.shape[1]]
    return _Factor(factor, order - 1)


def _inner(middle: Array, factor: _Factor) -> Array:
    """Return the lower triangle of G^T S G for symmetric S ``middle`` [D, D] and ``factor`` G [D, rank]."""
    dim, rank = factor.rows.shape
    if rank <= LEAST_SHARE * dim:
        return np.asarray(factor.rows.T @ middle @ factor.rows)
    # At a quarter of the work of two products.
    lower = factor.rows
    if rank < dim or (factor.order[1:] < factor.order[:-1]).any():
        middle = middle[np.ix_(factor.order, factor.order)]
        lower = np.zeros((dim, dim), order="F")
        lower[:, :rank] = factor.rows[factor.order]
    inner, _ = lapack.dsygst(middle.T, lower, itype=2, lower=1)
    return np.asarray(inner[:rank, :rank])


def _eigenvalues(inner: Array) -> Array:
    """Return the eigenvalues of a symmetric matrix, of which the lower triangle is read."""
    # `evr` is the fastest of LAPACK's drivers where no vectors are asked for.
    return np.asarray(scipy.linalg.eigvalsh(inner, lower=True, driver="evr", check_finite=False))
