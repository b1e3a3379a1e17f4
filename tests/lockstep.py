"""Several processes as threads of one, which wait for one another where processes would."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from lsgm.distributed import World

__all__ = ["in_step"]

T = TypeVar("T")


def in_step(size: int, work: Callable[[World], T]) -> list[T]:
    """Return what ``size`` processes make of their worlds, in the order of their ranks."""
    board: list[Any] = [None] * size
    barrier = threading.Barrier(size)

    class Together(World):
        def gather(self, item: Any) -> list[Any]:
            board[self.rank] = item
            barrier.wait(timeout=20)
            items = list(board)
            barrier.wait(timeout=20)
            return items

        def hand_in(self, item: Any) -> list[Any]:
            items = self.gather(item)
            return items if self.main else []

        def on_main(self, action: Callable[[], Any]) -> Any:
            return self.gather(action() if self.main else None)[0]

    found: dict[int, T] = {}
    raised: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            found[rank] = work(Together(rank, size, torch.device("cpu")))
        except BaseException as error:
            raised.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = [error for error in raised if not isinstance(error, threading.BrokenBarrierError)]
    if first or raised:
        raise (first or raised)[0]
    return [found[rank] for rank in range(size)]
