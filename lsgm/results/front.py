"""Which points are worth their cost: the Pareto front over (cost, loss)."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(costs: Sequence[float], losses: Sequence[float]) -> list[int]:
    """Return the numbers of the points that no other equals or beats in both, by rising cost.

    Of equal points the first stands. Losses fall along the front strictly.
    """
    front: list[int] = []
    for k in sorted(range(len(costs)), key=lambda k: (costs[k], losses[k])):
        if not front or losses[k] < losses[front[-1]]:
            front.append(k)
    return front
