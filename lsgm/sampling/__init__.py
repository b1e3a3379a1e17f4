"""Samplers: from noise to latents or pixels, one short function each, listed without importing torch.

To add one, write a function like those of ``flow.py`` under ``@register(...)``: in a file of this folder,
whose name then goes into the import below, or in a package of its own (`lsgm.sampling.registry`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsgm.sampling import flow, multistep  # noqa: F401  (importing a family registers its samplers)
from lsgm.sampling.registry import (
    CountedScore,
    Descent,
    Sampler,
    ScoreFunction,
    check_options,
    find_sampler,
    register,
    sampler_names,
    samplers,
)

if TYPE_CHECKING:
    from lsgm.sampling.drawing import Drawn, draw

__all__ = [
    "CountedScore",
    "Descent",
    "Drawn",
    "Sampler",
    "ScoreFunction",
    "check_options",
    "draw",
    "find_sampler",
    "register",
    "sampler_names",
    "samplers",
]


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for."""
    if name in ("Drawn", "draw"):
        from lsgm.sampling import drawing

        return getattr(drawing, name)
    raise AttributeError(f"module 'lsgm.sampling' has no attribute '{name}'")
