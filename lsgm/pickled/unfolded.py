"""Whether what a file holds can be walked through: no list within itself, no tables without end."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lsgm.errors import CheckpointError
from lsgm.files.limits import INSTRUCTIONS
from lsgm.files.shown import shown
from lsgm.pickled.machine import Made

__all__ = ["NESTING", "below", "refuse_unbounded"]

NESTING = 64
"""Containers within one another."""


def below(value: Any) -> Iterable[Any]:
    """Return what lies directly in a container, nothing for anything else; the keys of a table are plain."""
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, argparse.Namespace):
        return vars(value).values()
    return (*value.args, value.state) if isinstance(value, Made) else ()


def refuse_unbounded(content: Any, path: Path) -> None:
    """Walk through containers without recursion, every one once.

    Raises CheckpointError where one lies within itself, where they nest more than `NESTING` deep, and where
    they have more entries than `INSTRUCTIONS`, each counted as often as it can be reached: a hundred lists,
    each of the one before ten times, are 10^100.
    """
    name = shown(str(path))
    sizes: dict[int, int] = {}
    depths: dict[int, int] = {}
    open_ones: set[int] = set()
    walk = [(content, False)]
    while walk:
        value, done = walk.pop()
        inner, key = below(value), id(value)
        if done:
            open_ones.discard(key)
            sizes[key] = 1 + sum(sizes.get(id(item), 1) for item in inner)
            depths[key] = 1 + max((depths.get(id(item), 0) for item in inner), default=0)
            if sizes[key] > INSTRUCTIONS.value:
                INSTRUCTIONS.hold(f"what {name} unfolds into", min(sizes[key], 10**18), CheckpointError)
            if depths[key] > NESTING:
                raise CheckpointError(
                    f"{name} nests more than {NESTING} lists and tables; get the file from its authors again"
                )
        elif key in open_ones:
            raise CheckpointError(
                f"{name} holds a list or table that lies within itself; get the file from its authors again"
            )
        elif key not in sizes and isinstance(value, (Mapping, list, tuple, argparse.Namespace, Made)):
            open_ones.add(key)
            walk.append((value, True))
            walk.extend((item, False) for item in inner)
