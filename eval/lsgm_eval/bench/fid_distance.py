"""One Frechet distance by several ways, in turn, on covariances like those of features."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.linalg

from lsgm_eval.bench.turns import take_turns
from lsgm_eval.frechet import frechet_distance, frechet_to
from lsgm_eval.moments import Array, Moments

__all__ = ["SPECTRA", "feature_moments", "measure_distance"]

OURS = "this package"
SPECTRA: dict[str, Callable[[int], Array]] = {
    "1/k": lambda dim: np.arange(1, dim + 1, dtype=np.float64) ** -1,
    "1/k²": lambda dim: np.arange(1, dim + 1, dtype=np.float64) ** -2,
    "geometric": lambda dim: np.logspace(0, -6, dim),
}
"""Variances along the axes, which fall by powers as those of image features do, or from 1 to
10⁻⁶ in equal ratios."""


def feature_moments(spectrum: str, dim: int, rows: int, seed: int) -> tuple[Moments, Moments]:
    """Return the moments of two sets of ``rows`` features: the axes of the second are turned a little, its
    spread is a tenth larger, and its mean lies a tenth of the largest spread away."""
    rng = np.random.default_rng(seed)
    spread = np.sqrt(SPECTRA[spectrum](dim))
    axes = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    turned = np.linalg.qr(axes + 0.1 / np.sqrt(dim) * rng.standard_normal((dim, dim)))[0]
    first = (rng.standard_normal((rows, dim)) * spread) @ axes.T
    second = (rng.standard_normal((rows, dim)) * spread * 1.1 + 0.1 / np.sqrt(dim)) @ turned.T
    return Moments.of(first), Moments.of(second)


def measure_distance(dim: int, rows: int, *, repeats: int, seed: int) -> list[dict[str, Any]]:
    """Return a row for each spectrum and way: seconds, processor seconds, how many times as long as ours,
    and the relative difference of its value from that of singular values."""
    found = []
    for spectrum in SPECTRA:
        a, b = feature_moments(spectrum, dim, rows, seed)
        truth = _by_singular_values(a, b)
        ways: dict[str, Callable[[], float]] = {
            OURS: partial(frechet_distance, a, b),
            "this package, reference factored before": partial(frechet_to(b), a),
            "this package, singular values": partial(_by_singular_values, a, b),
            "eigvals of the product": partial(_by_product, a, b, _trace_by_eigvals),
            "sqrtm of the product": partial(_by_product, a, b, _trace_by_sqrtm),
        }
        head = {"spectrum": spectrum, "dim": dim, "rows": rows, "repeats": repeats}
        # SciPy's root takes so long that what comes first with a run is lost in it.
        warm = [name for name in ways if not name.startswith("sqrtm")]
        timed = take_turns(ways, repeats, desc=f"distance, {spectrum}", warm=warm)
        found += [
            head
            | {"way": name, **times.as_row(timed[OURS])}
            | {"value": times.value, "difference": abs(times.value - truth) / truth}
            for name, times in timed.items()
        ]
    return found


def _by_singular_values(a: Moments, b: Moments) -> float:
    return frechet_to(b, accuracy=0.0)(a)


def _by_product(a: Moments, b: Moments, trace_of_root: Callable[[Array], float]) -> float:
    cov_a, cov_b = a.covariance, b.covariance
    shift = a.mean - b.mean
    root = trace_of_root(cov_a @ cov_b)
    return float(shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * root)


def _trace_by_eigvals(product: Array) -> float:
    return float(np.sqrt(np.linalg.eigvals(product).astype(np.complex128)).real.sum())


def _trace_by_sqrtm(product: Array) -> float:
    with warnings.catch_warnings():
        # Of a product close to singular, whose root the other packages take as well.
        warnings.simplefilter("ignore")
        return float(np.trace(scipy.linalg.sqrtm(product)).real)
