"""Which points are worth their cost: the Pareto front over (cost, loss), and where it reaches a loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Crossing", "crossing", "crossings", "pareto_front"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Crossing:
    """Where a front reaches a loss: the cost, and the points on both sides by their numbers."""

    cost: float
    before: int | None
    """The dearest point of the front that does not reach it; None where the cheapest point does already."""
    after: int


def pareto_front(costs: Sequence[float], losses: Sequence[float]) -> list[int]:
    """Return the numbers of the points that no other equals or beats in both, by rising cost.

    Of equal points the first stands. Losses fall along the front strictly.
    """
    front: list[int] = []
    for k in sorted(range(len(costs)), key=lambda k: (costs[k], losses[k])):
        if not front or losses[k] < losses[front[-1]]:
            front.append(k)
    return front


def crossing(costs: Sequence[float], losses: Sequence[float], target: float) -> Crossing | None:
    """Return where the front first has a loss of at most ``target``, or None where it never has.

    Between neighbours of the front log cost is a linear function of log loss (of loss where one is not above
    0, as an unbiased distance may be). What the cheapest point reaches costs at most its cost.
    """
    front = pareto_front(costs, losses)
    for before, after in zip([None, *front], front, strict=False):
        if losses[after] > target:
            continue
        if before is None or costs[before] <= 0:
            return Crossing(costs[after], before, after)
        share = _share(losses[before], losses[after], target)
        return Crossing(costs[before] ** (1 - share) * costs[after] ** share, before, after)
    return None


def _share(high: float, low: float, target: float) -> float:
    """Return how far from ``high`` to ``low`` the target lies, in logarithms where they exist."""
    if low > 0:
        high, low, target = math.log(high), math.log(low), math.log(target)
    return (high - target) / (high - low)


def crossings(costs: Array, losses: Array, target: float) -> Array:
    """Return `crossing`'s cost for every row of losses [R, P] at costs [P]: [R], infinite where never."""
    order = np.argsort(costs, kind="stable")
    cost, starts = np.unique(costs[order], return_index=True)
    loss = np.minimum.reduceat(losses[:, order], starts, axis=1)
    best, rows = np.minimum.accumulate(loss, axis=1), np.arange(len(loss))
    reached = best <= target
    after = reached.argmax(axis=1)
    high, low = best[rows, np.maximum(after - 1, 0)], loss[rows, after]
    # The front's point before the crossing is where the best loss so far was first attained.
    before = (best > high[:, None]).sum(axis=1)
    inner = (after > 0) & (cost[before] > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = (np.log(high) - np.log(target)) / (np.log(high) - np.log(low))
        share = np.where(low > 0, logs, (high - target) / (high - low))
        between = cost[before] ** (1 - share) * cost[after] ** share
    return np.where(reached.any(axis=1), np.where(inner, between, cost[after]), np.inf)
