"""Memory for images that threads decode side by side: large ones wait for each other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Room"]


class Room:
    """A number of bytes that those at work share; one that needs more than there is works alone."""

    def __init__(self, size: int) -> None:
        self.size, self._used, self._changed = size, 0, threading.Condition()

    @contextmanager
    def taken(self, count: int) -> Iterator[None]:
        """Hold ``count`` bytes, after those who hold too many have given them back."""
        count = min(count, self.size)
        with self._changed:
            self._changed.wait_for(lambda: self._used + count <= self.size)
            self._used += count
        try:
            yield
        finally:
            with self._changed:
                self._used -= count
                self._changed.notify_all()
