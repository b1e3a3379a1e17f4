"""What a bound by a flow owes to its solver: some images are solved again, more finely, and move this far.

A second solve has the same draws, dequantisation and probes, which depend on the image alone, so that what
moves is the solver's error and nothing else. Of an error e ~ step^p, twice the steps leave e / 2^p: the shift
is e (1 - 2^-p), half of e by Euler's method, 3/4 by Heun's, 15/16 by RK4, and divided by that share it is e
(Richardson). The local error that dopri5 keeps below its tolerance makes the whole one about proportional to
it, but for the state's part: a tenth of it shows 0.7 to 1.4 of e in Gaussian worlds, and is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lsgm.config import DensityConfig
from lsgm.errors import UserError
from lsgm.generative import GenerativeModel
from lsgm_eval.intervals import mean_interval

__all__ = ["SOLVED_AGAIN", "SolverShift", "advice", "finer", "mean_and_margin", "solver_shift", "solves_flow"]

SOLVED_AGAIN = 16
"""Images that are solved again, the first of the order; all of them where there are fewer."""

SHOWN = {"euler": 1 / 2, "heun": 3 / 4, "rk4": 15 / 16, "dopri5": 1.0}
"""The share of a solver's error by which a finer solve moves."""


class Solved(Protocol):
    """What is read of the scores of some images."""

    @property
    def rows(self) -> Tensor:
        """Each image's row in its split, int64 [N]."""
        ...

    @property
    def nats(self) -> Tensor:
        """The bound, float64 [N]."""
        ...

    @property
    def failures(self) -> Sized:
        """The images that have none."""
        ...


@dataclass(frozen=True)
class SolverShift:
    """How far the bounds of some images lie above those of a finer solve."""

    rows: NDArray[Any]
    """The images' rows in their split, int64 [K]."""
    nats: NDArray[Any]
    """Bound minus finer bound over the share of an error that this shows (`SHOWN`), float64 [K]: below 0
    where the bound is too low."""
    config: DensityConfig
    """How the images were solved the first time."""
    reason: str = ""
    """Why it is not known, where no image could be solved again."""

    @property
    def mean(self) -> tuple[float, float | None] | None:
        """The mean over images and half of its 95 % interval, which one image lacks; None where not known."""
        return mean_and_margin(self.nats)

    @property
    def how(self) -> str:
        """How the second solve differed, in words."""
        return "a tenth of the tolerance" if self.config.solver == "dopri5" else "twice the steps"

    @property
    def advice(self) -> str:
        """What makes it smaller."""
        return advice(self.config)


def solves_flow(model: GenerativeModel, config: DensityConfig) -> bool:
    """Say whether a bound takes a model's density from its probability flow, and so has a solver's error."""
    return bool(model.has_prior) and config.method != "nelbo"


def finer(config: DensityConfig) -> DensityConfig:
    """Return settings under which a flow is solved again: a tenth of both tolerances, or twice the steps."""
    if config.solver == "dopri5":
        return replace(config, rtol=config.rtol / 10, atol=config.atol / 10)
    return replace(config, steps=2 * config.steps)


def advice(config: DensityConfig) -> str:
    """Return which setting solves a flow more finely."""
    if config.solver == "dopri5":
        return f"lower the tolerance, --tol {min(config.rtol, config.atol) / 10:g}"
    return f"take more steps, --steps {2 * config.steps}"


def solver_shift(
    config: DensityConfig, scores: Solved, score: Callable[[DensityConfig, int], Solved]
) -> SolverShift:
    """Return how far the first `SOLVED_AGAIN` images move where ``score(config, count)`` solves them finely.

    Images that either solve has no number for count for nothing, and a finer solve that cannot be done at all
    leaves the error unknown, with the reason.
    """
    count = min(SOLVED_AGAIN, len(scores.rows) + len(scores.failures))
    try:
        again = score(finer(config), count)
    except UserError as error:
        none = np.empty(0)
        # Remarks of a row are parted by semicolons.
        return SolverShift(none.astype(np.int64), none, config, str(error).replace("; ", ", "))
    rows, first, second = np.intersect1d(
        scores.rows.numpy(), again.rows.numpy(), assume_unique=True, return_indices=True
    )
    moved = (scores.nats.numpy()[first] - again.nats.numpy()[second]) / SHOWN[config.solver]
    return SolverShift(rows, moved, config, "" if len(rows) else "no image was solved twice")


def mean_and_margin(nats: NDArray[Any]) -> tuple[float, float | None] | None:
    """Return the mean of N numbers and half of its 95 % interval: no such half of one, nothing of none."""
    if len(nats) < 2:
        return (float(nats[0]), None) if len(nats) else None
    mean = mean_interval(nats)
    return mean.value, (mean.high - mean.low) / 2
