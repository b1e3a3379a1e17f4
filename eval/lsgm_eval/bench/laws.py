"""Laws whose answers are known, and how often the intervals of this package cover them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsgm.errors import DataError
from lsgm.files.arrays import read_arrays
from lsgm_eval.metrics.frechet import frechet_interval
from lsgm_eval.metrics.intervals import NORMAL_95, Interval, mean_interval
from lsgm_eval.metrics.kernel import cubic_kernel, kernel_distance
from lsgm_eval.metrics.moments import Array, Moments

Draw = Callable[[np.random.Generator], Interval]


@dataclass(frozen=True)
class Law:
    """A law, a statistic of n images of it, and what its interval must cover."""

    statistic: str
    law: str
    n: int
    dim: int
    draw: Draw
    truth: float | None
    """None: the mean of all repeats."""


def coverage(world: Law, repeats: int, seed: int) -> dict[str, Any]:
    """Return the shares of intervals that cover, that end below and that begin above the truth."""
    rng = np.random.default_rng([seed, *world.law.encode(), world.n])
    found = [world.draw(rng) for _ in range(repeats)]
    truth = float(np.mean([i.value for i in found])) if world.truth is None else world.truth
    even = np.mean([abs(i.value - truth) <= NORMAL_95 * i.standard_error for i in found])
    below, above = np.mean([i.high < truth for i in found]), np.mean([i.low > truth for i in found])
    told = {name: getattr(world, name) for name in ("statistic", "law", "n", "dim")}
    return told | {
        "covered": float(1 - below - above),
        "below": float(below),
        "above": float(above),
        "even": float(even),
        "truth": truth,
        "repeats": repeats,
    }


def worlds() -> Iterator[Law]:
    """Yield the laws, from even ones to those of which few images hold everything."""
    yield _mean("Normal", 100, 0.0, lambda rng: rng.normal(size=100))
    yield _mean("exponential", 100, 1.0, lambda rng: rng.exponential(size=100))
    yield _mean("lognormal, sigma 1", 100, float(np.exp(0.5)), lambda rng: rng.lognormal(size=100))
    yield _mean("lognormal, sigma 1.5", 100, float(np.exp(1.125)), lambda rng: rng.lognormal(0, 1.5, 100))
    yield _mean(
        "Normal, 1 % outliers of 1,000", 100, 10.0, lambda rng: rng.normal(1000.0 * (rng.random(100) < 0.01))
    )
    for n, dim, power in ((300, 64, 0.0), (300, 64, 1.0), (100, 64, 2.0), (300, 256, 2.0)):
        yield _frechet(n, dim, power)
    for n, sigma, dim in ((100, 0.5, 32), (100, 0.7, 8), (100, 1.0, 8), (100, 1.0, 64), (1000, 1.0, 8)):
        yield _kernel(n, dim, sigma)


def _mean(law: str, n: int, truth: float, draw: Callable[[np.random.Generator], Array]) -> Law:
    return Law("mean", law, n, 1, lambda rng: mean_interval(draw(rng)), truth)


def _frechet(n: int, dim: int, power: float) -> Law:
    """Return Normal features of variances k^-power against themselves, moved by a tenth of their spread."""
    spread = np.arange(1.0, dim + 1) ** (-power / 2)
    reference = Moments.given(np.zeros(dim), np.diag(spread**2), 10**6)

    def draw(rng: np.random.Generator) -> Interval:
        x = spread * (0.1 + rng.normal(size=(n, dim)))
        return frechet_interval(Moments.of(x), reference, x)

    return Law("Frechet", f"Normal, variances k^-{power:g}", n, dim, draw, None)


def _kernel(n: int, dim: int, sigma: float, scale: float = 1.3) -> Law:
    """Return lognormal features of one scale against those of another."""

    def draw(rng: np.random.Generator) -> Interval:
        x, y = rng.lognormal(0, sigma, (2, n, dim))
        return kernel_distance(scale * x, y)

    return Law("kernel", f"lognormal, sigma {sigma:g}", n, dim, draw, lognormal_mmd(scale, dim, sigma))


def lognormal_mmd(scale: float, dim: int, sigma: float) -> float:
    """Return MMD^2 between independent lognormal features and ``scale`` times them, from their moments.

    With u = E x y and so on of one feature, E (x . y / D + 1)^3 is a polynomial in E x, E x^2 and E x^3.
    """

    def expected(factor: float) -> float:
        one, two, three = (factor**j * np.exp(j**2 * sigma**2) for j in (1, 2, 3))
        square = two / dim + (dim - 1) / dim * one**2
        cube = (three + 3 * (dim - 1) * two * one + (dim - 1) * (dim - 2) * one**3) / dim**2
        return float(1 + 3 * one + 3 * square + cube)

    return expected(scale**2) + expected(1.0) - 2 * expected(scale)


def worlds_of(features: Path, counts: Sequence[int]) -> Iterator[Law]:
    """Yield draws of ``counts`` images from the rows of a file: two finite populations, whose MMD^2 is known.

    The npz holds arrays ``model`` and ``reference`` [N, D]. Raises DataError for another file.
    """
    try:
        arrays = read_arrays(features, ("model", "reference"))
        model, reference = (arrays.take(name, "iuf", 2).astype(np.float64) for name in ("model", "reference"))
    except DataError as error:
        raise DataError(
            f"{features} is no npz with arrays 'model' and 'reference' of features [N, D]: {error}"
        ) from None
    moments, dim = Moments.of(reference), model.shape[1]
    kernels = ((model, model), (reference, reference), (model, reference))
    own, theirs, cross = (
        float(np.mean([cubic_kernel(row[None], y).mean() for row in x])) for x, y in kernels
    )
    for n in counts:

        def frechet(rng: np.random.Generator, n: int = n) -> Interval:
            x = model[rng.integers(0, len(model), n)]
            return frechet_interval(Moments.of(x), moments, x)

        def kernel(rng: np.random.Generator, n: int = n) -> Interval:
            x, y = (rows[rng.integers(0, len(rows), n)] for rows in (model, reference))
            return kernel_distance(x, y)

        yield Law("Frechet", features.stem, n, dim, frechet, None)
        yield Law("kernel", features.stem, n, dim, kernel, own + theirs - 2 * cross)
