"""Samplers: from noise to latents or pixels, one short function each, listed without importing torch.

To add one, write a function like those of ``flow.py`` under ``@register(...)``; a new file also
needs its name in the import below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsgm.sampling import flow, multistep, stochastic  # noqa: F401  (importing a family registers its samplers)
from lsgm.sampling.registry import Sampler, check_options, find_sampler, register, sampler_names, samplers

if TYPE_CHECKING:
    from lsgm.sampling.counted import CountedScore, Drawn, ScoreFunction, draw

__all__ = [
    "CountedScore",
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
    if name in ("CountedScore", "Drawn", "ScoreFunction", "draw"):
        from lsgm.sampling import counted

        return getattr(counted, name)
    raise AttributeError(f"module 'lsgm.sampling' has no attribute '{name}'")
