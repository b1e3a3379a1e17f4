"""What the test knows of one kind of file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzz.draws import Draws

__all__ = ["Kind", "Mutation"]

Mutation = Callable[[bytes, Draws], bytes]
"""From the bytes of a valid file to those of another."""


@dataclass(frozen=True)
class Kind:
    """A kind of file."""

    name: str
    parts: tuple[str, ...]
    """Of the world; ``cache`` becomes the folder of LSGM_CACHE."""
    files: tuple[str, ...]
    """Patterns, below the folder of the input, of the files that are changed."""
    commands: tuple[str, ...]
    outs: tuple[str, ...] = ("out",)
    """What the commands may write to."""
    mutation: Mutation | None = None
    """In place of that of the file's ending."""
    seal: Callable[[Path], None] | None = None
    """Makes checksums beside the files right again."""
    dear: bool = False
    """Whether an input takes seconds: fewer of them are run."""
