"""Several ways to one result, timed in turn on the clock and on the processor."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from lsgm.bench.spread import spread_of
from lsgm.progress import bar

__all__ = ["Timed", "take_turns"]


@dataclass
class Timed:
    """Seconds of one way, by round, and what it returned last."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Of all threads of this process: what other work on a busy machine lengthens least."""
    value: Any = None

    def as_row(self, ours: Timed) -> dict[str, float]:
        """Return medians and quartiles of seconds, and of ratios to ``ours`` within rounds."""
        return {
            **spread_of(self.wall).as_row("seconds"),
            **spread_of(self.cpu).as_row("cpu_seconds"),
            **spread_of(_ratios(self.wall, ours.wall)).as_row("over_ours"),
            **spread_of(_ratios(self.cpu, ours.cpu)).as_row("cpu_over_ours"),
        }


def take_turns(
    ways: Mapping[str, Callable[[], Any]], repeats: int, *, desc: str, warm: Collection[str] = ()
) -> dict[str, Timed]:
    """Return the times of ``repeats`` rounds; a round runs every way once, each round from another one on.

    Those named in ``warm`` run once before, because libraries load and memory is new the first time.
    """
    names = list(ways)
    timed = {name: Timed() for name in names}
    for name in warm:
        ways[name]()
    for index in bar(range(repeats), desc=desc, unit="round"):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            wall, cpu = time.perf_counter(), time.process_time()
            timed[name].value = ways[name]()
            timed[name].wall.append(time.perf_counter() - wall)
            timed[name].cpu.append(time.process_time() - cpu)
    return timed


def _ratios(these: list[float], those: list[float]) -> list[float]:
    return [a / max(b, 1e-9) for a, b in zip(these, those, strict=True)]
