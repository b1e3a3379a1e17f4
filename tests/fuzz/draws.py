"""The one source of chance: Hypothesis, so that a seed gives the same inputs again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

__all__ = ["Draws"]

T = TypeVar("T")


class Draws:
    """Choices, each of which Hypothesis makes."""

    def __init__(self, draw: Callable[..., Any]) -> None:
        self._draw = draw

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of the choices, which are not empty."""
        return choices[self.whole(0, len(choices) - 1)]

    def whole(self, low: int, high: int) -> int:
        """Return a whole number from ``low`` to ``high``, both included."""
        return int(self._draw(st.integers(low, max(low, high))))

    def chance(self, percent: int) -> bool:
        """Return whether something happens that does so in ``percent`` of a hundred cases."""
        return self.whole(1, 100) > 100 - percent

    def octets(self, count: int) -> bytes:
        """Return at most ``count`` bytes."""
        return bytes(self._draw(st.binary(max_size=count)))
