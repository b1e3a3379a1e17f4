"""Seconds of several ways to do one thing, taken in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from lsgm.devices import clock
from lsgm.progress import bar

__all__ = ["WARM_UP", "time_in_turn"]

WARM_UP = 2
"""Rounds that do not count."""


def time_in_turn(
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    *,
    desc: str,
    before: Callable[[], object] | None = None,
) -> dict[str, list[float]]:
    """Return each way's seconds by round; ``before`` runs ahead of every one and is not timed.

    A round times every way once and each round begins with another one, so that a machine that gets slower
    slows all of them.
    """
    names = list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in bar(range(WARM_UP + rounds), desc=desc, unit="round"):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            if before is not None:
                before()
            started = clock(device)
            ways[name]()
            took = clock(device) - started
            if index >= WARM_UP:
                seconds[name].append(took)
    return seconds
