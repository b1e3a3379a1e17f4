"""How samplers are called: rows name them with their settings, ``heun(steps=20)``."""

from __future__ import annotations

import re
from itertools import pairwise

__all__ = ["curve_name", "family", "is_adaptive", "sampler_label"]

_BUDGET = ("steps", "rtol", "atol")
"""Settings that move along a curve; all others tell one curve from another."""


def family(sampler: str | None) -> str:
    """Return the name of a sampler without its settings: ``heun`` of ``heun(steps=20)``."""
    return (sampler or "none").partition("(")[0]


def curve_name(sampler: str | None) -> str:
    """Return what the points of one curve share: ``ddim, eta=1`` of ``ddim(steps=20, eta=1)``."""
    name, _, inside = (sampler or "none").partition("(")
    settings = [part for part in inside.removesuffix(")").split(", ") if part]
    kept = [part for part in settings if part.partition("=")[0] not in _BUDGET]
    return ", ".join([name, *kept])


def is_adaptive(sampler: str | None) -> bool:
    """Say whether a solver chose its own steps, to a tolerance."""
    return "rtol=" in (sampler or "")


def sampler_label(sampler: str | None) -> str:
    """Return a sampler as a table shows it: ``heun, 20 steps`` for ``heun(steps=20)``."""
    name, _, inside = (sampler or "none").partition("(")
    settings = inside.removesuffix(")")
    settings = re.sub(r"steps=1\b", "1 step", settings)
    settings = re.sub(r"steps=(\d+)", r"\1 steps", settings)
    parts = settings.split(", ")
    for place, (one, other) in enumerate(pairwise(parts)):
        if one.startswith("rtol=") and other == f"atol={one[5:]}":
            parts[place : place + 2] = [f"tol {one[5:]}"]
            break
    settings = ", ".join(parts)
    return f"{name}, {settings}" if settings else name
